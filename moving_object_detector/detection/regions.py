"""Connected regions of a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import MaskConfig


@dataclass(frozen=True)
class Region:
    """A connected region that moves on its own; pixels of the full image."""

    x: int
    """Left edge of its box."""
    y: int
    """Top edge."""
    width: int
    height: int
    area: int
    """Pixels in the region."""
    score: float
    """Mean probability in the region, [0, 1]."""


def find_regions(
    probability: NDArray[np.float32], config: MaskConfig, keep: Callable[[NDArray[np.bool_]], bool] | None = None
) -> tuple[NDArray[np.uint8], list[Region]]:
    """Threshold a probability and split it into its connected regions (8 neighbours).

    Args:
        probability: (H, W) in [0, 1].
        config: Threshold, and the least area of a region as a share of the image.
        keep: Says of a region (H, W) that is large enough whether it stays; None: all do.

    Returns:
        The mask, uint8 (H, W) of 0 and 255, with the regions that stay; and these, largest first.

    """
    mask = np.asarray(probability >= config.threshold, np.uint8) * np.uint8(255)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    least = config.min_area * mask.size
    regions = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        box = slice(y, y + height), slice(x, x + width)
        inside = labels[box] == label
        if area < least or not (keep is None or keep(labels == label)):
            mask[box][inside] = 0
            continue
        regions.append(Region(x, y, width, height, area, float(probability[box][inside].mean())))
    return mask, sorted(regions, key=lambda region: -region.area)
