"""Keeps the detector at the largest setting with which the target rate is met."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from moving_object_detector.detection.load import LoadController, Schedule
from moving_object_detector.nodes.parameters import NodeConfig
from moving_object_detector.nodes.runtime import kind

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector

log = logging.getLogger(__name__)


class Adaptation:
    """Does nothing while ``load.target_rate`` is 0; else feeds a :class:`LoadController` and does what it says.

    The detector is touched by the computing thread alone.
    """

    def __init__(self, detector: Detector, config: NodeConfig) -> None:
        self._detector = detector
        self._config = config
        self._controller: LoadController | None = None
        self.configure(config)

    # For other threads

    def arrived(self, moment: float) -> None:
        """Take note of an image that came at ``moment`` seconds of the monotonic clock."""
        controller = self._controller
        if controller is not None:
            controller.arrived(moment)

    @property
    def delay(self) -> int:
        """Frames that a result waits for, at present."""
        if self._config.estimate == 'zero_lag':
            return 0
        controller = self._controller
        return (Schedule(self._config.window) if controller is None else controller.schedule).delay

    def report(self) -> dict[str, str]:
        """Return setting, reason and figures as texts for a diagnostic status; none while the load is not adapted."""
        controller = self._controller
        if controller is None:
            return {}
        return {
            'load setting': str(controller.schedule),
            'load reason': controller.reason,
            'target rate hz': f'{controller.target:.2f}',
            'camera rate hz': f'{controller.rate:.2f}',
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
            f'({controller.schedule}); lower the rate or size of the images, flow.height and flow.width, or height and '
            'width'
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
            if self._controller is not None:
                self._controller, self._detector.schedule = None, Schedule(config.window)
        elif self._controller is None or not same_kind:
            zero_lag = config.estimate == 'zero_lag'
            self._controller = LoadController(config.window, zero_lag=zero_lag, target=target)
            self._detector.schedule = self._controller.schedule
        else:
            self._controller.target = target

    def forget(self) -> None:
        """Forget the images that came: there was or will be a pause."""
        if self._controller is not None:
            self._controller.pause()

    def worked(self, seconds: float, pairs: int, masks: int, *, inferred: bool) -> None:
        """Take note of what an image took, and change the detector's setting where the load asks for it."""
        controller = self._controller
        if controller is None:
            return
        controller.worked(seconds, pairs, masks, inferred=inferred)
        if controller.decide(time.monotonic()):
            self._detector.schedule = controller.schedule
            log.info('load: %s; %s', controller.schedule, controller.reason, extra=kind('load'))
