"""What the columns of an evaluation come to, by the rules of the data sets: scores of each sequence and of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.evaluation.metrics import decay, mean, recall
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult, VariantColumns

_SUMS: Final = ('frames', 'objects', 'found', 'false_regions', 'still_seconds', 'false_alarms')
_MEANS: Final = ('j_mean', 'j_recall', 'j_decay', 'f_mean', 'f_recall', 'f_decay')
FEWEST_RANKS: Final = 3
"""Sequences of which a rank correlation says anything."""


@dataclass(frozen=True)
class Protocol:
    """The rule by which a data set is scored.

    ``average`` is over the sequences' means, each counting the same, or over all frames scored, of whatever sequence;
    ``ends`` tells whether the first and the last frame of a sequence are scored; ``rule`` says it in words.
    """

    name: str
    average: Literal['sequences', 'frames']
    ends: bool
    rule: str

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
    """Scores of one variant on a sequence or a run; None where there is nothing to take them of.

    Of J and F: mean, recall (share of the frames over 0.5) and decay (by how much they fall from a sequence's first
    quarter to its last). In the frames scored: annotated objects, those that the mask covers, regions of the mask on no
    object. Of all masks: the share that is empty, and the mean share of the image. Of footage in which nothing moves:
    its seconds, and the uninterrupted runs of frames with something in the mask.
    """

    frames: int
    j_mean: float | None
    j_recall: float | None
    j_decay: float | None
    f_mean: float | None
    f_recall: float | None
    f_decay: float | None
    objects: int
    found: int
    false_regions: int
    empty: float | None
    area: float | None
    still_seconds: float
    false_alarms: int

    @property
    def false_alarms_per_minute(self) -> float | None:
        """False alarms in a minute of footage in which nothing moves, None where there is no such footage."""
        return 60 * self.false_alarms / self.still_seconds if self.still_seconds else None


def known(values: Iterable[float | None]) -> list[float]:
    """Return the values that there are."""
    return [value for value in values if value is not None]


def _scored(sequence: SequenceResult, columns: VariantColumns, protocol: Protocol, name: str) -> list[float]:
    """Return what a column holds of the frames that the protocol scores."""
    cells = zip(columns.j, getattr(columns, name), strict=True)
    return known(
        cell for index, (j, cell) in enumerate(cells) if protocol.scored(index, sequence.frame_count, j is not None)
    )


def sequence_scores(sequence: SequenceResult, variant: str, protocol_name: str) -> Scores:
    """Return the scores of one sequence by a rule of :data:`PROTOCOLS`; raises UserError where there is no such."""
    columns, protocol = sequence.variants[variant], find_protocol(protocol_name)
    j, f, objects, found, false = (
        _scored(sequence, columns, protocol, name) for name in ('j', 'f', 'objects', 'found', 'false')
    )
    masks = [area > 0 for area in known(columns.area)]
    counts = known(columns.objects)
    still = bool(counts) and not any(counts)
    return Scores(
        frames=len(j),
        j_mean=mean(j),
        j_recall=recall(j),
        j_decay=decay(j),
        f_mean=mean(f),
        f_recall=recall(f),
        f_decay=decay(f),
        objects=round(sum(objects)),
        found=round(sum(found)),
        false_regions=round(sum(false)),
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
    seconds are summed; ``empty`` and ``area`` are of all masks of the run.
    """
    protocol = find_protocol(run.protocol)
    scores = [sequence_scores(sequence, variant, run.protocol) for sequence in run.sequences]
    taken: dict[str, Any] = {name: mean(known(getattr(score, name) for score in scores)) for name in _MEANS}
    taken |= {name: sum(getattr(score, name) for score in scores) for name in _SUMS}
    if protocol.average == 'frames':
        for name in ('j', 'f'):
            values = [v for item in run.sequences for v in _scored(item, item.variants[variant], protocol, name)]
            taken |= {f'{name}_mean': mean(values), f'{name}_recall': recall(values)}
    areas = [area for item in run.sequences for area in known(item.variants[variant].area)]
    return Scores(**taken, empty=mean([float(not area) for area in areas]), area=mean(areas))


def grouped(run: RunResult) -> dict[str, RunResult]:
    """Return the parts of a run by kinds of footage (``motion slow``), each a run of its own."""
    parts: dict[str, list[SequenceResult]] = {}
    for item in run.sequences:
        for kind, value in item.groups.items():
            parts.setdefault(f'{kind} {value}', []).append(item)
    return {name: replace(run, sequences=tuple(items)) for name, items in parts.items()}


def summarise(run: RunResult) -> dict[str, Any]:
    """Return the scores of every variant as JSON can hold them: of the run, each sequence, and each kind of footage."""

    def plain(scores: Scores) -> dict[str, Any]:
        return {**asdict(scores), 'false_alarms_per_minute': scores.false_alarms_per_minute}

    variants = {}
    for variant in run.variants:
        sequences = {item.name: plain(sequence_scores(item, variant, run.protocol)) for item in run.sequences}
        groups = {name: plain(run_scores(part, variant)) for name, part in grouped(run).items()}
        variants[variant] = {'run': plain(run_scores(run, variant)), 'sequences': sequences, 'groups': groups}
    return {'protocol': run.protocol, 'variants': variants}


# Tables for the terminal ---------------------------------------------------------------------------------------------


def text_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = widths[0]
    return ['  '.join([row[0].ljust(first), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


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
    for name, s in named:
        means = map(text_number, (s.j_mean, s.j_recall, s.j_decay, s.f_mean, s.f_recall, s.f_decay))
        counts = f'{s.found} of {s.objects}' if s.objects else '-', str(s.false_regions) if s.frames else '-'
        still = text_number(s.false_alarms_per_minute, 1), text_number(s.empty), text_number(s.area, 4)
        rows.append((name, *means, *counts, *still))
    return '\n'.join(text_rows(rows))


def last_line(run: RunResult) -> str:
    """Return the run in one line: J, F, frames, frames per second."""
    scores = run_scores(run, run.variants[-1])
    frames, seconds = (sum(getattr(item, name) for item in run.sequences) for name in ('frame_count', 'seconds'))
    j, f = text_number(scores.j_mean), text_number(scores.f_mean)
    return f'J {j} F {f} frames {frames} fps {frames / max(seconds, 1e-9):.2f}'


# Signals without annotation, and how well they foretell J ------------------------------------------------------------


class Correlation(NamedTuple):
    """Spearman's rank correlation of a signal with J, above 0 where more of it scores higher, and of how many."""

    rho: float
    sequences: int


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
