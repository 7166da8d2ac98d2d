"""Connected regions of a mask, and overlay pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import MaskConfig

TINT = (255, 60, 30)
OUTLINE = (255, 255, 255)
TINT_SHARE = 0.45


@dataclass(frozen=True)
class Region:
    """A connected region that moves on its own, in pixels of the full image."""

    x: int
    """Left edge of the bounding box."""
    y: int
    """Top edge."""
    width: int
    height: int
    area: int
    """Pixels in the region."""
    score: float
    """Calibrated probability that it moves on its own, in [0, 1]; without a score function the mean probability."""


def find_regions(
    probability: NDArray[np.float32],
    config: MaskConfig,
    score: Callable[[NDArray[np.bool_]], float] | None = None,
    min_score: float = 0.0,
) -> tuple[NDArray[np.uint8], list[Region]]:
    """Threshold a probability (H, W) and return the mask and its 8-connected regions, largest first.

    Regions that are too small, or score below ``min_score``, are dropped from both. ``score`` maps a region (H, W) to
    its score; by default that is the mean probability inside. The mask is uint8 (H, W), 0 or 255.
    """
    mask = np.asarray(probability >= config.threshold, np.uint8) * np.uint8(255)
    # Labels only the bounding box, since most masks fill a small part of the image.
    left, top, across, down = cv2.boundingRect(mask)
    if not across:
        return mask, []
    part = mask[top : top + down, left : left + across]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
    least = config.min_area * mask.size
    regions = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        inside = labels[y : y + height, x : x + width] == label
        x, y = x + left, y + top
        box = slice(y, y + height), slice(x, x + width)
        certainty = -1.0
        if area >= least:
            whole = np.zeros(mask.shape, np.bool_)
            whole[box] = inside
            certainty = float(probability[whole].mean()) if score is None else score(whole)
        if certainty < min_score:
            mask[box][inside] = 0
            continue
        regions.append(Region(x, y, width, height, area, certainty))
    return mask, sorted(regions, key=lambda region: -region.area)


def draw_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], regions: Sequence[Region] = ()
) -> NDArray[np.uint8]:
    """Return a copy of the image (H, W, 3) RGB, tinted inside the mask, with boxes and scores of the regions."""
    picture = image.copy()
    inside = mask > 0
    tinted = cv2.addWeighted(image, 1 - TINT_SHARE, np.full_like(image, TINT), TINT_SHARE, 0)
    picture[inside] = tinted[inside]
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(image.shape[1] / 500))
    cv2.drawContours(picture, contours, -1, OUTLINE, thickness, cv2.LINE_AA)
    for region in regions:
        corner = region.x + region.width - 1, region.y + region.height - 1
        cv2.rectangle(picture, (region.x, region.y), corner, TINT, thickness)
        scale = image.shape[1] / 1200
        # Kept inside the image for regions at its top edge.
        place = region.x, max(region.y - 3 * thickness, round(26 * scale))
        cv2.putText(picture, f'{region.score:.2f}', place, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, thickness)
    return picture
