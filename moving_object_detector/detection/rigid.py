"""Whether a region moves on its own or is a part of the scene that is merely near."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import RigidConfig
from moving_object_detector.flow.rigid_scene import (
    Array,
    Travel,
    assumed_camera,
    contrast,
    estimate_travel,
    explained_share,
)

LEAST_CONTRAST: Final = 0.35
"""Mean contrast below which the flow of a region is made up, as in a clear sky."""


class RigidTest:
    """Tests the regions of one frame; how the camera travelled is estimated when a region is first asked about.

    Args:
        image: (H, W, 3) uint8 RGB.
        flows: To the nearest earlier (-1) and later (1) neighbour, where there is one, each (2, h, w) in pixels.
        config: Its options.
        travels: Where the travel to these neighbours is kept for other tests of the same flows.

    """

    def __init__(
        self, image: NDArray[np.uint8], flows: Mapping[int, Array], config: RigidConfig, travels: dict[int, Travel]
    ) -> None:
        self._image, self._flows, self._config, self._travels = image, flows, config, travels

    def moves(self, region: NDArray[np.bool_]) -> bool:
        """Return whether the flow of a region (H, W) is known, by its contrast, and no rigid scene explains it."""
        if self._config.max_explained >= 1.0 or not self._flows:
            return True
        height, width = next(iter(self._flows.values())).shape[1:]
        small = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA) > 0
        if small.any() and float(self._contrast[small].mean()) < LEAST_CONTRAST:
            return False
        if self._travels.keys() != self._flows.keys():
            self._estimate((height, width))
        travels = [self._travels[side] for side in self._flows]
        return explained_share(small, list(self._flows.values()), travels) <= self._config.max_explained

    @cached_property
    def _contrast(self) -> Array:
        height, width = next(iter(self._flows.values())).shape[1:]
        small = cv2.resize(self._image, (width, height), interpolation=cv2.INTER_AREA)
        return contrast(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8))

    def _estimate(self, size: tuple[int, int]) -> None:
        camera = assumed_camera(size, self._image.shape[1] / self._image.shape[0], self._config.focal_length)
        for side, flow in self._flows.items():
            if side not in self._travels:
                self._travels[side] = estimate_travel(flow, self._contrast, camera)
