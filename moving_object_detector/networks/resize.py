"""Resizing flow with its vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
