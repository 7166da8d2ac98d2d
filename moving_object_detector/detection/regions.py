"""Connected regions of a mask, and pictures of them for people."""

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
    """How surely it moves on its own: the share of such regions that do, [0, 1]."""


def find_regions(
    probability: NDArray[np.float32],
    config: MaskConfig,
    score: Callable[[NDArray[np.bool_]], float] | None = None,
    min_score: float = 0.0,
) -> tuple[NDArray[np.uint8], list[Region]]:
    """Threshold a probability (H, W) and split it into its connected regions (8 neighbours), largest first.

    ``score`` says of a region (H, W) that is large enough how surely it moves, else its mean probability does; below
    ``min_score`` it is dropped. The mask, uint8 (H, W) of 0 and 255, has the regions that stay.
    """
    mask = np.asarray(probability >= config.threshold, np.uint8) * np.uint8(255)
    # Labelled where there is anything, since most masks fill a small part of the image.
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
        sure = -1.0
        if area >= least:
            whole = np.zeros(mask.shape, np.bool_)
            whole[box] = inside
            sure = float(probability[whole].mean()) if score is None else score(whole)
        if sure < min_score:
            mask[box][inside] = 0
            continue
        regions.append(Region(x, y, width, height, area, sure))
    return mask, sorted(regions, key=lambda region: -region.area)


def draw_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], regions: Sequence[Region] = ()
) -> NDArray[np.uint8]:
    """Return a copy of the image (H, W, 3) RGB, tinted where the mask is not zero, with regions framed and scored."""
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
        # Below the top edge of the image, so that the score of a region that touches it can be read.
        place = region.x, max(region.y - 3 * thickness, round(26 * scale))
        cv2.putText(picture, f'{region.score:.2f}', place, cv2.FONT_HERSHEY_SIMPLEX, scale, OUTLINE, thickness)
    return picture
