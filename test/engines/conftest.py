from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from moving_object_detector.networks.generator import Generator


class Toy(nn.Module):
    """A network in a few lines: two inputs, two outputs of other sizes, every row on its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        mixed = torch.tanh(self.conv(torch.cat((first, second), 1)))
        return mixed, mixed.sum(1, keepdim=True) * 2


@pytest.fixture
def toy() -> Toy:
    return Toy().eval()


@pytest.fixture(scope='session')
def toy_inputs():
    """Return the function (batch, seed) that gives inputs of a toy."""

    def inputs(batch: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(seed)
        return torch.rand(batch, 1, 8, 12, generator=rng), torch.rand(batch, 2, 8, 12, generator=rng)

    return inputs


@pytest.fixture(scope='session')
def generator() -> Generator:
    """Random weights whose masks go from near 0 to near 1."""
    torch.manual_seed(5)
    generator = Generator().eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    return generator


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the tests out of the user's cache."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
