"""Running a method over a sequence of files and scoring what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.datasets.folder import read_image
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.detection.detector import Detector
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.errors import UserError
from moving_object_detector.evaluation.metrics import davis_mean, jaccard

FRAME_INTERVAL = 40_000_000
"""Nanoseconds between frames of a folder, which has no stamps."""


class Found(Protocol):
    """What a method says of one frame; results of the detector are such."""

    @property
    def index(self) -> int:
        """Number of the frame in its sequence."""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The mask, (h, w), non-zero where something moves on its own."""


FoundType = TypeVar('FoundType', bound=Found)


@dataclass(frozen=True)
class SequenceScore:
    """Scores of one sequence."""

    name: str
    frames: tuple[float | None, ...]
    """J of each frame; None where it has no annotation."""
    mean: float
    """By the rule of DAVIS 2016."""


def detect_sequence(detector: Detector, sequence: Sequence, estimate: Estimate) -> Iterator[Result]:
    """Yield the detector's results of one kind for a sequence; it starts anew before and after."""
    detector.reset()
    for index, path in enumerate(sequence.images):
        yield from (r for r in detector.step(read_image(path), index * FRAME_INTERVAL) if r.estimate == estimate)
    yield from (r for r in detector.flush() if r.estimate == estimate)


def score_sequence(
    method: Callable[[Sequence], Iterator[FoundType]], sequence: Sequence, seen: Callable[[FoundType], object]
) -> SequenceScore:
    """Score a method on a sequence; a frame of which it says nothing counts as one with an empty mask.

    Args:
        method: Yields what it finds in a sequence.
        sequence: Frames and annotations; predictions are resized to the annotations.
        seen: Called with each of the method's results.

    Raises:
        UserError: The sequence has no frame to score, or a file of it cannot be read.

    """
    if not any(sequence.annotations[1:-1]):
        raise UserError(
            f'sequence {sequence.name} has no annotation between its first and last frame, which are not scored; '
            'is the folder Annotations complete?'
        )
    masks = {}
    for result in method(sequence):
        masks[result.index] = result.mask
        seen(result)
    scores: list[float | None] = []
    for index, annotation in enumerate(sequence.annotations):
        if annotation is None:
            scores.append(None)
            continue
        truth = annotation.read()
        mask = masks.get(index, np.zeros(truth.shape, np.uint8))
        size = (truth.shape[1], truth.shape[0])
        scores.append(jaccard(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0, truth))
    return SequenceScore(sequence.name, tuple(scores), davis_mean(scores))
