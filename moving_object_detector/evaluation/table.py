"""Scores as a table for the terminal."""

from __future__ import annotations

from typing import Final

from moving_object_detector.evaluation.results import RunResult
from moving_object_detector.evaluation.summary import Scores, run_scores

_HEADINGS: Final = ('', 'J', 'recall', 'decay', 'F', 'recall', 'decay', 'objects found', 'false', 'alarms/min', 'empty')


def _number(value: float | None, digits: int = 3) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _row(variant: str, scores: Scores) -> tuple[str, ...]:
    found = f'{scores.found} of {scores.objects}' if scores.objects else '-'
    return (
        variant,
        *(_number(value) for value in (scores.j_mean, scores.j_recall, scores.j_decay)),
        *(_number(value) for value in (scores.f_mean, scores.f_recall, scores.f_decay)),
        found,
        str(scores.false_regions) if scores.frames else '-',
        _number(scores.false_alarms_per_minute, 1),
        _number(scores.empty),
    )


def table(run: RunResult) -> str:
    """Return the scores of every variant of a run, a line each; the last one is the one that counts."""
    rows = [_HEADINGS, *(_row(variant, run_scores(run, variant)) for variant in run.variants)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = []
    for variant, *cells in rows:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append('  '.join((variant.ljust(widths[0]), *numbers)))
    return '\n'.join(lines)
