"""What the node counts and times, and its state on /diagnostics."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from statistics import median

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

WINDOW = 300
"""Timings that are remembered."""


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed; 0 without values."""
    # Whole numbers: 0.07 * 100 is more than 7.
    rank = -(-percent * len(values) // 100)
    return sorted(values)[max(rank, 1) - 1] if values else 0.0


class Statistics:
    """Counts of frames, and the last timings; used by several threads.

    received: images that arrived; processed: those that masks were computed of; missed: of these, those without a
    result, since no neighbour came; skipped: entered the window without masks, because a newer one had come or the
    load setting has masks of fewer frames; dropped: never looked at, because the queue was full; invalid: could not be
    decoded; repeated: had the stamp of the one before; failed: ended in an unexpected error; published: results sent
    out.
    """

    NAMES = ('received', 'processed', 'missed', 'skipped', 'dropped', 'invalid', 'repeated', 'failed', 'published')

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._processing: deque[float] = deque(maxlen=WINDOW)
        self._latency: deque[float] = deque(maxlen=WINDOW)
        self._finished: deque[float] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def count(self, name: str, number: int = 1) -> None:
        """Add to the count ``frames name``."""
        with self._lock:
            self._counts[name] += number

    def time(self, processing: float, latency: float, finished: float) -> float:
        """Record one processed frame (seconds; ``finished`` is monotonic); return how long after the one before."""
        with self._lock:
            cycle = finished - self._finished[-1] if self._finished else 0.0
            self._processing.append(processing)
            self._latency.append(latency)
            self._finished.append(finished)
            return cycle

    def report(self, now: float) -> dict[str, str]:
        """Return all as texts for a diagnostic status; rates are over the last five seconds."""
        with self._lock:
            counts = dict(self._counts)
            processing, latency = list(self._processing), list(self._latency)
            recent = [moment for moment in self._finished if now - moment <= 5.0]
        rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        values = {f'frames {name}': str(counts.get(name, 0)) for name in self.NAMES}
        values['frame rate hz'] = f'{rate:.2f}'
        for name, times in (('processing', processing), ('latency', latency)):
            milliseconds = [1000 * seconds for seconds in times]
            values[f'{name} median ms'] = f'{median(milliseconds) if milliseconds else 0.0:.1f}'
            values[f'{name} p95 ms'] = f'{percentile(milliseconds, 95):.1f}'
            values[f'{name} p99 ms'] = f'{percentile(milliseconds, 99):.1f}'
        return values


def diagnostics(name: str, level: bytes, message: str, values: Mapping[str, str], stamp: Time) -> DiagnosticArray:
    """Build the message about the node of this full name: level and state in one line, and values."""
    status = DiagnosticStatus(name=f'{name}: detection', hardware_id=name, level=level, message=message)
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticArray(header=Header(stamp=stamp), status=[status])
