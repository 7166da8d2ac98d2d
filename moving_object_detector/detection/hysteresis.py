"""Hysteresis in time: the previous mask, warped by the flow, completes or weakens the present one."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from moving_object_detector.flow.travel import Array

SURE: Final = 0.5
"""Least probability of a detection."""
FAINT: Final = 0.2
"""Probability above which surrounding pixels belong to the same region."""
KEPT: Final = 0.7
"""Weight of the previous frame in a region that both frames have detected."""
DOUBT: Final = 0.25
"""Weight of the previous frame elsewhere."""
LARGEST_ERROR: Final = 0.006
"""Largest forward-backward error of consistent flow, as a share of the image width."""
FARTHEST: Final = 3
"""Longest distance over which a mask is warped, frames."""


class Carried(NamedTuple):
    """The probability of an earlier frame, to be warped to a later one."""

    number: int
    """Index of the earlier frame."""
    probability: Array
    """(h, w) in [0, 1]."""

    def to(self, index: int, flow: Array, gap: int, reverse: Array | None = None) -> Array | None:
        """Return the probability warped to the frame ``index``, (h, w); None if it is not 1 to 3 frames later.

        ``flow`` (2, h, w), pixels, leads from that frame to the one ``gap`` frames earlier; ``reverse``, if known, is
        the flow back. Where the two do not cancel (disocclusion), the result is 0.
        """
        frames = index - self.number
        if not 0 < frames <= FARTHEST:
            return None
        warped = _sample(self.probability, flow * (frames / gap))
        if reverse is not None:
            error = flow + _sample(reverse.transpose(1, 2, 0), flow).transpose(2, 0, 1)
            warped[np.hypot(*error) > LARGEST_ERROR * flow.shape[2]] = 0
        return warped


def _sample(values: Array, flow: Array) -> Array:
    """Sample values (h, w) or (h, w, 2) where flow (2, h, w), pixels, leads, bilinearly, 0 outside."""
    height, width = values.shape[:2]
    x, y = flow[0] + np.arange(width, dtype=np.float32), flow[1] + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0))


def steadied(own: Array, before: Array) -> Array:
    """Return a frame's probability (h, w), corrected by the warped probability of the frame before it.

    Hysteresis in time, as Canny (1986) has in space. In a connected region of faint probability in which both frames
    have a detection, the previous frame can only raise the probability. Elsewhere it can only lower it, so detections
    of a single frame are weakened and errors do not persist.
    """
    count, labels = cv2.connectedComponents(np.asarray(np.maximum(own, before) > FAINT, np.uint8), connectivity=8)
    both = np.zeros(count, np.bool_)
    both[np.intersect1d(labels[own >= SURE], labels[before >= SURE])] = True
    gain = before - own
    return np.asarray(own + np.where(both[labels], KEPT * np.maximum(gain, 0), DOUBT * np.minimum(gain, 0)), np.float32)
