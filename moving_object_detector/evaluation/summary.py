"""What the columns of an evaluation come to, by the rules of the data sets: scores of each sequence and of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.evaluation.metrics import decay, mean, recall
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult, VariantColumns

_MEANS: Final = ('j_mean', 'j_recall', 'j_decay', 'f_mean', 'f_recall', 'f_decay')
FEWEST_RANKS: Final = 3
"""Sequences of which a rank correlation says anything."""


@dataclass(frozen=True)
class Protocol:
    """The rule by which a data set is scored."""

    name: str
    average: Literal['sequences', 'frames']
    """``sequences``: the mean of the sequences' means, each counting the same; ``frames``: the mean over all frames
    scored, of whatever sequence."""
    ends: bool
    """Whether the first and the last frame of a sequence are scored."""
    rule: str
    """The rule in words."""

    def scored(self, index: int, frame_count: int, annotated: bool) -> bool:
        """Tell whether a frame is scored: its number in the sequence from 0, the sequence's length, and its truth."""
        return annotated and (self.ends or 0 < index < frame_count - 1)


PROTOCOLS: Final = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            'davis2016',
            'sequences',
            ends=False,
            rule='all frames but the first and the last of each sequence; mean of the means of the sequences',
        ),
        Protocol('segtrackv2', 'frames', ends=True, rule='mean over all annotated frames of all sequences'),
        Protocol('fbms59', 'frames', ends=True, rule='mean over the annotated frames of all sequences'),
        Protocol('annotated', 'sequences', ends=True, rule='all annotated frames; mean of the means of the sequences'),
    )
}
"""By the name of the data set; ``annotated`` is for all others."""


def find_protocol(name: str) -> Protocol:
    """Return the rule of this name; raises UserError where there is none."""
    if name not in PROTOCOLS:
        raise UserError(f'there is no protocol {foreign(name)}; there are {", ".join(PROTOCOLS)}')
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Scores:
    """Scores of one variant on a sequence or a run; None where there is nothing to take them of."""

    frames: int
    """Frames scored."""
    j_mean: float | None
    j_recall: float | None
    """Share of the frames with J over 0.5."""
    j_decay: float | None
    """By how much J falls from a sequence's first quarter to its last."""
    f_mean: float | None
    f_recall: float | None
    f_decay: float | None
    objects: int
    """Annotated objects in the frames scored, each counted in every frame."""
    found: int
    """Those of them that the mask covers."""
    false_regions: int
    """Regions of the mask on no object, in the frames scored."""
    empty: float | None
    """Share of the masks, of all frames that have one, that are empty."""
    area: float | None
    """Mean share of the image in these masks; where nothing moves, the false area."""
    still_seconds: float
    """Of footage in which nothing moves: sequences with annotations, none of which has an object."""
    false_alarms: int
    """In that footage, uninterrupted runs of frames with something in the mask."""

    @property
    def false_alarms_per_minute(self) -> float | None:
        """False alarms in a minute of footage in which nothing moves, None where there is no such footage."""
        return 60 * self.false_alarms / self.still_seconds if self.still_seconds else None


def _scored(sequence: SequenceResult, columns: VariantColumns, protocol: Protocol) -> list[int]:
    """Return the numbers of the frames that the protocol scores."""
    return [
        index
        for index, score in enumerate(columns.j)
        if protocol.scored(index, sequence.frame_count, score is not None)
    ]


def known(values: Iterable[float | None]) -> list[float]:
    """Return the values that there are."""
    return [value for value in values if value is not None]


def _values(column: Column, indices: Iterable[int]) -> list[float]:
    return known(column[index] for index in indices)


def _masks(columns: VariantColumns) -> list[bool]:
    """Return of each mask whether there is something in it; frames without a mask are passed over."""
    return [area > 0 for area in known(columns.area)]


