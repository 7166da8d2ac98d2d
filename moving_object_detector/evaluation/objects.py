"""Detection rates: which objects a mask finds, and where it sees some that are not there."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import MaskConfig

LEAST_AREA: Final = MaskConfig().min_area
"""Share of the image below which an annotated component is no object: what the node drops by default."""
COVERED: Final = 0.5
"""Share of an object's pixels that the mask has to have."""


def count_objects(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Count a frame's objects, those found, and false regions.

    An object is a connected component of the annotation (8 neighbours) of at least :data:`LEAST_AREA` of the image. It
    is found where at least :data:`COVERED` of its pixels are in the mask. A false region is a connected component of
    the mask, of any size, that has no pixel in common with the annotation, objects too small to count included.

    Args:
        prediction: (H, W), True in the mask.
        truth: (H, W), True on annotated objects; the same size.

    Returns:
        Objects, found objects, false regions.

    Raises:
        ValueError: The sizes differ.

    """
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction is {prediction.shape}, truth is {truth.shape}')
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
