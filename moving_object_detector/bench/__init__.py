"""Time the networks and the detector by every engine that runs here, beside the naive pipeline."""

from moving_object_detector.bench.command import main

__all__ = ['main']
