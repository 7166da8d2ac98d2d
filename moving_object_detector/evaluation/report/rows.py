"""What the report says of each sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from moving_object_detector.evaluation.correlation import sequence_signals
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.report.plots import curves, known, sparkline
from moving_object_detector.evaluation.report.template import SMALL, Shot, embed
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult
from moving_object_detector.evaluation.summary import Scores, sequence_scores

_KINDS: Final = {'best': 'Best', 'worst': 'Worst'}


@dataclass(frozen=True)
class Row:
    """A sequence in the report: a row of the table, and its frames."""

    name: str
    anchor: str
    frames: int
    size: str
    scores: Scores
    """Of the variant that counts."""
    others: tuple[float, ...]
    """J of the other variants, where they have one."""
    found: float | None
    """Share of the annotated objects."""
    area: float | None
    """Share of the image in the mask, on average."""
    signals: Mapping[str, float | None]
    """Signals without annotation, by name."""
    rate: float | None
    """Frames evaluated in a second."""
    dropped: int
    problems: tuple[str, ...]
    spark: Markup | None
    plot: Markup | None
    extremes: tuple[Shot, ...]
    """The best and the worst frame."""
    spread: tuple[Shot, ...]
    video: str


def average(column: Column) -> float | None:
    """Return the mean of what is known of a column, None if nothing is."""
    return mean([value for _, value in known(column)])


def sequence_rows(folder: Path, run: RunResult, *, truth: bool) -> list[Row]:
    """Return the rows of the report.

    Args:
        folder: The run's, with its pictures.
        run: What was evaluated.
        truth: Whether any frame of the run was scored.

    """
    return [_row(folder, run, place, truth=truth) for place in range(len(run.sequences))]


def _row(folder: Path, run: RunResult, place: int, *, truth: bool) -> Row:
    sequence, counting = run.sequences[place], run.variants[-1]
    columns = sequence.variants[counting]
    scores = sequence_scores(sequence, counting, run.protocol)
    others = (sequence_scores(sequence, name, run.protocol).j_mean for name in run.variants[:-1])
    extremes = _shots(folder, sequence, tuple(_KINDS))
    scored = scores.j_mean is not None
    top = max((value for _, value in known(columns.area)), default=0.0)
    return Row(
        name=sequence.name,
        anchor=f'sequence-{place}',
        frames=sequence.frame_count,
        size=f'{sequence.size[1]}x{sequence.size[0]}',
        scores=scores,
        others=tuple(j for j in others if j is not None),
        found=scores.found / scores.objects if scores.objects else None,
        area=average(columns.area),
        signals=sequence_signals(sequence, counting, run.protocol),
        rate=sequence.frame_count / sequence.seconds if sequence.seconds > 0 else None,
        dropped=sequence.dropped,
        problems=sequence.problems,
        spark=sparkline(columns.j) if truth else sparkline(columns.area, max(top, 0.02)),
        plot=_plot(sequence, run.variants, f'curve{place}', scored=scored),
        extremes=extremes,
        spread=_shots(folder, sequence, ('spread',)),
        video=quote(sequence.video),
    )


def _plot(sequence: SequenceResult, variants: Sequence[str], name: str, *, scored: bool) -> Markup | None:
    if scored:
        marked = [(picture.frame, picture.kind) for picture in sequence.pictures if picture.kind in _KINDS]
        columns: Mapping[str, Column] = {variant: sequence.variants[variant].j for variant in variants}
        return curves(columns, marked, name, f'J over the frames of {sequence.name}')
    columns = {variants[-1]: sequence.variants[variants[-1]].area}
    return curves(columns, (), name, f'Share of the mask over the frames of {sequence.name}', share=True)


def _shots(folder: Path, sequence: SequenceResult, kinds: Sequence[str]) -> tuple[Shot, ...]:
    counting = tuple(sequence.variants.values())[-1].j
    shots = []
    for picture in (picture for kind in kinds for picture in sequence.pictures if picture.kind == kind):
        j = counting[picture.frame] if picture.frame < len(counting) else None
        words = (_KINDS.get(picture.kind, ''), f'frame {picture.frame}', '' if j is None else f'J {j:.3f}')
        small = None if picture.kind in _KINDS else SMALL
        shot = embed(folder, picture, ' · '.join(filter(None, words)), small)
        if shot is not None:
            shots.append(shot)
    return tuple(shots)