def sequence_scores(sequence: SequenceResult, variant: str, protocol_name: str) -> Scores:
    """Return the scores of one sequence by a rule of :data:`PROTOCOLS`; raises UserError where there is no such."""
    columns = sequence.variants[variant]
    indices = _scored(sequence, columns, find_protocol(protocol_name))
    j, f = _values(columns.j, indices), _values(columns.f, indices)
    masks = _masks(columns)
    counts = known(columns.objects)
    still = bool(counts) and not any(counts)
    return Scores(
        frames=len(indices),
        j_mean=mean(j),
        j_recall=recall(j),
        j_decay=decay(j),
        f_mean=mean(f),
        f_recall=recall(f),
        f_decay=decay(f),
        objects=round(sum(_values(columns.objects, indices))),
        found=round(sum(_values(columns.found, indices))),
        false_regions=round(sum(_values(columns.false, indices))),
        empty=mean([float(not something) for something in masks]),
        area=mean(known(columns.area)),
        still_seconds=sequence.frame_count / sequence.fps if still else 0.0,
        false_alarms=sum(something for something, _ in groupby(masks)) if still else 0,
    )


def run_scores(run: RunResult, variant: str) -> Scores:
    """Return the scores of a run by its protocol; sequences of which no frame is scored are left out.

    Means and recalls of J and F are taken over sequences or over frames, as the protocol has it: the mean of the
    sequences' means and recalls, or mean and recall of all frames scored, put together. Decay only has a meaning within
    a sequence and is the mean of the sequences' decays under every protocol. Objects, regions, alarms and
    seconds are summed; ``empty`` is the share of all masks of the run.
    """
    protocol = find_protocol(run.protocol)
    scores = [sequence_scores(sequence, variant, run.protocol) for sequence in run.sequences]
    columns = [sequence.variants[variant] for sequence in run.sequences]
    averages = {name: mean(known(getattr(score, name) for score in scores)) for name in _MEANS}
    if protocol.average == 'frames':
        pairs = [
            (item, _scored(sequence, item, protocol)) for sequence, item in zip(run.sequences, columns, strict=True)
        ]
        j = [value for item, indices in pairs for value in _values(item.j, indices)]
        f = [value for item, indices in pairs for value in _values(item.f, indices)]
        averages |= {'j_mean': mean(j), 'j_recall': recall(j), 'f_mean': mean(f), 'f_recall': recall(f)}
    masks = [something for item in columns for something in _masks(item)]
    return Scores(
        frames=sum(score.frames for score in scores),
        **averages,
        objects=sum(score.objects for score in scores),
        found=sum(score.found for score in scores),
        false_regions=sum(score.false_regions for score in scores),
        empty=mean([float(not something) for something in masks]),
        area=mean([value for item in columns for value in known(item.area)]),
        still_seconds=sum(score.still_seconds for score in scores),
        false_alarms=sum(score.false_alarms for score in scores),
    )


def grouped(run: RunResult) -> dict[str, RunResult]:
    """Return the parts of a run by kinds of footage (``motion slow``), each a run of its own."""
    kinds = dict.fromkeys(f'{kind} {value}' for item in run.sequences for kind, value in item.groups.items())
    return {
        name: replace(
            run, sequences=tuple(s for s in run.sequences if name in {f'{k} {v}' for k, v in s.groups.items()})
        )
        for name in kinds
    }


def summarise(run: RunResult) -> dict[str, Any]:
    """Return the scores of every variant as JSON can hold them.

    Returns:
        ``{'protocol': name, 'variants': {variant: {'run': scores, 'sequences': {sequence: scores}}}}``, with
        ``'groups': {group: scores}`` where there are groups; scores are the fields of :class:`Scores` and
        ``false_alarms_per_minute``.

    """

    def plain(scores: Scores) -> dict[str, Any]:
        return {**asdict(scores), 'false_alarms_per_minute': scores.false_alarms_per_minute}

    variants = {}
    parts = grouped(run)
    for variant in run.variants:
        sequences = {item.name: plain(sequence_scores(item, variant, run.protocol)) for item in run.sequences}
        variants[variant] = {'run': plain(run_scores(run, variant)), 'sequences': sequences}
        if parts:
            variants[variant]['groups'] = {name: plain(run_scores(part, variant)) for name, part in parts.items()}
    return {'protocol': run.protocol, 'variants': variants}


