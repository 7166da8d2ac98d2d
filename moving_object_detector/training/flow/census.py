"""Learning flow from the images alone: what the flow says is the same point should look the same.

As in UnFlow (Meister et al., AAAI 2018): the ternary census of Stein (2004) with a soft Hamming distance, pixels that
forward and backward flow disagree about left out, and smoothness that gives way at edges of the image.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.networks.pwcnet import warp

RADIUS: Final = 3  # of the census window, pixels
LUMA: Final = (0.299, 0.587, 0.114)
CENSUS_SOFTNESS: Final = 0.81  # of the difference of two grey levels of 0..255, squared
HAMMING_SOFTNESS: Final = 0.1
# Forward and backward may differ by half a pixel and a tenth of the motion (Sundaram et al., ECCV 2010).
OCCLUSION_SHARE: Final = 0.01
OCCLUSION_FLOOR: Final = 0.5
EDGE_STRENGTH: Final = 10.0


def census_transform(image: Tensor) -> Tensor:
    """Describe each pixel by the signs of its differences to its neighbours, softened near 0.

    Args:
        image: (B, 3, H, W) RGB in [0, 1].

    Returns:
        (B, 48, H, W) in (-1, 1), the neighbours within 3 pixels row by row; beyond the border the image is 0.

    """
    grey = 255.0 * (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    height, width = grey.shape[-2:]
    padded = functional.pad(grey, (RADIUS,) * 4)
    side = 2 * RADIUS + 1
    neighbours = [
        padded[..., dy : dy + height, dx : dx + width]
        for dy in range(side)
        for dx in range(side)
        if (dy, dx) != (RADIUS, RADIUS)
    ]
    difference = torch.cat(neighbours, 1) - grey
    return difference / (CENSUS_SOFTNESS + difference.square()).sqrt()


def census_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean soft Hamming distance of two census transforms, (B, 48, H, W) to (B, 1, H, W) in [0, 1)."""
    difference = (first - second).square()
    return (difference / (HAMMING_SOFTNESS + difference)).mean(1, keepdim=True)


def consistent(forward: Tensor, backward: Tensor) -> Tensor:
    """Return where a point comes back to itself: true where it is visible in both frames.

    Args:
        forward: Flow of the first frame to the second (B, 2, H, W), pixels.
        backward: Flow of the second to the first, likewise.

    Returns:
        (B, 1, H, W) bool; false also where the forward flow leads out of the image.

    """
    back = warp(backward, forward)
    inside = warp(torch.ones_like(forward[:, :1]), forward) > 0
    energy = forward.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    return inside & ((forward + back).square().sum(1, keepdim=True) < OCCLUSION_SHARE * energy + OCCLUSION_FLOOR)


def census_loss(first: Tensor, second: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """Return the census distance of the first frame to the second warped onto it, where both show the point.

    Args:
        first: (B, 3, H, W) RGB in [0, 1].
        second: The same.
        forward: Flow of the first to the second (B, 2, H, W), pixels.
        backward: Flow of the second to the first, only to find occlusion.

    Returns:
        A scalar: each image's mean over the pixels that count, averaged over the batch.

    """
    distance = census_distance(census_transform(first), census_transform(warp(second, forward)))
    with torch.no_grad():
        counts = consistent(forward, backward).float()
        # Windows that reach beyond the border compare with nothing.
        border = torch.zeros_like(counts)
        border[..., RADIUS:-RADIUS, RADIUS:-RADIUS] = 1.0
        counts *= border
    return ((distance * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1.0)).mean()


def smoothness(flow: Tensor, image: Tensor) -> Tensor:
    """Return how much neighbouring vectors differ, less where the image has an edge between them; a scalar.

    Args:
        flow: (B, 2, H, W), pixels.
        image: (B, 3, H, W) in [0, 1].

    """
    total = flow.new_zeros(())
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        total = total + (flow.diff(dim=axis).abs() * torch.exp(-EDGE_STRENGTH * edge)).mean()
    return total / 2.0
