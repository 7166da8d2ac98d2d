"""Scores of a mask against an annotation, and what they come to over a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

TOLERANCE: Final = 0.008
"""Share of the image's diagonal by which a boundary may be off, rounded up to pixels."""
FOUND: Final = 0.5
"""Score above which a frame counts for recall."""


def _same_size(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction is {prediction.shape}, truth is {truth.shape}')


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Jaccard index J: intersection over union, 1 where both are empty.

    Args:
        prediction: (H, W), True on the object.
        truth: (H, W), the same size.

    Raises:
        ValueError: The sizes differ.

    """
    _same_size(prediction, truth)
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask's boundary, one pixel wide, as ``seg2bmap`` of the Berkeley benchmark has it.

    A pixel is on the boundary where it differs from its neighbour to the right, below, or to the right and below; the
    edge of the image is no boundary.

    Args:
        mask: (H, W), True on the object.

    """
    boundary = np.zeros(mask.shape, np.bool_)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


class PreparedTruth:
    """An annotation to which several masks are compared; what they share is worked out once."""

    def __init__(self, truth: NDArray[np.bool_]) -> None:
        """Find the annotation's boundary and what is within the tolerance of it.

        Args:
            truth: (H, W), True on the object.

        """
        self.truth = truth
        radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
        steps = np.arange(-radius, radius + 1)
        self._disk = np.asarray(steps[:, None] ** 2 + steps**2 <= radius**2, np.uint8)
        self._boundary = boundary_map(truth)
        self._near = self._grown(self._boundary)

    def _grown(self, boundary: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.dilate(boundary.astype(np.uint8), self._disk) > 0, np.bool_)

    def boundary_measure(self, prediction: NDArray[np.bool_]) -> float:
        """Return F of a mask; see :func:`boundary_measure`."""
        _same_size(prediction, self.truth)
        boundary = boundary_map(prediction)
        predicted, annotated = int(np.count_nonzero(boundary)), int(np.count_nonzero(self._boundary))
        if not predicted or not annotated:
            # The official code's precision and recall, of which one is 0 and one is 1, give 0 as well.
            return float(predicted == annotated)
        precision = int(np.count_nonzero(boundary & self._near)) / predicted
        recall = int(np.count_nonzero(self._boundary & self._grown(boundary))) / annotated
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def scores(self, prediction: NDArray[np.bool_]) -> tuple[float, float]:
        """Return J and F of a mask.

        Args:
            prediction: (H, W), True on the object, of the annotation's size.

        Raises:
            ValueError: The sizes differ.

        """
        return jaccard(prediction, self.truth), self.boundary_measure(prediction)


def boundary_measure(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the boundary measure F of DAVIS 2016 (Perazzi et al., CVPR 2016, after Martin et al., TPAMI 2004).

    Precision is the share of the prediction's boundary that lies within the tolerance of the annotation's, recall the
    share of the annotation's that lies within the tolerance of the prediction's; F is their harmonic mean. The
    tolerance is :data:`TOLERANCE` of the diagonal, rounded up to pixels. F is 1 where neither has a boundary and 0
    where one of them has none.

    Args:
        prediction: (H, W), True on the object.
        truth: (H, W), the same size.

    Raises:
        ValueError: The sizes differ.

    """
    return PreparedTruth(truth).boundary_measure(prediction)


def mean(scores: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return float(np.mean(scores)) if scores else None


def recall(scores: Sequence[float]) -> float | None:
    """Return the share of the scores above :data:`FOUND`, None of nothing."""
    return mean([float(score > FOUND) for score in scores])


def decay(scores: Sequence[float]) -> float | None:
    """Return by how much scores fall over a sequence: mean of the first quarter less the mean of the last.

    The quarters are those of DAVIS 2016's code, neighbours of which share a frame. None of nothing.

    Args:
        scores: In the order of the frames.

    """
    if not scores:
        return None
    # Half a frame is rounded up, as Matlab does it.
    ends = [math.floor(end + 0.5 + 1e-10) - 1 for end in np.linspace(1, len(scores), 5)]
    return float(np.mean(scores[ends[0] : ends[1] + 1]) - np.mean(scores[ends[3] : ends[4] + 1]))
