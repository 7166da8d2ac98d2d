"""Losses of PWC-Net: end-point errors, matching of features; its rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, cost_volume
from moving_object_detector.networks.pwcnet import RADIUS as COST_RADIUS

LEVEL_WEIGHTS: Final = (1.28, 0.64, 0.32, 0.32, 0.32)
"""Of levels 2 to 6. The paper's 0.005, 0.01, 0.02, 0.08, 0.32 are for sums over pixels, these for means."""
MATCHED_LEVELS: Final = (2, 3, 4)
"""Of the pyramid; on coarser ones nearly all motion is under a cell."""
SHARPNESS: Final = 10.0
"""Factor of the cosine before the softmax."""
SEEN: Final = 0.99
"""Share of a cell that must be in view in both frames."""
RATE_RISE: Final = 0.05
RATE_START: Final = 1 / 25
RATE_END: Final = 1 / 25e4


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step: from ``peak`` / 25 up to ``peak`` over 5 % of the run, then down to nearly 0.

    Both lines are straight (Smith and Topin 2019, with RAFT's settings).
    """
    top = max(RATE_RISE * steps - 1, 0.0)
    if step <= top:
        share = step / top if top else 1.0
        return peak * (RATE_START + (1 - RATE_START) * share)
    share = (step - top) / max(steps - 1 - top, 1.0)
    return peak * (1 + (RATE_END - 1) * share)


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


def matching_loss(pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor], flow: Tensor, seen: Tensor) -> Tensor:
    """Return the error of finding each feature of the first frame in the second, among its cost volume's 81, a scalar.

    The cross entropy of a softmax over cosines, with the exact displacement as target, spread bilinearly over the four
    cells around it. Learning from flow alone, features have no reason to be comparable as long as the decoder ignores
    the cost volume, nor the decoder to use it as long as they are not.

    Args:
        pyramid1: Features of the first frame as :meth:`PWCNet.pyramid` gives them, six of (B, C, h, w).
        pyramid2: Of the second.
        flow: (B, 2, H, W), pixels, exact.
        seen: (B, 1, H, W) bool: visible in both frames.

    """
    terms = []
    for level in MATCHED_LEVELS:
        first, second = (functional.normalize(pyramid[level - 1].float()) for pyramid in (pyramid1, pyramid2))
        size = (first.shape[-2], first.shape[-1])
        # The volume is a mean over channels, a cosine their sum.
        cosines = cost_volume(first, second) * first.shape[1]
        chances = functional.log_softmax(SHARPNESS * cosines, 1)
        target = reduce_truth(flow, size) / 2**level
        counts = (reduce_truth(seen.float(), size) > SEEN) & (target.abs() <= COST_RADIUS).all(1, keepdim=True)
        entropy = -_at(chances, target)
        # Each pair by itself, so that processes with a share of the batch each come to the same.
        terms.append(((entropy * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1)).mean())
    return torch.stack(terms).mean()


def _at(volume: Tensor, displacement: Tensor) -> Tensor:
    """Return the values of a volume (B, 81, h, w) at displacements (B, 2, h, w) in cells, bilinearly, (B, 1, h, w)."""
    side = 2 * COST_RADIUS + 1
    low = displacement.floor().clamp(-COST_RADIUS, COST_RADIUS)
    share = displacement - low
    value = torch.zeros_like(volume[:, :1])
    for down in (0, 1):
        for right in (0, 1):
            x = (low[:, :1] + right).clamp(-COST_RADIUS, COST_RADIUS)
            y = (low[:, 1:] + down).clamp(-COST_RADIUS, COST_RADIUS)
            weight = (share[:, :1] if right else 1 - share[:, :1]) * (share[:, 1:] if down else 1 - share[:, 1:])
            channel = ((y + COST_RADIUS) * side + x + COST_RADIUS).long()
            value = value + weight * volume.gather(1, channel)
    return value
