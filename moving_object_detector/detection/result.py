"""The result of the detector for one frame, computed lazily."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.common.errors import NotFiniteError
from moving_object_detector.detection.config import DetectorConfig, RefinementConfig
from moving_object_detector.detection.hysteresis import Carried, steadied
from moving_object_detector.detection.refinement import refine
from moving_object_detector.detection.regions import Region, find_regions
from moving_object_detector.detection.rigid import RigidTest
from moving_object_detector.detection.ring import WindowFrame
from moving_object_detector.flow.base import resize_field

Estimate = Literal['zero_lag', 'refined']


def _finite(tensor: Tensor, name: str) -> NDArray[np.float32]:
    array = np.ascontiguousarray(tensor.cpu().numpy(), np.float32)
    if not np.isfinite(array).all():
        raise NotFiniteError(f'the {name} are not finite; set precision to float32, or model and flow.model to others')
    return array


class Result:
    """An estimate for one frame; everything at image size is computed on first access."""

    def __init__(
        self, frame: WindowFrame, estimate: Estimate, config: DetectorConfig, before: Carried | None = None
    ) -> None:
        if not frame.votes:
            raise ValueError(f'frame {frame.index} has no votes')
        self.index = frame.index
        """Position in the stream, counted from the last reset."""
        self.stamp = frame.stamp
        """Nanoseconds, as passed with the image."""
        self.image = frame.image
        """(H, W, 3) uint8 RGB, as passed to the detector."""
        self.tag = frame.tag
        """The caller's object passed with the image."""
        self.estimate: Estimate = estimate
        """``zero_lag``: from earlier neighbours only, at once; ``refined``: from the whole window."""
        self.votes = frame.votes
        """Number of neighbours that voted."""
        self._average = frame.average
        self._motions = tuple(frame.motions)
        self._flows = dict(frame.flows)
        self._gaps = dict(frame.gaps)
        self._travels = dict(frame.travels)
        self._frame = frame
        self._config = config
        self._back = frame.back
        self._before = before

    @cached_property
    def average(self) -> NDArray[np.float32]:
        """P_t of equation 14: the mean of the neighbours' masks, float32 (h, w); raises NotFiniteError for a NaN."""
        return _finite(self._average, 'masks')

    @cached_property
    def motion(self) -> float:
        """Largest coherent motion of all votes, thousandths of the image width."""
        return max(float(motion) for motion in self._motions)

    @cached_property
    def steadied(self) -> NDArray[np.float32]:
        """The average after hysteresis with the previous frame, float32 (h, w); raises NotFiniteError for a NaN."""
        own, before = self.average, None
        if self._before is not None and -1 in self._flows and own.any():
            before = self._before.to(self.index, self._flows[-1].cpu().numpy(), self._gaps[-1], self._back)
        # Freed, since nothing else needs them.
        self._before = self._back = None
        return own if before is None else steadied(own, before)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Refined probability of moving on its own, float32 (H, W) in [0, 1]."""
        return refine(self.steadied, self.image, self._config.refinement)

    @cached_property
    def _mask_and_regions(self) -> tuple[NDArray[np.uint8], list[Region]]:
        least = self._config.rigid.min_score
        if least <= 0 or not self._flows:
            return find_regions(self.probability, self._config.mask)
        return find_regions(self.probability, self._config.mask, self.test.score, least)

    @cached_property
    def test(self) -> RigidTest:
        """The test that scores regions of this frame."""
        flows = {side: _finite(flow, 'flow') for side, flow in self._flows.items()}
        return RigidTest(self._frame.texture, flows, self._travels, self.steadied)

    @property
    def mask(self) -> NDArray[np.uint8]:
        """The mask, uint8 (H, W), 255 where something moves on its own."""
        return self._mask_and_regions[0]

    @property
    def regions(self) -> list[Region]:
        """Connected regions of the mask, largest first."""
        return self._mask_and_regions[1]

    @cached_property
    def flow(self) -> NDArray[np.float32]:
        """Flow to the next frame (refined) or the previous one (zero lag), float32 (H, W, 2), pixels; 0 without one.

        Flow to a neighbour k frames away is divided by k.
        """
        size = (self.image.shape[0], self.image.shape[1])
        side = 1 if 1 in self._flows else -1
        if side not in self._flows:
            return np.zeros((*size, 2), np.float32)
        flow = self._flows[side] / self._gaps[side]
        return resize_field(_finite(flow.permute(1, 2, 0), 'flow'), size)

    def refined_by(self, refinement: RefinementConfig) -> Result:
        """Return the same estimate with other refinement options."""
        other = copy(self)
        vars(other)['_config'] = replace(self._config, refinement=refinement)
        for computed in ('probability', '_mask_and_regions'):
            other.__dict__.pop(computed, None)
        return other
