"""From times to figures: percentiles, ratios, operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moving_object_detector.flow.pwcnet import PwcPyramid
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.pwcnet import PWCNet

PERCENTILES: Final = (('median', 50), ('p95', 95), ('p99', 99))
QUARTILES: Final = (25, 75)


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, p95 and p99 of some times, in milliseconds."""
    return {name: round(1000 * float(np.percentile(seconds, share)), 2) for name, share in PERCENTILES}


def ratio(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return how many times longer one thing takes than another.

    Args:
        slow: Times of each round, seconds; at least one in each.
        fast: The same of the other thing, which took its turn in the same rounds.

    Returns:
        ``ratio``, of the medians over all rounds, and ``low`` and ``high``, the quartiles of the rounds' own ratios:
        what disturbs the machine for longer than a round disturbs both alike.

    """
    whole = np.median(np.concatenate(slow)) / np.median(np.concatenate(fast))
    own = [np.median(a) / np.median(b) for a, b in zip(slow, fast, strict=True)]
    low, high = np.percentile(own, QUARTILES)
    return {'ratio': round(float(whole), 2), 'low': round(float(low), 2), 'high': round(float(high), 2)}


def count_flops(make: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> int:
    """Return the floating-point operations of a network's convolutions and matrix products.

    A multiplication and an addition are two. Nothing is computed: the tensors have shapes only.

    Args:
        make: Makes the network, which takes one tensor of each of the shapes.
        shapes: Of its inputs.

    """
    with torch.device('meta'):
        network, inputs = make(), [torch.empty(shape) for shape in shapes]
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(*inputs)
    return int(counter.get_total_flops())


def generator_flops(size: tuple[int, int]) -> int:
    """Return the operations of one mask at (height, width)."""
    return count_flops(Generator, (1, 3, *size), (1, 2, *size))


def pwcnet_flops(size: tuple[int, int]) -> tuple[int, int]:
    """Return the operations of one frame's pyramid and of one pair's decoder, at (height, width), multiples of 64.

    Without the cost volume and the warp, which are no products of matrices.
    """
    pyramid = count_flops(lambda: PwcPyramid(PWCNet()), (1, 3, *size))
    return pyramid, count_flops(PWCNet, (1, 3, *size), (1, 3, *size)) - 2 * pyramid


def share(rate: float, of: float | None) -> float | None:
    """Return one rate as a share of another, rounded; None where there is no other."""
    return round(rate / of, 3) if of else None
