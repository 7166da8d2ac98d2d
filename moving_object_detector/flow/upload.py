"""Images as the networks see them, on the device."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.media.pixels import resize_image


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    To a GPU it goes by way of pinned memory, so that nothing waits for the copy; a CPU tensor shares the memory.
    """
    tensor = torch.from_numpy(array)
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def centred(pixels: Tensor) -> Tensor:
    """Return pixels in 0 to 255 as the generator and the inpainter take them: float, in [-0.5, 0.5]."""
    return pixels.float() / 255.0 - 0.5


def network_image(image: NDArray[Any], size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return an image (H, W, 3) uint8 at ``size`` (height, width) as (3, height, width) in [-0.5, 0.5]."""
    small = upload(resize_image(image, size), device or torch.device('cpu'))
    return centred(small.permute(2, 0, 1))
