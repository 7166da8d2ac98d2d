"""Resizing images to what a network takes, and flow with its vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resize_to_multiple(image: Tensor, multiple: int = 64) -> Tensor:
    """Enlarge an image bilinearly to the next multiple of ``multiple`` in both directions.

    Args:
        image: (B, C, H, W).
        multiple: In pixels; PWC-Net takes 64.

    Returns:
        (B, C, H', W') with H' and W' the smallest multiples not below H and W; the image itself where it fits.

    """
    height, width = image.shape[-2], image.shape[-1]
    size = -(-height // multiple) * multiple, -(-width // multiple) * multiple
    if size == (height, width):
        return image
    return functional.interpolate(image, size, mode='bilinear', align_corners=False)


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize flow bilinearly, u with the width and v with the height.

    Args:
        flow: (B, 2, h, w), u right and v down, in pixels of its own size.
        size: Target (height, width).

    Returns:
        (B, 2, height, width), in pixels of ``size``.

    """
    height, width = flow.shape[-2], flow.shape[-1]
    flow = functional.interpolate(flow, size, mode='bilinear', align_corners=False)
    return torch.cat((flow[:, :1] * (size[1] / width), flow[:, 1:] * (size[0] / height)), 1)
