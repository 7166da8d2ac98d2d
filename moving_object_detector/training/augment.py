"""Random views of a training pair: crops, flips and camera motion, with the flow transformed rightly.

Both frames of a pair are thought to be transformed alike, so that the transformed flow still leads from the one to
the other. All functions take batches, (B, C, H, W), and treat every item of a batch alike.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.flow.egomotion import quadratic_basis

# Standard deviations of the terms 1, x, y, x^2, xy, y^2 relative to that of the shift.
MOTION_TERMS: Final = (1.0, 0.5, 0.5, 0.25, 0.25, 0.25)
AFFINE_TERMS: Final = 3


class Crop(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


def random_crop(rng: np.random.Generator, size: tuple[int, int], least: float) -> Crop:
    """Draw a crop whose sides are the same share, uniform in ``least`` to 1, of an image's; its place is uniform."""
    share = float(rng.uniform(least, 1.0))
    height, width = (max(round(side * share), 1) for side in size)
    return Crop(int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width)


def crop_resize(image: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Cut an image (B, C, H, W) and resize the cut bilinearly, smoothed where it shrinks, to (B, C, *size)."""
    top, left, height, width = crop
    cut = image[..., top : top + height, left : left + width]
    if (height, width) == size:
        return cut
    smoothed = size[0] < height and size[1] < width
    return functional.interpolate(cut, size, mode='bilinear', align_corners=False, antialias=smoothed)


def crop_resize_flow(flow: Tensor, crop: Crop, size: tuple[int, int]) -> Tensor:
    """Cut and resize flow, (B, C, H, W) pixels of its own size to (B, C, *size) pixels of ``size``.

    Channels behind the first two, which are no lengths in pixels, are only cut and resized.
    """
    scale = flow.new_ones(flow.shape[1])
    scale[:2] = scale.new_tensor((size[1] / crop.width, size[0] / crop.height))
    return crop_resize(flow, crop, size) * scale[:, None, None]


def flip(image: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Mirror an image (B, C, H, W) left to right, upside down or both, which is a turn by 180 degrees."""
    return image.flip([axis for axis, wanted in ((-1, horizontal), (-2, vertical)) if wanted])


def flip_flow(flow: Tensor, *, horizontal: bool, vertical: bool) -> Tensor:
    """Mirror flow (B, C, H, W) as :func:`flip` does images: u changes sign with left and right, v with up and down."""
    sign = flow.new_ones(flow.shape[1])
    sign[:2] = sign.new_tensor((-1.0 if horizontal else 1.0, -1.0 if vertical else 1.0))
    return flip(flow, horizontal=horizontal, vertical=vertical) * sign[:, None, None]


def random_motion(rng: np.random.Generator, batch: int, size: tuple[int, int], deviation: float) -> Tensor:
    """Draw a camera's motions (B, 2, 6), half affine and half quadratic; ``deviation`` is the shift's, in widths."""
    coefficients = rng.normal(0.0, deviation * size[1], (batch, 2, 6)) * MOTION_TERMS
    coefficients[rng.random(batch) < 0.5, :, AFFINE_TERMS:] = 0.0
    return torch.from_numpy(coefficients.astype(np.float32))


def global_motion(flow: Tensor, coefficients: Tensor) -> Tensor:
    """Add a camera's motion to flow (B, C, H, W); what moves on its own stays the same (Meunier et al., TPAMI 2022).

    Coefficients (B, 2, 6) are pixels of 1, x, y, x^2, xy, y^2, with x and y from -1 to 1 over the image.
    """
    basis = quadratic_basis(flow.shape[-2], flow.shape[-1], flow.device)
    motion = (coefficients.to(flow.device) @ basis.flatten(1)).reshape(flow[:, :2].shape)
    return torch.cat((flow[:, :2] + motion, flow[:, 2:]), 1)
