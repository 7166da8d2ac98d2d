"""The report of an evaluation."""

from moving_object_detector.evaluation.report.page import write_report

__all__ = ['write_report']
