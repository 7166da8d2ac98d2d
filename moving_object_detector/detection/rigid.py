"""Calibrated score of whether a region moves on its own or is a near but static part of the scene."""

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
"""Least share of reliable flow in a region; in a clear sky flow is made up."""
# Log-odds that a region moves: constant, weight of its contradiction to a rigid scene, weight of its mean probability;
# for motion estimated from the images and for known motion. Fitted by scripts/fit_score.py.
SEEN: Final = (-3.03, 1.6, 4.67)
KNOWN: Final = (-2.55, 0.88, 4.44)


class PairTravel:
    """Camera motion between two frames, estimated on first use; the second direction is derived from the first.

    ``stamps`` are those of the earlier and the later frame, nanoseconds; ``odometry``, if given, may know the motion.
    """

    def __init__(self, stamps: tuple[int, int], camera: Camera, odometry: Odometry | None = None) -> None:
        self._stamps, self._camera, self._odometry = stamps, camera, odometry
        self._found: dict[int, Travel] = {}
        self._lock = threading.Lock()

    def toward(self, side: int, flow: Array, contrast: Array) -> Travel:
        """Return the travel from the earlier frame to the later one (``side`` 1) or back (-1).

        ``flow`` (2, h, w), pixels, leads that way; ``contrast`` (h, w) in [0, 1] is of the frame it starts from.
        """
        # Another thread may read results during the next step.
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
            by_images = estimate_travel(flow, contrast, self._camera)
            if not self._odometry.compare(travel, by_images):
                return by_images
        return travel


class RigidTest:
    """Tests regions of one frame against a rigid scene.

    ``texture`` is the frame's, at the size of the flows. ``flows`` (2, h, w), pixels, and ``travels`` lead to the
    nearest earlier (-1) and later (1) neighbour, if any. ``probability`` (h, w) in [0, 1] is that after hysteresis.
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
        """Return a region's (H, W) contradiction to a rigid scene, its mean probability, and if the motion is known.

        Of both directions in time the lower contradiction counts, as a static region has none in either; NaN without
        reliable flow.
        """
        height, width = self._probability.shape
        small = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA) > 0
        if not small.any():
            # Covers half of no pixel of the flow.
            small = cv2.resize(region.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR) > 0
        shares, known = [], False
        for side, flow in self._flows.items():
            travel = self._travels[side].toward(side, flow, self._texture.contrast)
            found = contradiction(small, flow, travel, self._texture)
            known |= travel.motion is not None
            if found.known >= LEAST_KNOWN:
                shares.append(found.share)
        vote = float(self._probability[small].mean()) if small.any() else 0.0
        return min(shares, default=float('nan')), vote, known

    def score(self, region: NDArray[np.bool_]) -> float:
        """Return the calibrated probability that a region (H, W) moves on its own; 0 without reliable flow."""
        share, vote, known = self.evidence(region)
        constant, by_share, by_vote = KNOWN if known else SEEN
        if np.isnan(share):
            return 0.0
        return float(1 / (1 + np.exp(-(constant + by_share * share + by_vote * vote))))
