"""The interface of flow backends, resizing and units of flow, and images as network input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.media.frames import resize_image

Run = Callable[..., tuple[Tensor, ...]]
Load = Callable[[nn.Module, tuple[Tensor, ...], str], Run]
"""Prepares a network for inference, given example inputs and a label; ``Engine.load`` is one."""

# The released code divides flow by 80 pixels of its 640 x 384 input.
UNIT_SIZE: Final = (384, 640)
UNIT_PIXELS: Final = 80.0


def motion_units(flow: Tensor) -> Tensor:
    """Express flow (B, 2, H, W), pixels, in units of 80 pixels of an image of 384 x 640, whatever its own size."""
    height, width = flow.shape[-2:]
    scale = flow.new_tensor((UNIT_SIZE[1] / width, UNIT_SIZE[0] / height)) / UNIT_PIXELS
    return flow * scale[:, None, None]


class FlowBackend(Protocol):
    """Estimates optical flow between frames that were each prepared once.

    The split into :meth:`features` and :meth:`estimate` lets a streaming caller compute the features of a frame (a grey
    image, a feature pyramid) once and use them in every pair.
    """

    name: str

    def features(self, image: NDArray[np.uint8], before: Any = None) -> Any:
        """Compute the features of one frame.

        Args:
            image: (H, W, 3) RGB, any size.
            before: Features of the previous frame of the stream, if any; a backend may start from the flow found there.

        """

    def estimate(self, sources: Sequence[Any], targets: Sequence[Any], size: tuple[int, int]) -> Tensor:
        """Estimate the flow of each pair.

        Args:
            sources: Features of the frames on which the flow is defined.
            targets: Features of the frames it points to, of the same number.
            size: (height, width) of the result.

        Returns:
            (N, 2, height, width) float32: pixel (x, y) of the source is at (x + u, y + v) of the
            target, in pixels of the result's size.

        """


def load_eagerly(device: torch.device) -> Load:
    """Return a loader that runs modules in eager PyTorch, so that later changes of their weights take effect."""

    def load(module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Run:
        module = module.eval().to(device)

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            result = module(*inputs)
            return (result,) if isinstance(result, Tensor) else tuple(result)

        return run

    return load


@lru_cache(maxsize=16)
def _shares(length: int, target: int) -> Tensor:
    """Return the weights (target, length) that average ``length`` pixels into ``target`` larger ones by area."""
    edges = torch.arange(target + 1) * (length / target)
    pixels = torch.arange(length)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp_min(0) * (target / length)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float maps (B, C, h, w) to (B, C, *size) by the rule of ``resize_image``, on a CPU by that function.

    The rule is by area if both sides shrink, else bilinear.
    """
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    if maps.device.type == 'cpu':
        planes = [resize_image(plane, size) for plane in maps.flatten(0, 1).numpy()]
        return torch.from_numpy(np.stack(planes)).reshape(*maps.shape[:2], *size)
    if size[0] < height and size[1] < width:
        rows, columns = (_shares(*lengths).to(maps) for lengths in ((height, size[0]), (width, size[1])))
        return rows @ maps @ columns.T
    return functional.interpolate(maps, size, mode='bilinear', align_corners=False)


SIDE_CHANNELS: Final = 7
"""Channels of flow and evidence for one neighbour; a second neighbour's follow."""


def scale_vectors(flow: Tensor, u: float, v: float) -> Tensor:
    """Return flow (B, C, H, W) with its vectors scaled; C is 2, or 7 per neighbour, of which the first two are flow."""
    scale = flow.new_ones(flow.shape[1])
    scale[::SIDE_CHANNELS], scale[1::SIDE_CHANNELS] = u, v
    return flow * scale[:, None, None]


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize flow as :func:`resize_maps` does, scaling u with the width and v with the height.

    Args:
        flow: (B, C, h, w), u right and v down in pixels of its own size; C as in :func:`scale_vectors`.
        size: Target (height, width).

    Returns:
        (B, C, height, width), in pixels of ``size``.

    """
    height, width = flow.shape[-2:]
    return scale_vectors(resize_maps(flow, size), size[1] / width, size[0] / height)


def resize_field(flow: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize one flow field (h, w, 2) as :func:`resize_flow` does, to (height, width, 2)."""
    height, width = flow.shape[:2]
    if (height, width) == size:
        return flow
    return np.asarray(resize_image(flow, size) * np.array((size[1] / width, size[0] / height), np.float32), np.float32)


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device: asynchronously via pinned memory on a GPU, sharing memory on a CPU."""
    tensor = torch.from_numpy(array)
    if device.type != 'cuda':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def centred(pixels: Tensor) -> Tensor:
    """Scale pixels in 0 to 255 to the input range of generator and inpainter: float, in [-0.5, 0.5]."""
    return pixels.float() / 255.0 - 0.5


def grey_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the grey levels of an image (H, W, 3) RGB at ``size`` (height, width), uint8 (height, width)."""
    return np.asarray(cv2.cvtColor(resize_image(image, size), cv2.COLOR_RGB2GRAY), np.uint8)


def network_image(image: NDArray[Any], size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Return an image (H, W, 3) uint8 at ``size`` (height, width) as (3, height, width) in [-0.5, 0.5]."""
    small = upload(resize_image(image, size), device or torch.device('cpu'))
    return centred(small.permute(2, 0, 1))
