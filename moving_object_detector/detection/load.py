"""Keeping up with a rate: a smaller window at once when computing takes too long, a larger one when there is room."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Final

from moving_object_detector.detection.config import WindowConfig

# Shares of the time between two images that computing takes.
OVERLOAD: Final = 0.95
"""More than this is too much: go down at once."""
LANDING: Final = 0.85
"""Where to go down to."""
ROOM: Final = 0.75
"""The next larger schedule must be predicted to need no more than this for some time."""
HOLD: Final = 3.0
"""Seconds for which there must be room; doubled each time that a larger schedule turned out too large."""
LONGEST_HOLD: Final = 120.0
PROVEN: Final = 30.0
"""Seconds after which a larger schedule has proved right."""
MOST_SPARE: Final = 8
"""Where fewer masks than images are asked for, one in so many images at least gets one."""
SETTLED: Final = 5
"""Masks after which a new schedule is judged, by the median of the last :data:`SAMPLES`."""
SAMPLES: Final = 9
_UNSETTLED: Final = 2
"""Masks after a change that are not counted: engines prepare themselves for batches of another length."""


@dataclass(frozen=True)
class Schedule:
    """A window, and of which frames masks are computed."""

    window: WindowConfig
    every: int = 1
    """A mask is computed for every n-th frame; the frames between are neighbours that vote."""

    @property
    def delay(self) -> int:
        """Frames that the refined result waits for."""
        return self.window.future * self.window.stride

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """How many pairs each of ``every`` consecutive frames brings, the one that gets a mask first."""
        forward = [k * self.window.stride for k in range(1, self.window.future + 1)]
        return tuple(
            (0 if after else self.window.past) + sum((after - offset) % self.every == 0 for offset in forward)
            for after in range(self.every)
        )

    @property
    def pairs(self) -> float:
        """Pairs that a frame brings on average."""
        return sum(self.batches) / self.every

    def __str__(self) -> str:
        """Return for example ``window -2..+2, stride 1, every frame``."""
        frames = 'every frame' if self.every == 1 else f'one frame in {self.every}'
        return f'window -{self.window.past}..+{self.window.future}, stride {self.window.stride}, {frames}'


def schedules(ceiling: WindowConfig, *, zero_lag: bool, spare: int = 1) -> list[Schedule]:
    """Return all schedules, the best first: a large window counts more than masks of more frames than are asked for.

    From the ceiling down to the frame before alone, with ``zero_lag`` without later neighbours; ``spare`` images come
    for each mask that is asked for.
    """
    if zero_lag and ceiling.past:
        ceiling = replace(ceiling, future=0)
    longest = max(ceiling.past, ceiling.future)
    sides = [(min(ceiling.past, reach), min(ceiling.future, reach)) for reach in range(longest, 0, -1)]
    if ceiling.past and ceiling.future:
        sides.append((1, 0))
    windows = [replace(ceiling, past=past, future=future) for past, future in sides]
    return [Schedule(window, every) for window in windows for every in range(1, spare + 1)]


class LoadController:
    """Chooses the schedule by what was measured; times are seconds of any steady clock.

    What has to be kept up with is the target, masks a second, or the camera's rate where that is lower; with the target
    0 the whole window stays. The work is taken to grow with the number of pairs: what else there is makes a step down
    smaller than predicted, one up cheaper.
    """

    def __init__(self, ceiling: WindowConfig, *, zero_lag: bool, target: float) -> None:
        self.target = target
        self.reason = 'the configured window'
        """Why the schedule is what it is."""
        self.utilisation = 0.0
        """Share of the time that computing needs; above 1 images are skipped."""
        self.overloaded = False
        """Whether even the smallest schedule is too much."""
        self._ceiling = ceiling
        self._zero_lag = zero_lag
        self.schedule = schedules(ceiling, zero_lag=zero_lag)[0] if target else Schedule(ceiling)
        """What to compute from now on."""
        # The mean, since images that come in bunches have no typical interval; short, to notice a camera that slows.
        self._arrivals: deque[float] = deque(maxlen=17)
        self._lock = threading.Lock()
        self._costs: deque[float] = deque(maxlen=SAMPLES)
        self._full: deque[float] = deque(maxlen=SAMPLES)
        self._spent, self._pairs, self._masks, self._unsettled = 0.0, 0, 0, _UNSETTLED
        self._room_since: float | None = None
        self._holds: dict[Schedule, float] = {}
        self._raised: float | None = None

    def arrived(self, moment: float) -> None:
        """Take note of an image; for any thread."""
        with self._lock:
            self._arrivals.append(moment)

    def pause(self) -> None:
        """Forget the images that came: there was or will be a pause."""
        with self._lock:
            self._arrivals.clear()

    @property
    def rate(self) -> float:
        """Images a second; 0 while that is not known."""
        with self._lock:
            count = len(self._arrivals)
            span = self._arrivals[-1] - self._arrivals[0] if count else 0.0
        return (count - 1) / span if count > SETTLED and span > 0 else 0.0

    def worked(self, seconds: float, pairs: int, masks: int, *, inferred: bool) -> None:
        """Take note of what an image took.

        Where nothing moves, pairs have no masks and are cheap, until something does: they count as what pairs with
        masks cost last. Where the image is ``inferred``, what comes up to the next one that is, is its cost too.
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
        """Judge the present schedule; return whether there is a new one."""
        rate = self.rate
        if not (self.target and rate) or len(self._costs) < SETTLED:
            return False
        steps = schedules(self._ceiling, zero_lag=self._zero_lag, spare=self._spare(rate))
        if self.schedule not in steps:
            # The camera has become slower, or more masks are asked for.
            return self._move(replace(self.schedule, every=steps[-1].every), 'more masks are asked for', None)
        self.utilisation = rate * self._work(self.schedule)
        self.overloaded = self.utilisation > OVERLOAD and self.schedule == steps[-1]
        place = steps.index(self.schedule)
        if self.utilisation > OVERLOAD and not self.overloaded:
            if self._raised is not None:
                self._holds[self.schedule] = min(2 * self._holds.get(self.schedule, HOLD), LONGEST_HOLD)
            below = steps[place + 1 :]
            wanted = next((step for step in below if rate * self._work(step) <= LANDING), below[-1])
            return self._move(wanted, f'the last one needed {self._needs(self.schedule, rate)}', None)
        if self._raised is not None and now - self._raised >= PROVEN:
            self._raised = None
            self._holds.pop(self.schedule, None)
        larger = self._larger(steps[:place], rate)
        if larger is None:
            self._room_since = None
            return False
        self._room_since = now if self._room_since is None else self._room_since
        if now - self._room_since < self._holds.get(larger, HOLD):
            return False
        return self._move(larger, f'there is room: expected to need {self._needs(larger, rate)}', now)

    @property
    def delay(self) -> int:
        """Frames that a result waits for, at present."""
        return 0 if self._zero_lag else self.schedule.delay

    def report(self) -> dict[str, str]:
        """Return setting, reason and figures as texts for a diagnostic status; none without a target."""
        if not self.target:
            return {}
        return {
            'load setting': str(self.schedule),
            'load reason': self.reason,
            'target rate hz': f'{self.target:.2f}',
            'camera rate hz': f'{self.rate:.2f}',
            'utilisation %': f'{100 * self.utilisation:.0f}',
        }

    @property
    def trouble(self) -> str:
        """What to say where even the smallest setting is too much; else empty."""
        if not self.overloaded:
            return ''
        return (
            f'load.target_rate {self.target:g} Hz cannot be kept even at the smallest setting ({self.schedule}); lower '
            'the rate or size of the images, flow.height and flow.width, or height and width'
        )

    def _larger(self, better: list[Schedule], rate: float) -> Schedule | None:
        """Return the best schedule for which there is room; of larger windows the next one, for no more is known of."""
        other = [step.window for step in better if step.window != self.schedule.window]
        within = [step for step in better if step.window in (self.schedule.window, *other[-1:])]
        return next((step for step in within if rate * self._work(step) <= ROOM), None)

    def _work(self, schedule: Schedule) -> float:
        """Predict the seconds of computing that one image takes, on average."""
        return median(self._costs) * schedule.pairs

    def _move(self, schedule: Schedule, reason: str, raised: float | None) -> bool:
        self.schedule, self.reason, self._raised = schedule, reason, raised
        self._room_since = None
        self._costs.clear()
        self._spent, self._pairs, self._masks, self._unsettled = 0.0, 0, 0, _UNSETTLED
        return True

    def _needs(self, schedule: Schedule, rate: float) -> str:
        return f'{rate * self._work(schedule):.0%} of the time at {rate:.1f} images/s'

    def _spare(self, rate: float) -> int:
        # One in so many images nearly makes the target; near the edge the present number may stay, lest it flicker.
        images = rate / self.target
        whole = max(int(images / 0.9), 1)
        present = self.schedule.every
        return min(present if whole < present <= images / 0.8 else whole, MOST_SPARE)
