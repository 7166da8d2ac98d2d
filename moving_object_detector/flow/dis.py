"""Dense Inverse Search flow (Kroeger et al., ECCV 2016) from OpenCV: the backend for a bare CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PRESETS: Final = {
    'ultrafast': cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    'fast': cv2.DISOPTICAL_FLOW_PRESET_FAST,
    'medium': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def reduce_flow(flow: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a flow field and rescale its vectors with it.

    Args:
        flow: (h, w, 2), pixels of its own size.
        size: Target (height, width).

    Returns:
        (height, width, 2), pixels of the target size; cells are averaged when the field shrinks.

    """
    height, width = flow.shape[:2]
    if (height, width) == size:
        return flow
    shrinks = size[0] < height and size[1] < width
    resized = cv2.resize(flow, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized * np.array((size[1] / width, size[0] / height), np.float32), np.float32)


class DisFlow:
    """Flow by OpenCV's DIS on grey images.

    Args:
        size: (height, width) at which the flow is computed; the result is reduced from it.
        preset: ``ultrafast``, ``fast`` or ``medium``.

    """

    def __init__(self, size: tuple[int, int] = (256, 512), preset: str = 'medium') -> None:
        if preset not in PRESETS:
            raise ValueError(f'unknown DIS preset {preset!r}; choose one of {", ".join(PRESETS)}')
        self.name = f'dis-{preset}'
        self._size = size
        self._dis = cv2.DISOpticalFlow.create(PRESETS[preset])

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the grey image at the flow's size, uint8 (h, w)."""
        small = cv2.resize(image, (self._size[1], self._size[0]), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)

    def estimate(
        self, sources: Sequence[NDArray[np.uint8]], targets: Sequence[NDArray[np.uint8]], size: tuple[int, int]
    ) -> Tensor:
        """Estimate the flow of each pair; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        flows = np.empty((len(sources), 2, *size), np.float32)
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):
            # DIS reads its flow argument as a starting point only when one is given, so pairs stay independent.
            flow = self._dis.calc(source, target, None)  # type: ignore[call-overload]
            flows[index] = reduce_flow(flow, size).transpose(2, 0, 1)
        return torch.from_numpy(flows)
