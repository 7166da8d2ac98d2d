from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def fill() -> Callable[[nn.Module, float], nn.Module]:
    """Set every parameter to a number that depends on nothing but its place, so that outputs can be written down."""

    def fill(module: nn.Module, gain: float) -> nn.Module:
        random = np.random.Generator(np.random.PCG64(1))
        for name, tensor in module.state_dict().items():
            values = random.random(tuple(tensor.shape)) * 2 - 1
            if tensor.dim() == 4:
                values *= math.sqrt(3 * gain / math.prod(tensor.shape[1:]))
            elif name.endswith('gamma'):
                values = 1 + 0.3 * values
            else:
                values *= 0.2
            tensor.copy_(torch.from_numpy(values))
        return module.eval()

    return fill


@pytest.fixture
def noise() -> Callable[..., torch.Tensor]:
    """Return the function (seed, *shape) that gives float32 numbers in [0, 1), the same on every machine."""

    def noise(seed: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random(shape)).float()

    return noise
