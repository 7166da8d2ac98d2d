"""Scores of a mask against an annotation (J, F, objects), and their statistics over a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import MaskConfig

TOLERANCE: Final = 0.008
"""Tolerance of boundaries as a share of the image diagonal, rounded up to pixels."""
FOUND: Final = 0.5
"""Score above which a frame counts for recall."""
LEAST_AREA: Final = MaskConfig().min_area
"""Least share of the image of an annotated object, the node's default for its regions."""
COVERED: Final = 0.5
"""Share of an object's pixels that the mask must cover for the object to be found."""


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Jaccard index J of two masks (H, W), intersection over union, 1 where both are empty."""
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction is {prediction.shape}, truth is {truth.shape}')
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the boundary of a mask (H, W), one pixel wide, as ``seg2bmap`` of the Berkeley benchmark does.

    It is the pixels that differ from the one to the right, below or diagonally below; the image edge is no boundary.
    """
    boundary = np.zeros(mask.shape, np.bool_)
    boundary[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    boundary[:-1] |= mask[:-1] ^ mask[1:]
    boundary[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return boundary


class PreparedTruth:
    """An annotation (H, W), True on objects, prepared once for comparison with several masks."""

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

        Precision is the share of the predicted boundary within the tolerance of the annotated one, recall the reverse;
        F is their harmonic mean, 1 if neither mask has a boundary, 0 if only one has.
        """
        boundary = boundary_map(prediction)
        predicted, annotated = int(np.count_nonzero(boundary)), int(np.count_nonzero(self._boundary))
        if not predicted or not annotated:
            # Equals the official code, where one of precision and recall is then 0 and the other 1.
            return float(predicted == annotated)
        precision = int(np.count_nonzero(boundary & self._near)) / predicted
        recall = int(np.count_nonzero(self._boundary & self._grown(boundary))) / annotated
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def scores(self, prediction: NDArray[np.bool_]) -> tuple[float, float]:
        """Return J and F of a mask (H, W); raises ValueError if the sizes differ."""
        return jaccard(prediction, self.truth), self.boundary_measure(prediction)


def count_objects(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count a frame's objects, found objects and false regions; both masks are (H, W).

    An object is an 8-connected component of the annotation of at least :data:`LEAST_AREA` of the image. It is found if
    the mask covers at least :data:`COVERED` of its pixels. A false region is an 8-connected component of the mask, of
    any size, without a pixel in common with the annotation, including annotated components too small for an object.
    """
    areas, covered = _areas(truth, prediction)
    objects = areas >= LEAST_AREA * truth.size
    found = objects & (covered >= COVERED * areas)
    _, touching = _areas(prediction, truth)
    return int(objects.sum()), int(found.sum()), int((touching == 0).sum())


def _areas(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixel count of each component of a mask, and that of its overlap with the other mask."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=count)
    inside = np.bincount(labels[other], minlength=count)
    return areas[1:], inside[1:]


def mean(scores: Sequence[float]) -> float | None:
    """Return the mean, None if empty."""
    return float(np.mean(scores)) if scores else None


def recall(scores: Sequence[float]) -> float | None:
    """Return the share of scores above :data:`FOUND`, None if empty."""
    return mean([float(score > FOUND) for score in scores])


def decay(scores: Sequence[float]) -> float | None:
    """Return the decay of scores in frame order: mean of the first quarter minus mean of the last; None if empty.

    Quarters are as in DAVIS 2016's code, where adjacent ones share a frame.
    """
    if not scores:
        return None
    # Rounds halves up, as Matlab does.
    ends = [math.floor(end + 0.5 + 1e-10) - 1 for end in np.linspace(1, len(scores), 5)]
    return float(np.mean(scores[ends[0] : ends[1] + 1]) - np.mean(scores[ends[3] : ends[4] + 1]))
