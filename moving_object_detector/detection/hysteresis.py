"""What was found in the frame before holds a mask together, and what was not found there counts for less."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from moving_object_detector.flow.travel import Array

SURE: Final = 0.5
"""Probability from which something is found in a frame."""
FAINT: Final = 0.2
"""Probability down to which what is around belongs to it."""
KEPT: Final = 0.7
"""Weight of the frame before where both have found the same."""
DOUBT: Final = 0.25
"""The same elsewhere."""
LARGEST_ERROR: Final = 0.006
"""Share of the image width by which the flows of both ways may miss each other."""
FARTHEST: Final = 3
"""Frames over which a mask is carried."""


class Carried(NamedTuple):
    """What was found in an earlier frame."""

    number: int
    """Of the frame."""
    probability: Array
    """(h, w) in [0, 1]."""

    def to(self, index: int, flow: Array, gap: int, reverse: Array | None = None) -> Array | None:
        """Return it carried along to a later frame, (h, w); None where that is too far.

        ``flow`` (2, h, w) is that frame's to the one ``gap`` frames before it, pixels, and ``reverse`` the flow from
        there back, if it is known: where the two do not cancel, something has come into view, and nothing is carried.
        """
        frames = index - self.number
        if not 0 < frames <= FARTHEST:
            return None
        there = _looked_up(self.probability, flow * (frames / gap))
        if reverse is not None:
            off = flow + _looked_up(reverse.transpose(1, 2, 0), flow).transpose(2, 0, 1)
            there[np.hypot(*off) > LARGEST_ERROR * flow.shape[2]] = 0
        return there


def _looked_up(values: Array, flow: Array) -> Array:
    """Return values (h, w) or (h, w, 2) where flow (2, h, w), pixels, leads to, bilinearly, 0 outside."""
    height, width = values.shape[:2]
    x, y = flow[0] + np.arange(width, dtype=np.float32), flow[1] + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0))


def steadied(own: Array, before: Array) -> Array:
    """Return a frame's probability (h, w) with that of the frame before, carried along, taken into account.

    Hysteresis in time (Canny 1986 has it in space): where a region that both frames have found hangs together by faint
    probability, the frame before may only add to it. Elsewhere it may only take away, so that what one frame alone has
    found is doubted, and what was wrong once does not stay.
    """
    count, labels = cv2.connectedComponents(np.asarray(np.maximum(own, before) > FAINT, np.uint8), connectivity=8)
    both = np.zeros(count, np.bool_)
    both[np.intersect1d(labels[own >= SURE], labels[before >= SURE])] = True
    more = before - own
    return np.asarray(own + np.where(both[labels], KEPT * np.maximum(more, 0), DOUBT * np.minimum(more, 0)), np.float32)
