"""RAFT-small (Teed and Deng, ECCV 2020) as a flow backend: each frame's features are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.flow.upload import upload
from moving_object_detector.media.pixels import resize_image
from moving_object_detector.networks.raft_small import SMALLEST_SIDE, STRIDE, Features, RaftSmall, upsample
from moving_object_detector.networks.resize import resize_flow

# Correlations of the finest level that are held at once: half a gigabyte of float32.
MOST_CORRELATIONS: Final = 2**27


class RaftSmallFlow:
    """Flow by RAFT-small.

    Args:
        network: With its weights loaded; moved to ``device``.
        size: (height, width) at which the flow is computed, rounded up to multiples of 8 from 64 on.
        device: Where it runs.
        iterations: Refinement steps.

    """

    def __init__(self, network: RaftSmall, size: tuple[int, int], device: torch.device, iterations: int = 12) -> None:
        self.name = 'raft_small'
        self._network = network.eval().to(device)
        self._device = device
        self._iterations = iterations
        height, width = (max(-(-length // STRIDE) * STRIDE, SMALLEST_SIDE) for length in size)
        self._size = (height, width)
        self._pairs_at_once = max(MOST_CORRELATIONS // (height * width // STRIDE**2) ** 2, 1)

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8]) -> Features:
        """Return the frame's matching and context features, each (1, C, h, w)."""
        small = resize_image(image, self._size)
        pixels = upload(np.ascontiguousarray(small.transpose(2, 0, 1))[None], self._device)
        return self._network.features(pixels.float() / 127.5 - 1.0)

    @torch.inference_mode()
    def estimate(self, sources: Sequence[Features], targets: Sequence[Features], size: tuple[int, int]) -> Tensor:
        """Estimate the flow of each pair, in batches; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        flows = []
        for start in range(0, len(sources), self._pairs_at_once):
            batch = slice(start, start + self._pairs_at_once)
            first, second = (
                Features(*(torch.cat(maps) for maps in zip(*frames[batch], strict=True)))
                for frames in (sources, targets)
            )
            flow = self._network.decode(first, second, self._iterations)
            flows.append(resize_flow(upsample(flow), size))
        return torch.cat(flows)
