"""Choosing the largest setting that keeps up with a rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.costs import Arrivals, Costs
from moving_object_detector.detection.setting import Setting

# Shares of the time between two images that computing takes.
OVERLOAD: Final = 0.95
"""More than this is too much: go down at once."""
LANDING: Final = 0.85
"""Where to go down to."""
ROOM: Final = 0.75
"""A larger setting must be predicted to need no more than this for some time."""
HOLD: Final = 3.0
"""Seconds for which there must be room; doubled each time that a larger setting turned out too large."""
LONGEST_HOLD: Final = 120.0
PROVEN: Final = 30.0
"""Seconds after which a larger setting has proved right."""
MOST_SPARE: Final = 8
"""Where fewer masks than images are asked for, one in so many images at least gets one."""
SPARSEST: Final = 16
"""One image in so many is the least that is looked at."""


def windows(ceiling: WindowConfig, *, zero_lag: bool) -> list[WindowConfig]:
    """Return the windows from ``ceiling`` down: fewer neighbours on both sides, at last the one before alone.

    Args:
        ceiling: The configured window.
        zero_lag: Later neighbours are of no use, so none of them is computed.

    """
    if zero_lag and ceiling.past:
        ceiling = replace(ceiling, future=0)
    longest = max(ceiling.past, ceiling.future)
    sides = [(min(ceiling.past, reach), min(ceiling.future, reach)) for reach in range(longest, 0, -1)]
    if ceiling.past and ceiling.future:
        sides.append((1, 0))
    return [replace(ceiling, past=past, future=future) for past, future in sides]


def rungs(reaches: Sequence[WindowConfig], *, half: bool) -> list[tuple[WindowConfig, bool]]:
    """Return windows and whether the generator has half its size with each, the best first.

    The size gives way before the window: half is there only where it is no smaller than the size that the weights were
    trained at, and down to that size it costs nothing (README, Results).

    Args:
        reaches: As from :func:`windows`.
        half: Whether the generator can have half its size.

    """
    return (
        [(reaches[0], False), *((window, True) for window in reaches)] if half else [(each, False) for each in reaches]
    )


def ladder(
    ceiling: WindowConfig, *, zero_lag: bool, spare: int = 1, sparsest: int = SPARSEST, half: bool = False
) -> list[Setting]:
    """Return all settings, the best first.

    Windows and sizes count most (:func:`rungs`), then masks of more frames. Below the smallest window images
    are left out altogether, since entering one costs too, at last more than the rate that is asked for allows.

    Args:
        ceiling: The configured window.
        zero_lag: As for :func:`windows`.
        spare: Images that come for each mask that is asked for.
        sparsest: One image in so many is looked at at least.
        half: As for :func:`rungs`.

    """
    reaches = windows(ceiling, zero_lag=zero_lag)
    steps = rungs(reaches, half=half)
    whole = [Setting(window, every, half=small) for window, small in steps for every in range(1, spare + 1)]
    return whole + [Setting(reaches[-1], take=take, half=half) for take in range(2, sparsest + 1)]


class LoadController:
    """Goes down the ladder at once when the machine cannot keep up, and up again when it could for a while.

    What has to be kept up with is the target rate, or the camera's where that is lower. Times are seconds
    of any steady clock.

    Args:
        ceiling: The configured window, the largest there will be.
        zero_lag: Whether zero-lag results are wanted, else refined ones.
        target: Masks a second, above 0; may be changed.
        max_gap: Seconds between two frames above which the detector starts anew.
        arrivals: The images that come.
        costs: What the work takes.
        half: Whether the generator can have half its size.

    """

    def __init__(
        self,
        ceiling: WindowConfig,
        *,
        zero_lag: bool,
        target: float,
        max_gap: float,
        arrivals: Arrivals,
        costs: Costs,
        half: bool = False,
    ) -> None:
        self.target = target
        self.reason = 'the configured window'
        """Why the setting is what it is."""
        self.utilisation = 0.0
        """Share of the time that computing needs; above 1 images are skipped."""
        self.overloaded = False
        """Whether even the smallest setting is too much."""
        self._ceiling = ceiling
        self._zero_lag = zero_lag
        self._half = half
        self._max_gap = max_gap
        self._arrivals = arrivals
        self._costs = costs
        self._ladders: dict[tuple[int, int], list[Setting]] = {}
        self.setting = ladder(ceiling, zero_lag=zero_lag)[0]
        """What to compute from now on."""
        self._candidate: tuple[Setting, float] | None = None
        self._hold = HOLD
        self._raised: float | None = None

    def decide(self, now: float) -> bool:
        """Judge the present setting by what was measured; return whether there is a new one."""
        rate = self._arrivals.rate()
        if not rate or not self._costs.settled:
            return False
        steps = self._ladder(rate)
        self.utilisation = rate * self._costs.work(self.setting)
        self.overloaded = self.utilisation > OVERLOAD and self.setting == steps[-1]
        if self.utilisation > OVERLOAD and not self.overloaded:
            if self._raised is not None:
                self._hold = min(2 * self._hold, LONGEST_HOLD)
            wanted = next((step for step in steps if rate * self._costs.work(step) <= LANDING), steps[-1])
            return self._move(wanted, f'the last one needed {self._needs(self.setting, rate)}', None)
        if self._raised is not None and now - self._raised >= PROVEN:
            self._raised, self._hold = None, HOLD
        better = self._room(steps, rate, now)
        if better is None:
            return False
        return self._move(better, f'there is room: expected to need {self._needs(better, rate)}', now)

    def _room(self, steps: list[Setting], rate: float, now: float) -> Setting | None:
        """Return a better setting that there has been room for all the time that it takes to believe it."""
        gone = self.setting not in steps  # the camera has become slower
        better = steps if gone else steps[: steps.index(self.setting)]
        best = next((step for step in better if rate * self._costs.work(step) <= ROOM), steps[-1] if gone else None)
        if best is None:
            self._candidate = None
            return None
        candidate, since = self._candidate or (best, now)
        if candidate not in better or better.index(candidate) < better.index(best):
            candidate = best  # the least of what there was room for
        self._candidate = candidate, since
        return candidate if now - since >= self._hold else None

    def _move(self, setting: Setting, reason: str, raised: float | None) -> bool:
        self.setting, self.reason, self._raised = setting, reason, raised
        self._candidate = None
        self._costs.changed()
        return True

    def _needs(self, setting: Setting, rate: float) -> str:
        return f'{rate * self._costs.work(setting):.0%} of the time at {rate:.1f} images/s'

    def _ladder(self, rate: float) -> list[Setting]:
        # One in so many images nearly makes the target rate; that few images leave no gap near the longest.
        spare = _whole(rate / self.target, 0.9, 0.8, self.setting.every)
        sparsest = _whole(rate * self._max_gap, 2.0, 1.5, self.setting.take)
        key = min(spare, MOST_SPARE), min(sparsest, SPARSEST)
        if key not in self._ladders:
            self._ladders[key] = ladder(
                self._ceiling, zero_lag=self._zero_lag, spare=key[0], sparsest=key[1], half=self._half
            )
        return self._ladders[key]


def _whole(value: float, divisor: float, lenient: float, present: int) -> int:
    """Round ``value / divisor`` down, to 1 at least; ``present`` may stay while it is within ``value / lenient``.

    Else a value near the edge would make the setting come and go.
    """
    whole = max(int(value / divisor), 1)
    return present if whole < present <= value / lenient else whole
