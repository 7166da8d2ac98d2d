"""The guard against a generator that has collapsed to all or nothing, as in the released code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

LEAST_GRADIENT: Final = 1e-5


def revive(parameters: Sequence[nn.Parameter], largest: float, seed: tuple[int, int]) -> bool:
    """Replace gradients by positive noise where they have vanished.

    Args:
        parameters: Of the generator, with gradients.
        largest: The noise is uniform from 0 to this.
        seed: Of the noise; the same in all processes that train together.

    Returns:
        Whether the mean absolute gradient was under 1e-5.

    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    count = sum(gradient.numel() for gradient in gradients)
    total = torch.stack([gradient.abs().sum() for gradient in gradients]).sum()
    # A gradient that is not a number has not vanished: noise would hide that the training diverged.
    if not float(total) / count < LEAST_GRADIENT:
        return False
    noise = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    for gradient in gradients:
        gradient.copy_(torch.rand(gradient.shape, generator=noise) * largest)
    return True