# Tables for the terminal ---------------------------------------------------------------------------------------------


def text_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        '  '.join(
            (row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)))
        )
        for row in rows
    ]


def text_number(value: float | None, digits: int = 3, sign: str = '') -> str:
    """Write a number for the terminal; None is a dash."""
    return '-' if value is None else f'{value:{sign}.{digits}f}'


def table(run: RunResult) -> str:
    """Return the scores of every variant of a run, a line each, the one that counts last; then those of its groups."""
    rows: list[tuple[str, ...]] = [
        ('', 'J', 'recall', 'decay', 'F', 'recall', 'decay', 'objects found', 'false', 'alarms/min', 'empty', 'area')
    ]
    counting = run.variants[-1]
    named = [(variant, run_scores(run, variant)) for variant in run.variants]
    named += [(f'  {foreign(name)}', run_scores(part, counting)) for name, part in grouped(run).items()]
    for name, scores in named:
        rows.append(
            (
                name,
                *(text_number(value) for value in (scores.j_mean, scores.j_recall, scores.j_decay)),
                *(text_number(value) for value in (scores.f_mean, scores.f_recall, scores.f_decay)),
                f'{scores.found} of {scores.objects}' if scores.objects else '-',
                str(scores.false_regions) if scores.frames else '-',
                text_number(scores.false_alarms_per_minute, 1),
                text_number(scores.empty),
                text_number(scores.area, 4),
            )
        )
    return '\n'.join(text_rows(rows))


# Signals without annotation, and how well they foretell J ------------------------------------------------------------


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a signal with J."""

    rho: float
    """From -1 to 1; above 0: sequences with more of the signal score higher."""
    count: int
    """Sequences that have both."""


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the rank of each value, the least has 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the correlation of the ranks of two equally long lists; None where one is the same throughout."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def area_change(area: Column) -> float | None:
    """Return by which share of the larger one the mask's areas of two frames in a row differ, on average.

    Frames without a mask, and pairs of empty ones, are passed over; None where nothing is left.
    """
    pairs = [(a, b) for a, b in pairwise(area) if a is not None and b is not None and max(a, b) > 0]
    return mean([abs(a - b) / max(a, b) for a, b in pairs])


def sequence_signals(sequence: SequenceResult, variant: str, protocol: str) -> Mapping[str, float | None]:
    """Return the mean of each signal of a sequence, ``empty`` (share of empty masks) and ``area_change``."""
    return {
        **{name: mean(known(column)) for name, column in sequence.signals.items()},
        'empty': sequence_scores(sequence, variant, protocol).empty,
        'area_change': area_change(sequence.variants[variant].area),
    }


def correlations(run: RunResult) -> dict[str, Correlation]:
    """Return how each signal goes with mean J over the run's sequences, for the variant that counts.

    Signals that fewer than :data:`FEWEST_RANKS` sequences with annotations have, or that are the same in all, are left
    out.
    """
    variant = run.variants[-1]
    found: dict[str, list[tuple[float, float]]] = {}
    for sequence in run.sequences:
        score = sequence_scores(sequence, variant, run.protocol).j_mean
        for name, value in sequence_signals(sequence, variant, run.protocol).items():
            pairs = found.setdefault(name, [])
            if value is not None and score is not None:
                pairs.append((value, score))
    result = {}
    for name, pairs in found.items():
        rho = spearman(*zip(*pairs, strict=True)) if len(pairs) >= FEWEST_RANKS else None
        if rho is not None:
            result[name] = Correlation(rho, len(pairs))
    return result
