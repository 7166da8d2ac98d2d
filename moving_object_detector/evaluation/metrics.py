"""Scores of a mask against an annotation, and what they come to over a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import MaskConfig

TOLERANCE: Final = 0.008
"""Share of the image's diagonal by which a boundary may be off, rounded up to pixels."""
FOUND: Final = 0.5
"""Score above which a frame counts for recall."""
LEAST_AREA: Final = MaskConfig().min_area
"""Share of the image below which an annotated component is no object: the node's default for its regions."""
COVERED: Final = 0.5
"""Share of an object's pixels that the mask must have for the object to be found."""


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Jaccard index J of two masks (H, W), intersection over union, 1 where both are empty."""
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction is {prediction.shape}, truth is {truth.shape}')
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the boundary of a mask (H, W), one pixel wide, as ``seg2bmap`` of the Berkeley benchmark has it.

    On it is what differs from the pixel to the right, below or both; the edge of the image is no boundary.
    """
    boundary = np.zeros(mask.shape, np.bool_)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


class PreparedTruth:
    """An annotation (H, W), True on the object, to which several masks are compared; shared work is done once."""

    def __init__(self, truth: NDArray[np.bool_]) -> None:
        self.truth = truth
        radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
        steps = np.arange(-radius, radius + 1)
        self._disk = np.asarray(steps[:, None] ** 2 + steps**2 <= radius**2, np.uint8)
        self._boundary = boundary_map(truth)
        self._near = self._grown(self._boundary)

    def _grown(self, boundary: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.dilate(boundary.astype(np.uint8), self._disk) > 0, np.bool_)

    def boundary_measure(self, prediction: NDArray[np.bool_]) -> float:
        """Return the boundary measure F of DAVIS 2016 (Perazzi et al., CVPR 2016, after Martin et al., TPAMI 2004).

        Precision is the share of the prediction's boundary that lies within the tolerance of the annotation's, recall
        the reverse; F is their harmonic mean, 1 where neither has a boundary and 0 where one of them has none.
        """
        boundary = boundary_map(prediction)
        predicted, annotated = int(np.count_nonzero(boundary)), int(np.count_nonzero(self._boundary))
        if not predicted or not annotated:
            # The official code's precision and recall, of which one is 0 and one is 1, give 0 as well.
            return float(predicted == annotated)
        precision = int(np.count_nonzero(boundary & self._near)) / predicted
        recall = int(np.count_nonzero(self._boundary & self._grown(boundary))) / annotated
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def scores(self, prediction: NDArray[np.bool_]) -> tuple[float, float]:
        """Return J and F of a mask (H, W); raises ValueError where the sizes differ."""
        return jaccard(prediction, self.truth), self.boundary_measure(prediction)


def count_objects(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count a frame's objects, those found, and false regions, of masks (H, W) of one size.

    An object is a connected component of the annotation (8 neighbours) of at least :data:`LEAST_AREA` of the image. It
    is found where at least :data:`COVERED` of its pixels are in the mask. A false region is a connected component of
    the mask, of any size, that has no pixel in common with the annotation, objects too small to count included.
    """
    areas, covered = _areas(truth, prediction)
    objects = areas >= LEAST_AREA * truth.size
    found = objects & (covered >= COVERED * areas)
    _, touching = _areas(prediction, truth)
    return int(objects.sum()), int(found.sum()), int((touching == 0).sum())


def _areas(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many pixels each component of a mask has, and how many of these are in the other mask."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=count)
    inside = np.bincount(labels[other], minlength=count)
    return areas[1:], inside[1:]


def mean(scores: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return float(np.mean(scores)) if scores else None


def recall(scores: Sequence[float]) -> float | None:
    """Return the share of the scores above :data:`FOUND`, None of nothing."""
    return mean([float(score > FOUND) for score in scores])


def decay(scores: Sequence[float]) -> float | None:
    """Return by how much scores, in the order of the frames, fall: mean of the first quarter less that of the last.

    The quarters are those of DAVIS 2016's code, neighbours of which share a frame. None of nothing.
    """
    if not scores:
        return None
    # Half a frame is rounded up, as Matlab does it.
    ends = [math.floor(end + 0.5 + 1e-10) - 1 for end in np.linspace(1, len(scores), 5)]
    return float(np.mean(scores[ends[0] : ends[1] + 1]) - np.mean(scores[ends[3] : ends[4] + 1]))
