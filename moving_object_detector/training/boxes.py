"""Random boxes, which the inpainter learns to fill before the game begins."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

MOST_BOXES: Final = 3
SIDES: Final = (0.1, 0.6)
"""Least and most side of a box, as a share of the image's."""


def random_boxes(rng: np.random.Generator, batch: int, size: tuple[int, int]) -> Tensor:
    """Draw masks of one to three boxes; each side and place is uniform, and boxes may overlap.

    Args:
        rng: What they are drawn from.
        batch: How many masks.
        size: (height, width), pixels.

    Returns:
        (B, 1, H, W) float32, 1 inside the boxes and 0 outside.

    """
    masks = torch.zeros(batch, 1, *size)
    for mask in masks:
        for _ in range(int(rng.integers(1, MOST_BOXES + 1))):
            height, width = (max(round(side * float(rng.uniform(*SIDES))), 1) for side in size)
            top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
            mask[0, top : top + height, left : left + width] = 1.0
    return masks
