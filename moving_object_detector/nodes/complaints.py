"""Saying what is wrong at once, but not thirty times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Complaints:
    """Passes each kind of complaint on at most once in ``interval`` seconds.

    Args:
        say: Logs one line.
        interval: Seconds.
        counted: Whether to add how many were held back since the last of the kind.
        now: Clock in seconds.

    """

    def __init__(
        self,
        say: Callable[[str], object],
        interval: float = 5.0,
        *,
        counted: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._interval = interval
        self._counted = counted
        self._now = now
        self._last: dict[str, float] = {}
        self._held_back: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, kind: str, text: str) -> None:
        """Say ``text`` unless one of the same kind was said within the interval; kinds must be few."""
        with self._lock:
            now = self._now()
            if kind in self._last and now - self._last[kind] < self._interval:
                self._held_back[kind] = self._held_back.get(kind, 0) + 1
                return
            self._last[kind] = now
            held_back = self._held_back.pop(kind, 0)
        self._say(f'{text} (and {held_back} more like it)' if held_back and self._counted else text)
