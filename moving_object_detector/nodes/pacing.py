"""When each frame of a recording is due."""

from __future__ import annotations

import time
from collections.abc import Callable

from moving_object_detector.datasets.frames import SECOND

# Stamps further apart are a cut, not a pause worth waiting for.
LONGEST_PAUSE = 5.0
# A program that fell behind by more than this goes on from where it is; it never sends a burst.
LARGEST_DEBT = 0.25


class Pacer:
    """Turns stamps into moments to wait for.

    Moments are counted from the first frame, so errors of single waits do not add up.
    """

    def __init__(self, rate: float, period: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """Start with the first call of :meth:`due`.

        Args:
            rate: How many times faster than recorded to play.
            period: Seconds between two frames where their stamps say nothing sensible.
            now: Clock in seconds.

        """
        self.rate = rate
        self._period = period
        self._now = now
        self._anchor: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def due(self, stamp: int) -> float:
        """Return the moment, on the clock, at which the frame of ``stamp`` (nanoseconds) is due.

        A stamp that goes back, repeats or leaps by more than :data:`LONGEST_PAUSE` comes one
        period after the frame before.
        """
        now = self._now()
        if self._anchor is None:
            self._anchor = (stamp, now)
        elif not 0 < stamp - self._last[0] <= LONGEST_PAUSE * SECOND:
            self._anchor = (stamp, self._last[1] + self._period / self.rate)
        moment = self._anchor[1] + (stamp - self._anchor[0]) / SECOND / self.rate
        if moment < now - LARGEST_DEBT:
            self._anchor, moment = (stamp, now), now
        self._last = (stamp, moment)
        return moment
