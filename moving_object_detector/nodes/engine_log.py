"""What the core says by Python's logging, in the node's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class NodeLog(logging.Handler):
    """Passes records on to a ROS logger.

    Args:
        logger: As a node's ``get_logger()`` returns it.

    """

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; a line for each severity, since rclpy ties a severity to the place of the call."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


@contextmanager
def core_log(logger: Any) -> Iterator[None]:
    """Pass on what the package's modules say while the context lasts, from information upwards."""
    source, handler = logging.getLogger('moving_object_detector'), NodeLog(logger)
    level, propagate = source.level, source.propagate
    source.addHandler(handler)
    source.setLevel(logging.INFO)
    source.propagate = False
    try:
        yield
    finally:
        source.removeHandler(handler)
        source.setLevel(level)
        source.propagate = propagate
