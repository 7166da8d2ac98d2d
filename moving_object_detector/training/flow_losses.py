"""Losses of PWC-Net: end-point errors, matching of features, census and smoothness on unlabelled video; its rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, cost_volume, warp
from moving_object_detector.networks.pwcnet import RADIUS as COST_RADIUS

LEVEL_WEIGHTS: Final = (1.28, 0.64, 0.32, 0.32, 0.32)
"""Of levels 2 to 6. The paper's 0.005, 0.01, 0.02, 0.08, 0.32 are for sums over pixels, these for means."""
MATCHED_LEVELS: Final = (2, 3, 4)
"""Of the pyramid; on coarser ones nearly all motion is under a cell."""
SHARPNESS: Final = 10.0
"""Factor of the cosine before the softmax."""
SEEN: Final = 0.99
"""Share of a cell that must be in view in both frames."""
CENSUS_RADIUS: Final = 3  # pixels
LUMA: Final = (0.299, 0.587, 0.114)
CENSUS_SOFTNESS: Final = 0.81  # of the difference of two grey levels of 0..255, squared
HAMMING_SOFTNESS: Final = 0.1
# Forward and backward may differ by half a pixel and a tenth of the motion (Sundaram et al., ECCV 2010).
OCCLUSION_SHARE: Final = 0.01
OCCLUSION_FLOOR: Final = 0.5
EDGE_STRENGTH: Final = 10.0
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


# As in UnFlow (Meister et al., AAAI 2018): the ternary census of Stein (2004) with a soft Hamming distance, pixels that
# forward and backward flow disagree about left out, and smoothness that gives way at edges of the image.


def census_transform(image: Tensor) -> Tensor:
    """Describe each pixel of (B, 3, H, W) RGB in [0, 1] by the signs of its differences to its neighbours.

    Returns:
        (B, 48, H, W) in (-1, 1), softened near 0, the neighbours within 3 pixels row by row; beyond the border is 0.

    """
    grey = 255.0 * (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    height, width = grey.shape[-2:]
    padded = functional.pad(grey, (CENSUS_RADIUS,) * 4)
    side = 2 * CENSUS_RADIUS + 1
    neighbours = [
        padded[..., dy : dy + height, dx : dx + width]
        for dy in range(side)
        for dx in range(side)
        if (dy, dx) != (CENSUS_RADIUS, CENSUS_RADIUS)
    ]
    difference = torch.cat(neighbours, 1) - grey
    return difference / (CENSUS_SOFTNESS + difference.square()).sqrt()


def census_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean soft Hamming distance of two census transforms, (B, 48, H, W) to (B, 1, H, W) in [0, 1)."""
    difference = (first - second).square()
    return (difference / (HAMMING_SOFTNESS + difference)).mean(1, keepdim=True)


def consistent(forward: Tensor, backward: Tensor) -> Tensor:
    """Return where a point comes back to itself by forward and backward flow (B, 2, H, W), (B, 1, H, W) bool.

    True where it is visible in both frames; false also where the forward flow leads out of the image.
    """
    back = warp(backward, forward)
    inside = warp(torch.ones_like(forward[:, :1]), forward) > 0
    energy = forward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    return inside & ((forward + back).square().sum(1, keepdim=True) < OCCLUSION_SHARE * energy + OCCLUSION_FLOOR)


def census_loss(first: Tensor, second: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Return the census distance of the first frame to the second warped onto it, where both show the point, a scalar.

    Images are (B, 3, H, W) RGB in [0, 1], flows (B, 2, H, W); the backward one only finds occlusion.
    """
    distance = census_distance(census_transform(first), census_transform(warp(second, forward)))
    with torch.no_grad():
        counts = consistent(forward, backward).float()
        # Windows that reach beyond the border compare with nothing.
        border = torch.zeros_like(counts)
        border[..., CENSUS_RADIUS:-CENSUS_RADIUS, CENSUS_RADIUS:-CENSUS_RADIUS] = 1.0
        counts *= border
    return ((distance * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1.0)).mean()


def smoothness(flow: Tensor, image: Tensor) -> Tensor:
    """Return the mean difference of neighbouring vectors, less where the image has an edge between them; a scalar."""
    total = flow.new_zeros(())
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (flow.diff(dim=axis).abs() * torch.exp(-EDGE_STRENGTH * edge)).mean()
    return total / 2.0
