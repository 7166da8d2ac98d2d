"""PWC-Net (Sun et al., CVPR 2018) as a flow backend: each frame's pyramid is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector.flow.base import Load, load_eagerly, resize_flow, upload
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, PYRAMID, PWCNet, padded

FLOW_LEVELS: Final = len(PYRAMID) - 1
"""Pyramid levels that the decoder uses: all but the finest, at half the input's size."""


class PwcPyramid(nn.Module):
    """The half of PWC-Net that encodes one frame."""

    def __init__(self, network: PWCNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return levels 2 to 6 of the pyramid of an image (B, 3, H, W), **BGR** in [0, 1]."""
        return tuple(self.network.pyramid(image)[-FLOW_LEVELS:])


class PwcDecoder(nn.Module):
    """The half of PWC-Net that decodes a pair."""

    def __init__(self, network: PWCNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, *levels: Tensor) -> Tensor:
        """Return the flow (B, 2, H/4, W/4), in pixels of the full input.

        ``levels`` are the outputs of :class:`PwcPyramid` for the source images, then for the target images.
        """
        sources, targets = levels[:FLOW_LEVELS], levels[FLOW_LEVELS:]
        # The decoder indexes level 1 but does not read it.
        return self.network.decode((sources[0], *sources), (targets[0], *targets)) * FLOW_DIVISOR


class PwcFlow:
    """Flow by PWC-Net, computed at ``size`` (height, width), rounded up to multiples of 64.

    ``network`` is moved to ``device``, where ``load`` prepares both halves for the usual ``batch`` of pairs; None:
    PyTorch, which follows later changes of the weights.
    """

    def __init__(
        self, network: PWCNet, size: tuple[int, int], device: torch.device, load: Load | None = None, batch: int = 1
    ) -> None:
        self.name = 'pwcnet'
        self._device = device
        self._size = height, width = padded(size)
        load = load or load_eagerly(device)
        self._pyramid = load(PwcPyramid(network), (torch.zeros(1, 3, height, width),), 'PWC-Net pyramid')
        shapes = [(batch, PYRAMID[level - 1], height >> level, width >> level) for level in range(2, FLOW_LEVELS + 2)]
        examples = tuple(torch.zeros(shape) for shape in (*shapes, *shapes))
        self._decode = load(PwcDecoder(network), examples, 'PWC-Net decoder')

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8], before: object = None) -> tuple[Tensor, ...]:
        """Return levels 2 to 6 of the frame's feature pyramid, each (1, C, h, w)."""
        small = resize_image(image, self._size)
        # The authors' weights expect BGR.
        bgr = np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1))[None]
        return self._pyramid(upload(bgr, self._device).float() / 255.0)

    @torch.inference_mode()
    def estimate(
        self, sources: Sequence[tuple[Tensor, ...]], targets: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> Tensor:
        """Estimate the flow of each pair as one batch; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        levels = [torch.cat(level) for pyramids in (sources, targets) for level in zip(*pyramids, strict=True)]
        # Vectors are in pixels of the network's input, which is four times the size of its output.
        return resize_flow(self._decode(*levels)[0], size) * 0.25
