"""Whether a region moves on its own or is a part of the scene that is merely near, as a calibrated score."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.flow.rigid_scene import Texture, contradiction
from moving_object_detector.flow.travel import Array, Camera, Travel, estimate_travel

if TYPE_CHECKING:
    from moving_object_detector.detection.odometry import Odometry

LEAST_KNOWN: Final = 0.15
"""Share of a region's flow that must be known: in a clear sky it is made up."""
# Logarithm of the odds that a region moves, by what contradicts a rigid scene and by the mean probability inside, for
# a travel that the images tell and for one that the robot knows; fitted by scripts/fit_score.py.
SEEN: Final = (-1.57, 2.95, 1.6)
KNOWN: Final = (-1.7, 1.64, 2.48)


class PairTravel:
    """How the camera travelled between two frames; each way is estimated when asked for, the second from the first.

    ``stamps`` are of the earlier and the later frame, nanoseconds; ``odometry`` knows the motion, if anything does.
    """

    def __init__(self, stamps: tuple[int, int], camera: Camera, odometry: Odometry | None = None) -> None:
        self._stamps, self._camera, self._odometry = stamps, camera, odometry
        self._found: dict[int, Travel] = {}
        self._lock = threading.Lock()

    def toward(self, side: int, flow: Array, contrast: Array) -> Travel:
        """Return the travel from the earlier frame to the later one (``side`` 1) or back (-1).

        By the flow (2, h, w) of this pair, pixels, and the contrast (h, w) in [0, 1] of the frame that it starts from.
        """
        # Results are read beside the next step.
        with self._lock:
            if side not in self._found:
                back = self._found.get(-side)
                self._found[side] = back.reverse(flow, contrast) if back else self._estimate(side, flow, contrast)
            return self._found[side]

    def _estimate(self, side: int, flow: Array, contrast: Array) -> Travel:
        here, there = self._stamps[::side]
        motion = self._odometry.motion(here, there) if self._odometry is not None else None
        travel = estimate_travel(flow, contrast, self._camera, motion)
        if motion is not None and self._odometry is not None and self._odometry.compares():
            seen = estimate_travel(flow, contrast, self._camera)
            if not self._odometry.compare(travel, seen):
                return seen
        return travel


class RigidTest:
    """Tests the regions of one frame, of which ``texture`` is, at the size of the flows.

    ``flows`` (2, h, w), pixels, and ``travels`` are to the nearest earlier (-1) and later (1) neighbour, where there is
    one; ``probability`` (h, w) in [0, 1] is that of :func:`~moving_object_detector.detection.hysteresis.steadied`.
    """

    def __init__(
        self,
        texture: Texture,
        flows: Mapping[int, Array],
        travels: Mapping[int, PairTravel],
        probability: Array,
    ) -> None:
        self._texture, self._flows, self._travels, self._probability = texture, flows, travels, probability

    def evidence(self, region: NDArray[np.bool_]) -> tuple[float, float, bool]:
        """Return what of a region (H, W) contradicts a rigid scene, its mean probability, and if the motion is known.

        What stands still contradicts it in neither direction in time; NaN where the region's flow is not known.
        """
        height, width = self._probability.shape
        small = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA) > 0
        if not small.any():
            # Between the pixels of the flow.
            small = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0
        shares, robot = [], False
        for side, flow in self._flows.items():
            travel = self._travels[side].toward(side, flow, self._texture.contrast)
            found = contradiction(small, flow, travel, self._texture)
            robot |= travel.motion is not None
            if found.known >= LEAST_KNOWN:
                shares.append(found.share)
        vote = float(self._probability[small].mean()) if small.any() else 0.0
        return min(shares, default=float('nan')), vote, robot

    def score(self, region: NDArray[np.bool_]) -> float:
        """Return how surely a region (H, W) moves on its own: the share of such regions that do, in [0, 1]."""
        share, vote, robot = self.evidence(region)
        constant, by_share, by_vote = KNOWN if robot else SEEN
        if np.isnan(share):
            return 0.0
        return float(1 / (1 + np.exp(-(constant + by_share * share + by_vote * vote))))
