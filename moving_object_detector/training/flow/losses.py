"""End-point errors, at one size and at all levels of PWC-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.networks.pwcnet import FLOW_DIVISOR

LEVEL_WEIGHTS: Final = (1.28, 0.64, 0.32, 0.32, 0.32)
"""Of levels 2 to 6. The paper's 0.005, 0.01, 0.02, 0.08, 0.32 are for sums over pixels, these for means."""


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Return the distance of each vector's end from where it should be, (B, 2, H, W) to (B, 1, H, W)."""
    # A plain norm has no gradient where it is 0.
    return ((flow - truth).square().sum(1, keepdim=True) + 1e-12).sqrt()


def reduce_truth(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Average flow (B, 2, H, W) over the cells of a grid of ``size``; vectors stay in pixels of (H, W)."""
    return functional.adaptive_avg_pool2d(truth, size)


def multi_scale_error(levels: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Return the training loss of PWC-Net (section 3 of the paper), a scalar.

    The weighted sum over levels of the mean end-point error, in units of the network's output: pixels / 20.

    Args:
        levels: Flows of levels 2 to 6 in those units, (B, 2, H/4, W/4) to (B, 2, H/64, W/64).
        truth: (B, 2, H, W), pixels: exact flow, or a teacher's.

    """
    target = truth / FLOW_DIVISOR
    errors = [
        weight * end_point_error(level.float(), reduce_truth(target, (level.shape[-2], level.shape[-1]))).mean()
        for weight, level in zip(LEVEL_WEIGHTS, levels, strict=True)
    ]
    return torch.stack(errors).sum()
