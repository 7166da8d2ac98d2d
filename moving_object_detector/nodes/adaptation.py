"""Keeps the detector at the largest setting with which the target rate is met."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from moving_object_detector.detection.costs import Arrivals, Costs
from moving_object_detector.detection.load import LoadController
from moving_object_detector.detection.setting import Setting
from moving_object_detector.nodes.complaints import Complaints
from moving_object_detector.nodes.config import NodeConfig

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector
    from moving_object_detector.detection.stage import Stage


class PairClock:
    """Measures as the detector's ``stage`` hook how long flows and masks take, in seconds.

    Args:
        finish: Waits until a GPU has done what it was given, whose time would else show up elsewhere.

    """

    def __init__(self, finish: Callable[[], object] | None) -> None:
        self._finish = finish
        self._seconds = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside the context as the stage ``name``."""
        started = time.monotonic()
        yield
        if name == 'vote' and self._finish is not None:
            self._finish()
        if name != 'prepare':
            self._seconds += time.monotonic() - started

    def take(self) -> float:
        """Return the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def delay_of(config: NodeConfig) -> int:
    """Return how many frames a result waits for with the configured window."""
    return Setting(config.window).delay if config.estimate == 'refined' else 0


class Adaptation:
    """Does nothing while ``load.target_rate`` is 0; else feeds a :class:`LoadController` and does what it says.

    Args:
        detector: Whose setting it changes; touched by the computing thread alone.
        config: All parameters.
        inform: Logs a line.

    """

    def __init__(self, detector: Detector, config: NodeConfig, inform: Callable[[str], object]) -> None:
        self._detector = detector
        self._config = config
        self._inform = Complaints(inform)
        self._controller: LoadController | None = None
        self._arrivals = Arrivals()
        self._costs = Costs()
        self._untaken = 0
        self._clock: PairClock | None = None
        self._unclocked: Stage | None = None
        self.configure(config)

    # For other threads

    def arrived(self, moment: float) -> None:
        """Take note of an image that came at ``moment`` seconds of the monotonic clock."""
        self._arrivals.add(moment)

    @property
    def delay(self) -> int:
        """Frames that a result waits for, at present."""
        controller = self._controller
        return delay_of(self._config) if controller is None or self._zero_lag else controller.setting.delay

    @property
    def _zero_lag(self) -> bool:
        return self._config.estimate == 'zero_lag'

    def report(self) -> dict[str, str]:
        """Return setting, reason and figures as texts for a diagnostic status; none while the load is not adapted."""
        controller = self._controller
        if controller is None:
            return {}
        return {
            'load setting': self._described(controller.setting),
            'load reason': controller.reason,
            'target rate hz': f'{controller.target:.2f}',
            'camera rate hz': f'{self._arrivals.rate():.2f}',
            'utilisation %': f'{100 * controller.utilisation:.0f}',
        }

    @property
    def trouble(self) -> str:
        """What to say where even the smallest setting is too much; else empty."""
        controller = self._controller
        if controller is None or not controller.overloaded:
            return ''
        return (
            f'load.target_rate {controller.target:g} Hz cannot be kept even at the smallest setting '
            f'({self._described(controller.setting)}); lower the rate or size of the images, flow.height and '
            'flow.width, or height and width'
        )

    # For the computing thread

    @property
    def active(self) -> bool:
        """Whether there is a target rate."""
        return self._controller is not None

    def configure(self, config: NodeConfig) -> None:
        """Follow the target rate and the kind of estimate."""
        same_kind = config.estimate == self._config.estimate
        self._config = config
        target = config.load.target_rate
        if not target:
            self._stop()
        elif self._controller is None or not same_kind:
            self._start(config)
        else:
            self._controller.target = target

    def forget(self) -> None:
        """Forget the images that came, and what was measured half-way: there was or will be a pause."""
        self._arrivals.clear()
        if self._clock is not None:
            self._clock.take()

    def takes(self) -> bool:
        """Tell whether the next image is to be looked at."""
        controller = self._controller
        self._untaken += 1
        if controller is not None and self._untaken < controller.setting.take:
            return False
        self._untaken = 0
        return True

    def inferred(self) -> bool:
        """Tell whether masks were computed of the last image that was to be inferred."""
        return self._controller is None or self._detector.last_inferred

    def stepped(self, seconds: float) -> None:
        """Take note of how long decoding an image and the detector's step took together."""
        if self._clock is None:
            return
        pairs = self._clock.take()
        self._costs.frame(seconds - pairs)
        if self._detector.last_pairs:
            self._costs.batch(self._detector.last_pairs, pairs, half=self._detector.setting.half)

    def published(self, seconds: float) -> None:
        """Take note of how long refining and publishing a result took."""
        self._costs.result(seconds)

    def decide(self) -> None:
        """Change the detector's setting where the load asks for it."""
        controller = self._controller
        if controller is not None and controller.decide(time.monotonic()):
            self._detector.setting = controller.setting
            self._inform('load', f'load: {self._described(controller.setting)}; {controller.reason}')

    def _described(self, setting: Setting) -> str:
        height, width = self._detector.sizes[setting.half]
        return f'{setting}, {width}x{height}'

    def _start(self, config: NodeConfig) -> None:
        self._costs.forget()
        self._controller = LoadController(
            config.window,
            zero_lag=self._zero_lag,
            target=config.load.target_rate,
            max_gap=config.continuity.max_gap,
            arrivals=self._arrivals,
            costs=self._costs,
            half=True in self._detector.sizes,
        )
        self._detector.setting = self._controller.setting
        if self._clock is None:
            # Not above: PyTorch comes with it, and the node is to be there before that has been loaded.
            import torch

            on_gpu = self._detector.engine.device.type == 'cuda'
            self._clock = PairClock(torch.cuda.synchronize if on_gpu else None)
            self._unclocked = self._detector.stage
            self._detector.stage = self._clock

    def _stop(self) -> None:
        if self._controller is None:
            return
        self._controller = None
        self._detector.setting = Setting(self._config.window)
        if self._unclocked is not None:
            self._detector.stage = self._unclocked
        self._clock = self._unclocked = None
