"""What the columns of an evaluation come to: scores of each sequence and of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Final

from moving_object_detector.evaluation.metrics import decay, mean, recall
from moving_object_detector.evaluation.protocols import find_protocol
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult, VariantColumns

_MEANS: Final = ('j_mean', 'j_recall', 'j_decay', 'f_mean', 'f_recall', 'f_decay')


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
    still_seconds: float
    """Of footage in which nothing moves: sequences with annotations, none of which has an object."""
    false_alarms: int
    """In that footage, uninterrupted runs of frames with something in the mask."""

    @property
    def false_alarms_per_minute(self) -> float | None:
        """False alarms in a minute of footage in which nothing moves, None where there is no such footage."""
        return 60 * self.false_alarms / self.still_seconds if self.still_seconds else None


def _scored(sequence: SequenceResult, columns: VariantColumns, protocol_name: str) -> list[int]:
    """Return the numbers of the frames that the protocol scores."""
    protocol = find_protocol(protocol_name)
    return [
        index
        for index, score in enumerate(columns.j)
        if protocol.scored(index, sequence.frame_count, score is not None)
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _values(column: Column, indices: Iterable[int]) -> list[float]:
    return _known(column[index] for index in indices)


def _masks(columns: VariantColumns) -> list[bool]:
    """Return of each mask whether there is something in it; frames without a mask are passed over."""
    return [area > 0 for area in columns.area if area is not None]


def _is_still(columns: VariantColumns) -> bool:
    counts = [count for count in columns.objects if count is not None]
    return bool(counts) and not any(counts)


def sequence_scores(sequence: SequenceResult, variant: str, protocol_name: str) -> Scores:
    """Return the scores of one sequence.

    Args:
        sequence: With its columns.
        variant: Name of the columns.
        protocol_name: By which frames are scored, one of :data:`~.protocols.PROTOCOLS`.

    Raises:
        UserError: There is no such protocol.

    """
    columns = sequence.variants[variant]
    indices = _scored(sequence, columns, protocol_name)
    j, f = _values(columns.j, indices), _values(columns.f, indices)
    masks = _masks(columns)
    still = _is_still(columns)
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
        still_seconds=sequence.frame_count / sequence.fps if still else 0.0,
        false_alarms=sum(something for something, _ in groupby(masks)) if still else 0,
    )


def run_scores(run: RunResult, variant: str) -> Scores:
    """Return the scores of a run by its protocol; sequences of which no frame is scored are left out.

    Means and recalls of J and F are taken over sequences or over frames, as the protocol has it: the mean of the
    sequences' means and recalls, or mean and recall of all frames scored, put together. Decay only has a meaning within
    a sequence and is the mean of the sequences' decays under every protocol. Objects, regions, alarms and
    seconds are summed; ``empty`` is the share of all masks of the run.

    Raises:
        UserError: There is no such protocol.

    """
    scores = [sequence_scores(sequence, variant, run.protocol) for sequence in run.sequences]
    columns = [sequence.variants[variant] for sequence in run.sequences]
    found = {name: _known(getattr(score, name) for score in scores) for name in _MEANS}
    averages = {name: mean(values) for name, values in found.items()}
    if find_protocol(run.protocol).average == 'frames':
        pairs = [
            (item, _scored(sequence, item, run.protocol)) for sequence, item in zip(run.sequences, columns, strict=True)
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
        still_seconds=sum(score.still_seconds for score in scores),
        false_alarms=sum(score.false_alarms for score in scores),
    )


def _plain(scores: Scores) -> dict[str, Any]:
    return {**asdict(scores), 'false_alarms_per_minute': scores.false_alarms_per_minute}


def summarise(run: RunResult) -> dict[str, Any]:
    """Return the scores of every variant as JSON can hold them.

    Returns:
        ``{'protocol': name, 'variants': {variant: {'run': scores, 'sequences': {sequence: scores}}}}``, scores being
        the fields of :class:`Scores` and ``false_alarms_per_minute``.

    Raises:
        UserError: There is no such protocol.

    """
    variants = {}
    for variant in run.variants:
        sequences = {item.name: _plain(sequence_scores(item, variant, run.protocol)) for item in run.sequences}
        variants[variant] = {'run': _plain(run_scores(run, variant)), 'sequences': sequences}
    return {'protocol': run.protocol, 'variants': variants}
