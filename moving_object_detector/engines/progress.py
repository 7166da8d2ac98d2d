"""Signs of life of a build that takes long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

INTERVAL: Final = 15.0
"""Seconds from one line to the next."""
_log = logging.getLogger(__name__)


@contextmanager
def building(what: str, library: str, interval: float = INTERVAL) -> Iterator[None]:
    """Log that an engine is built, that it still is, and how long it took; that last only if it succeeded.

    What takes longer than ``interval`` is a warning, so that it shows where nobody has set up logging.
    """
    started = time.monotonic()
    over = threading.Event()

    def report() -> None:
        while not over.wait(interval):
            _log.warning('%s: %s is still building, %.0f s so far', what, library, time.monotonic() - started)

    reporter = threading.Thread(target=report, name='progress', daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()
    took = time.monotonic() - started
    _log.log(logging.WARNING if took > interval else logging.INFO, '%s: built in %.1f s', what, took)
