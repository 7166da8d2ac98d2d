"""Python's logging in the node's log, and saying what is wrong at once, but not thirty times a second."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from moving_object_detector.common.errors import foreign
from moving_object_detector.common.files import PACKAGE

LONGEST_INTERVAL: Final = 300.0
"""Seconds after which a trouble that lasts is said again."""


def kind(name: str, seconds: float = 5.0, *, counted: bool = True) -> dict[str, object]:
    """Return the ``extra`` of a record of which one of a kind is enough in so many seconds.

    Args:
        name: Of the kind; there must be few.
        seconds: Between the first two; twice as long between the next ones, up to :data:`LONGEST_INTERVAL`, until
            none has come for so many seconds.
        counted: Whether to add how many were held back since the last one.

    """
    return {'kind': (name, seconds, counted)}


@dataclass
class _Said:
    """When one of a kind was said last and may be said again, when the last one came, and how many were held back."""

    interval: float
    again: float
    came: float
    held_back: int = 0


class Throttle(logging.Filter):
    """Lets records with a :func:`kind` pass once in an interval, which doubles as long as they keep coming."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._kinds: dict[str, _Said] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to say it, with the number of those held back."""
        if not hasattr(record, 'kind'):
            return True
        name, seconds, counted = record.kind
        with self._lock:
            now = self._now()
            said = self._kinds.get(name)
            if said is None or now - said.came > seconds:
                interval, held_back = seconds, said.held_back if said else 0
            elif now < said.again:
                said.came, said.held_back = now, said.held_back + 1
                return False
            else:
                interval, held_back = min(2 * said.interval, LONGEST_INTERVAL), said.held_back
            self._kinds[name] = _Said(interval, now + interval, now)
        if held_back and counted:
            record.msg, record.args = f'{record.getMessage()} (and {held_back} more like it)', ()
        return True


class _Escaped(logging.Formatter):
    """Escapes what an exception says, line by line."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging gives it
        """Format a trace."""
        return '\n'.join(foreign(line, 200) for line in super().formatException(ei).splitlines())


class Bridge(logging.Handler):
    """Passes records on to a ROS logger; a line for each severity, since rclpy ties one to the place of the call."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self.logger = logger
        self.addFilter(Throttle())
        self.setFormatter(_Escaped())

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self.logger.error(text)
        elif record.levelno >= logging.WARNING:
            self.logger.warning(text)
        else:
            self.logger.info(text)


@contextmanager
def bridged(logger: Any) -> Iterator[Bridge]:
    """Pass on to a ROS logger, which may be changed later, what the package's modules say from information upwards."""
    source, handler = logging.getLogger(PACKAGE), Bridge(logger)
    level, propagate = source.level, source.propagate
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    source.propagate = False
    try:
        yield handler
    finally:
        source.removeHandler(handler)
        source.setLevel(level)
        source.propagate = propagate
