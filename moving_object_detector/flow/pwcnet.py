"""PWC-Net (Sun et al., CVPR 2018) as a flow backend: each frame's pyramid is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, MULTIPLE, PWCNet
from moving_object_detector.networks.resize import resize_flow


class PwcFlow:
    """Flow by PWC-Net.

    Args:
        network: With its weights loaded; moved to ``device``.
        size: (height, width) at which the flow is computed, rounded up to multiples of 64.
        device: Where it runs.

    """

    def __init__(self, network: PWCNet, size: tuple[int, int], device: torch.device) -> None:
        self.name = 'pwcnet'
        self._network = network.eval().to(device)
        self._device = device
        height, width = (-(-length // MULTIPLE) * MULTIPLE for length in size)
        self._size = (height, width)

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8]) -> list[Tensor]:
        """Return the six levels of the frame's feature pyramid, each (1, C, h, w)."""
        height, width = self._size
        shrinks = image.shape[0] > height
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        # The authors' weights expect BGR.
        bgr = np.ascontiguousarray(small[:, :, ::-1].transpose(2, 0, 1))[None]
        return self._network.pyramid(torch.from_numpy(bgr).to(self._device).float() / 255.0)

    @torch.inference_mode()
    def estimate(
        self, sources: Sequence[list[Tensor]], targets: Sequence[list[Tensor]], size: tuple[int, int]
    ) -> Tensor:
        """Estimate the flow of each pair as one batch; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        first, second = ([torch.cat(level) for level in zip(*pyramids, strict=True)] for pyramids in (sources, targets))
        quarter = self._network.decode(first, second) * FLOW_DIVISOR
        # Vectors are in pixels of the network's input, which is four times the size of its output.
        return resize_flow(quarter, size) * 0.25
