"""Pictures of results, for people."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.regions import Region

TINT = (255, 60, 30)
OUTLINE = (255, 255, 255)
TINT_SHARE = 0.45


def draw_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], regions: Sequence[Region] = ()
) -> NDArray[np.uint8]:
    """Tint and outline what moves on its own, and frame each region with its score.

    Args:
        image: (H, W, 3) RGB.
        mask: (H, W), non-zero where something moves on its own.
        regions: What to frame.

    Returns:
        (H, W, 3) uint8 RGB; the inputs are not changed.

    """
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
