"""What an engine is: a way to run the generator."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class MaskEngine(Protocol):
    """Runs the generator on batches of any length at one fixed size."""

    name: str
    """For logs: engine, precision and device."""
    device: torch.device
    """Where its inputs and outputs live."""

    def __call__(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return masks.

        Args:
            image: (B, 3, h, w), RGB in [-0.5, 0.5].
            flow: (B, 2, h, w), prepared as the weights expect.

        Returns:
            (B, 1, h, w) in [0, 1], float32.

        """
