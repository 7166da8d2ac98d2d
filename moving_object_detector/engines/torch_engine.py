"""The generator in PyTorch: the reference, on a CPU or a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from moving_object_detector.networks.generator import Generator


class TorchEngine:
    """Runs a generator eagerly in float32, channels last.

    Args:
        generator: With its weights loaded; moved to ``device``.
        device: Where it runs.

    """

    def __init__(self, generator: Generator, device: torch.device) -> None:
        self._generator = generator.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.name = f'torch float32 on {device}'

    @torch.inference_mode()
    def __call__(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return masks; see :class:`~moving_object_detector.engines.base.MaskEngine`."""
        return self._generator(image, flow)  # type: ignore[no-any-return]
