"""Following a detector from outside, by what it says of itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from statistics import median

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.children import Child

_SETTLED_SECONDS = 6.0
"""After so long without a new result there comes no more: above the detector's own ``input.timeout``."""
_REPORT_SECONDS = 5.0


class Watcher:
    """What the detector says of itself on ``/diagnostics``."""

    def __init__(self, node: Node, stop: threading.Event) -> None:
        self.values: dict[str, str] = {}
        self.refusal = ''
        self._node = node
        self._stop = stop
        self._rates: list[float] = []
        self._subscription = node.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10)

    def _on_status(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            if 'frames received' in values:
                if values['frames received'] != self.values.get('frames received'):
                    self._rates.append(float(values['frame rate hz']))
                self.values = values
                self.refusal = status.message if status.level == status.ERROR else ''

    def count(self, name: str) -> int:
        """Return the last count ``frames NAME``."""
        return int(self.values.get(f'frames {name}', '0'))

    def subscribed(self, *topics: str) -> bool:
        """Return whether somebody subscribes to every one of the topics."""
        return all(self._node.count_subscribers(topic) > 0 for topic in topics)

    def wait(self, done: Callable[[], bool], what: str, children: Sequence[Child], limit: float) -> None:
        """Wait until ``done``, as long as all ``children`` run.

        Raises:
            UserError: A child ended, the detector refused to configure, or ``limit`` seconds have passed.
            KeyboardInterrupt: Ctrl-C was pressed.

        """
        begin = time.monotonic()
        while not done():
            for child in children:
                child.check_alive()
            if self.refusal:
                raise UserError(f'the detector is {self.refusal}')
            if time.monotonic() - begin > limit:
                raise UserError(f'{what} did not happen within {limit:g} s; see the logs')
            if self._stop.wait(0.1):
                raise KeyboardInterrupt

    @property
    def frame_rate(self) -> float:
        """Frames per second that were detected, the median of what was said while images came; 0 if none."""
        rates = [rate for rate in self._rates if rate > 0]
        return median(rates) if rates else 0.0

    def dropped(self, played: int) -> int:
        """Return how many of ``played`` frames never arrived, or gave way to newer ones before they were looked at."""
        return self.count('dropped') + max(played - self.count('received'), 0)

    def summary(self, played: int) -> str:
        """Return the run of ``played`` frames in two lines: how it went, and what the machine has time for."""
        each = float(self.values.get('processing median ms', '0'))
        could = f'up to {1000 / each:.1f} frames/s: {each:.0f} ms each, median' if each else 'no frame was computed'
        return (
            f'frames {played}, masks {self.count("published")}, dropped {self.dropped(played)}, '
            f'skipped {self.count("skipped")}, latency median {self.values.get("latency median ms", "-")} ms, '
            f'p95 {self.values.get("latency p95 ms", "-")} ms, '
            f'window delay {self.values.get("window delay frames", "-")} frames\n'
            f'this machine: {could} (they were played at {self.frame_rate:.1f} frames/s)'
        )


class Settled:
    """Tells when the detector has published its last result, and says every few seconds how far it is."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._published = -1
        self._changed = self._reported = time.monotonic()

    def __call__(self, *, playing: bool) -> bool:
        """Return whether the player has ended and no result has come for long enough since."""
        now = time.monotonic()
        published, received = self._watcher.count('published'), self._watcher.count('received')
        if playing or published != self._published:
            self._published, self._changed = published, now
        if now - self._reported > _REPORT_SECONDS:
            self._reported = now
            print(f'  {received} frames received, {published} masks published', flush=True)
        return now - self._changed > _SETTLED_SECONDS
