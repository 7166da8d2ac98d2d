"""Keeps up with a target rate: shrinks the window when computing takes too long, grows it when there is room."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace
from statistics import median
from typing import Final

from moving_object_detector.detection.config import WindowConfig

# Utilisation: computing time as a share of the time between two masks.
OVERLOAD: Final = 0.95
"""Above this the window shrinks at once."""
LANDING: Final = 0.85
"""Highest predicted utilisation of the window to shrink to."""
ROOM: Final = 0.75
"""Highest predicted utilisation of the next larger window at which to grow."""
HOLD: Final = 3.0
"""Seconds for which there must be room; doubled each time the larger window proves too large."""
LONGEST_HOLD: Final = 120.0
PROVEN: Final = 30.0
"""Seconds after which a larger window counts as sustainable."""
SETTLED: Final = 5
"""Masks after which a new window is judged, by the median of the last :data:`SAMPLES`."""
SAMPLES: Final = 9
FEWEST: Final = 17
"""Arrivals of which the rate is at least the mean."""
SHORTEST: Final = 0.2
LONGEST: Final = 1.0
"""Seconds over which more arrivals than these are averaged; below the shortest, the rate is unknown."""
_UNSETTLED: Final = 2
"""Masks not measured after a change: engines prepare for the new batch length."""


def windows(ceiling: WindowConfig, *, zero_lag: bool) -> list[WindowConfig]:
    """Return the windows from ``ceiling`` down to one neighbour; ``zero_lag``: no later ones beside earlier ones."""
    if zero_lag and ceiling.past:
        ceiling = replace(ceiling, future=0)
    longest = max(ceiling.past, ceiling.future)
    sides = [(min(ceiling.past, reach), min(ceiling.future, reach)) for reach in range(longest, 0, -1)]
    if ceiling.past and ceiling.future:
        sides.append((1, 0))
    return [replace(ceiling, past=past, future=future) for past, future in sides]


class LoadController:
    """Chooses the window by measured cost; times are seconds of any monotonic clock.

    The rate to keep up with is the target, masks per second, or the camera's rate if lower; target 0 keeps the full
    window. Cost is assumed proportional to the number of pairs: because of fixed costs a step down saves less than
    predicted, and a step up costs less.
    """

    def __init__(self, ceiling: WindowConfig, *, zero_lag: bool, target: float) -> None:
        self.target = target
        self.reason = 'the configured window'
        """Why this window was chosen."""
        self.utilisation = 0.0
        """Share of the time that computing needs; above 1 the masks miss the target rate."""
        self.overloaded = False
        """Whether even the smallest window needs too much time."""
        self._windows = windows(ceiling, zero_lag=zero_lag)
        # At zero lag without later neighbours, which would double the work for nothing.
        self.window = self._windows[0]
        """Window to compute from now on."""
        self._arrivals: deque[float] = deque()
        self._lock = threading.Lock()
        self._costs: deque[float] = deque(maxlen=SAMPLES)
        self._full: deque[float] = deque(maxlen=SAMPLES)
        self._spent, self._pairs, self._masks, self._unsettled = 0.0, 0, 0, _UNSETTLED
        self._room_since: float | None = None
        self._holds: dict[WindowConfig, float] = {}
        self._raised: float | None = None

    def arrived(self, moment: float) -> None:
        """Note an image's arrival, from any thread."""
        with self._lock:
            self._arrivals.append(moment)
            # Short, to notice a camera that slows down; not too short, since images may come in bursts.
            while len(self._arrivals) > FEWEST and moment - self._arrivals[0] > LONGEST:
                self._arrivals.popleft()

    def pause(self) -> None:
        """Forget past arrivals: the stream has paused or will."""
        with self._lock:
            self._arrivals.clear()
        # What was too much then says nothing of the stream to come.
        self.utilisation, self.overloaded = 0.0, False

    @property
    def rate(self) -> float:
        """Images per second; 0 while unknown."""
        with self._lock:
            count = len(self._arrivals)
            span = self._arrivals[-1] - self._arrivals[0] if count else 0.0
        return (count - 1) / span if count > SETTLED and span > SHORTEST else 0.0

    def worked(self, seconds: float, pairs: int, masks: int, *, inferred: bool) -> None:
        """Record the cost of an image.

        While nothing moves, pairs get no masks and are cheap; since that may end at any time, they count at the last
        cost of pairs with masks. ``inferred``: masks are computed for this image, whose cost includes that of the
        images up to the next such one.
        """
        if inferred:
            if self._pairs and not self._unsettled:
                cost = self._spent / self._pairs
                if self._masks == self._pairs:
                    self._full.append(cost)
                elif self._full:
                    cost = max(cost, median(self._full))
                self._costs.append(cost)
            self._unsettled = max(self._unsettled - 1, 0)
            self._spent, self._pairs, self._masks = 0.0, 0, 0
        self._spent += seconds
        self._pairs += pairs
        self._masks += masks

    def decide(self, now: float) -> bool:
        """Judge the current window; return whether it changed."""
        rate = self.rate
        if not (self.target and rate) or len(self._costs) < SETTLED:
            return False
        index = self._windows.index(self.window)
        self.utilisation = self._load(self.window, rate)
        self.overloaded = self.utilisation > OVERLOAD and self.window == self._windows[-1]
        if self.utilisation > OVERLOAD and not self.overloaded:
            if self._raised is not None:
                self._holds[self.window] = min(2 * self._holds.get(self.window, HOLD), LONGEST_HOLD)
            below = self._windows[index + 1 :]
            wanted = next((window for window in below if self._load(window, rate) <= LANDING), below[-1])
            return self._move(wanted, f'the previous window needed {self._needs(self.window, rate)}', None)
        if self._raised is not None and now - self._raised >= PROVEN:
            self._raised = None
            self._holds.pop(self.window, None)
        larger = self._windows[max(index - 1, 0)]
        if index == 0 or self._load(larger, rate) > ROOM:
            self._room_since = None
            return False
        self._room_since = now if self._room_since is None else self._room_since
        if now - self._room_since < self._holds.get(larger, HOLD):
            return False
        return self._move(larger, f'there is room: expected to need {self._needs(larger, rate)}', now)

    def report(self) -> dict[str, str]:
        """Return window, reason and rates as texts for a diagnostic status; empty without a target."""
        if not self.target:
            return {}
        return {
            'load setting': str(self.window),
            'load reason': self.reason,
            'target rate hz': f'{self.target:.2f}',
            'camera rate hz': f'{self.rate:.2f}',
            'utilisation %': f'{100 * self.utilisation:.0f}',
        }

    @property
    def trouble(self) -> str:
        """What to report if even the smallest window needs too much time; else empty."""
        if not self.overloaded:
            return ''
        return (
            f'load.target_rate {self.target:g} Hz cannot be reached even at the smallest setting ({self.window}); '
            'lower the rate or size of the images, flow.height and flow.width, or height and width'
        )

    def _load(self, window: WindowConfig, rate: float) -> float:
        """Predict the utilisation of a window."""
        masks = min(self.target, rate)
        # Only images with masks of their own vote on earlier ones.
        return masks * median(self._costs) * (window.past + window.future * masks / rate)

    def _move(self, window: WindowConfig, reason: str, raised: float | None) -> bool:
        self.window, self.reason, self._raised = window, reason, raised
        self._room_since = None
        self._costs.clear()
        self._spent, self._pairs, self._masks, self._unsettled = 0.0, 0, 0, _UNSETTLED
        return True

    def _needs(self, window: WindowConfig, rate: float) -> str:
        return f'{self._load(window, rate):.0%} of the time at {rate:.1f} images/s'
