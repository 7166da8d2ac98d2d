"""Features that find each other: what lets PWC-Net leave the plateau of no motion within hundreds of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.networks.pwcnet import RADIUS, cost_volume
from moving_object_detector.training.flow.losses import reduce_truth

LEVELS: Final = (2, 3, 4)
"""Of the pyramid; on coarser ones nearly all motion is under a cell."""
SHARPNESS: Final = 10.0
"""Factor of the cosine before the softmax."""
SEEN: Final = 0.99
"""Share of a cell that must be in view in both frames."""


def matching_loss(pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor], flow: Tensor, seen: Tensor) -> Tensor:
    """Return how badly each feature of the first frame finds its own in the second, among its cost volume's 81.

    The cross entropy of a softmax over cosines, with the exact displacement as target, spread bilinearly over the four
    cells around it. Learning from flow alone, features have no reason to be comparable as long as the decoder ignores
    the cost volume, nor the decoder to use it as long as they are not.

    Args:
        pyramid1: Features of the first frame as :meth:`PWCNet.pyramid` gives them, six of (B, C, h, w).
        pyramid2: Of the second.
        flow: (B, 2, H, W), pixels, exact.
        seen: (B, 1, H, W) bool: visible in both frames.

    Returns:
        A scalar, the mean over pairs and levels 2 to 4; ln 81 = 4.4 by chance. A pair in which no cell counts has 0.

    """
    terms = []
    for level in LEVELS:
        first, second = (functional.normalize(pyramid[level - 1].float()) for pyramid in (pyramid1, pyramid2))
        size = (first.shape[-2], first.shape[-1])
        # The volume is a mean over channels, a cosine their sum.
        cosines = cost_volume(first, second) * first.shape[1]
        chances = functional.log_softmax(SHARPNESS * cosines, 1)
        target = reduce_truth(flow, size) / 2**level
        counts = (reduce_truth(seen.float(), size) > SEEN) & (target.abs() <= RADIUS).all(1, keepdim=True)
        entropy = -_at(chances, target)
        # Each pair by itself, so that processes with a share of the batch each come to the same.
        terms.append(((entropy * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1)).mean())
    return torch.stack(terms).mean()


def _at(volume: Tensor, displacement: Tensor) -> Tensor:
    """Return the values of a volume (B, 81, h, w) at displacements (B, 2, h, w) in cells, bilinearly, (B, 1, h, w)."""
    side = 2 * RADIUS + 1
    low = displacement.floor().clamp(-RADIUS, RADIUS)
    share = displacement - low
    value = torch.zeros_like(volume[:, :1])
    for down in (0, 1):
        for right in (0, 1):
            x = (low[:, :1] + right).clamp(-RADIUS, RADIUS)
            y = (low[:, 1:] + down).clamp(-RADIUS, RADIUS)
            weight = (share[:, :1] if right else 1 - share[:, :1]) * (share[:, 1:] if down else 1 - share[:, 1:])
            channel = ((y + RADIUS) * side + x + RADIUS).long()
            value = value + weight * volume.gather(1, channel)
    return value
