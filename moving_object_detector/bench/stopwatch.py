"""Times of named stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Collects the times of stages, in seconds.

    Args:
        synchronise: Whether a stage ends only when the GPU's work does.

    """

    def __init__(self, synchronise: bool) -> None:
        self.times: dict[str, list[float]] = {}
        self.running = True
        """While it does not run, stages are neither timed nor waited for."""
        self._synchronise = synchronise

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside the context as one run of the stage ``name``."""
        if not self.running:
            yield
            return
        started = time.perf_counter()
        yield
        if self._synchronise:
            import torch

            torch.cuda.synchronize()
        self.times.setdefault(name, []).append(time.perf_counter() - started)

    def take(self) -> dict[str, list[float]]:
        """Return the times so far and forget them."""
        times, self.times = self.times, {}
        return times
