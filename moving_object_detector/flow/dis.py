"""Dense Inverse Search flow (Kroeger et al., ECCV 2016) from OpenCV: the backend that needs no GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.flow.base import grey_image, resize_field
from moving_object_detector.media.frames import resize_image

PRESETS: Final = {
    'ultrafast': cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    'fast': cv2.DISOPTICAL_FLOW_PRESET_FAST,
    'brisk': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    'lean': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    'medium': cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
CHANGES: Final = {
    'brisk': {
        'FinestScale': 0,
        'PatchStride': 5,
        'GradientDescentIterations': 12,
        'VariationalRefinementIterations': 0,
    },
    'lean': {'PatchStride': 4, 'GradientDescentIterations': 12, 'VariationalRefinementIterations': 2},
}
"""Differences from medium, which has 1, 3, 25 and 5. ``lean`` takes 56 % of its time, ``brisk`` a third.

``brisk`` works on images of half the size, where medium ends too, and is smoothed once, at the result's size.
"""
SMOOTHING_ROUNDS: Final = 3
"""Fixed-point iterations of the smoothing of ``brisk``."""


class DisFlow:
    """Flow by OpenCV's DIS on grey images, computed at ``size`` (height, width) and then downsampled.

    ``preset`` is one of :data:`PRESETS` (else ValueError): OpenCV's and two that differ from medium by :data:`CHANGES`.
    ``threads`` pairs are computed in parallel; the flow does not depend on it. With more than one, do not fork the
    process after the first pairs.
    """

    def __init__(self, size: tuple[int, int] = (256, 512), preset: str = 'medium', threads: int = 1) -> None:
        if preset not in PRESETS:
            raise ValueError(f'unknown DIS preset {preset!r}; choose one of {", ".join(PRESETS)}')
        self.name = f'dis-{preset}'
        self._brisk = preset == 'brisk'
        self._size = (size[0] // 2, size[1] // 2) if self._brisk else size
        self._own = _Own(preset)
        # Threads start with the first pairs only, so that the process may fork before.
        self._pool = ThreadPoolExecutor(threads, 'dis') if threads > 1 else None

    def features(self, image: NDArray[np.uint8], before: object = None) -> NDArray[np.uint8]:
        """Return the grey image at the flow's size (for ``brisk`` half of it), uint8 (h, w)."""
        if self._brisk:
            # Grey first: resizing three channels would take twice as long.
            return np.asarray(resize_image(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), self._size), np.uint8)
        return grey_image(image, self._size)

    def estimate(
        self, sources: Sequence[NDArray[np.uint8]], targets: Sequence[NDArray[np.uint8]], size: tuple[int, int]
    ) -> Tensor:
        """Estimate the flow of each pair; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        flows = np.empty((len(sources), 2, *size), np.float32)

        def compute(index: int) -> None:
            # DIS reads its flow argument as a starting point only when one is given, so pairs stay independent.
            source, target = sources[index], targets[index]
            flow = self._own.dis.calc(source, target, None)
            if self._brisk:
                small = min(size[0], self._size[0]), min(size[1], self._size[1])
                flow = np.ascontiguousarray(resize_field(flow, small))
                flow = self._own.smoothing.calc(resize_image(source, small), resize_image(target, small), flow)
            flows[index] = resize_field(flow, size).transpose(2, 0, 1)

        # OpenCV releases the GIL; the list raises errors of threads.
        each = map if self._pool is None or len(sources) == 1 else self._pool.map
        list(each(compute, range(len(sources))))
        return torch.from_numpy(flows)


class _Own(threading.local):
    """OpenCV's objects, which hold buffers: one set per thread."""

    def __init__(self, preset: str) -> None:
        self.dis: Any = cv2.DISOpticalFlow.create(PRESETS[preset])
        for name, value in CHANGES.get(preset, {}).items():
            getattr(self.dis, f'set{name}')(value)
        self.smoothing: Any = cv2.VariationalRefinement.create()
        self.smoothing.setFixedPointIterations(SMOOTHING_ROUNDS)
