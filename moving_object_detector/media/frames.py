"""A source of frames: something to iterate over, as often as wanted, in flat memory, also ahead in a thread."""

from __future__ import annotations

import queue
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

SECOND = 1_000_000_000
LATEST = (2**31 - 1) * SECOND
"""Last time that a ROS header can have, nanoseconds."""
DEFAULT_FPS = 24.0


@dataclass(frozen=True)
class Frame:
    """One image, (H, W, 3) uint8 RGB, its time in nanoseconds of the source's clock, and what to call it."""

    image: NDArray[np.uint8]
    stamp: int
    name: str


class FrameSource(ABC):
    """Frames of a folder, a video or a bag; each iteration starts again at the first.

    ``name`` is its path, ``fps`` above zero, ``frame_count`` None where only reading all tells (a video's is what its
    container claims), ``size`` (height, width) of the first frame in pixels, None where it is not known yet.
    """

    name: str
    fps: float
    frame_count: int | None
    size: tuple[int, int] | None
    has_levels: ClassVar[bool] = True
    """Whether its images may have 16 bits."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in their order, one in memory at a time.

        After an ImageError, which is one frame's, the next frame can be asked for.
        """


def stamp_of(header: Any) -> int:
    """Return the stamp of a std_msgs/Header, nanoseconds."""
    return int(header.stamp.sec) * SECOND + int(header.stamp.nanosec)


def rate_of(stamps: Iterable[int]) -> float | None:
    """Return frames per second by the steps between stamps (nanoseconds, in any order); None of fewer than two."""
    # In order of time, so that swapped neighbours make no double steps.
    ordered = sorted(set(stamps))
    steps = [after - before for before, after in pairwise(ordered)]
    # Stamps are whole nanoseconds: 1/24 s in them is not 24 frames a second to the last digit.
    return round(SECOND / median(steps), 6) if steps else None


def frame_stamp(index: int, fps: float) -> int:
    """Return the time of frame ``index`` in nanoseconds when frame 0 is at 0."""
    return round(index * SECOND / fps)


def ros_stamp_offset(first: int) -> int:
    """Return what to add to stamps, of which this is the first, so that none is 0, which in ROS means "no time"."""
    return SECOND if first == 0 else 0


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r'([0-9]+)', name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part.casefold()) for part in parts)


Item = TypeVar('Item')


@contextmanager
def prefetch(items: Iterable[Item], depth: int = 8) -> Iterator[Iterator[Item]]:
    """Give an iterator over ``items``, which a thread produces, ``depth`` at most before they are taken.

    An error in ``items`` is raised where the item would have come. Leaving the context ends the thread.
    """
    ready: queue.Queue[tuple[Item] | Exception | None] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(entry: tuple[Item] | Exception | None) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return

    def produce() -> None:
        end: Exception | None = None
        try:
            for item in items:
                offer((item,))
                if stopped.is_set():
                    return
        except Exception as error:  # noqa: BLE001 (handed to the consumer, which raises it)
            end = error
        offer(end)

    def consume() -> Iterator[Item]:
        while isinstance(entry := ready.get(), tuple):
            yield entry[0]
        if entry is not None:
            raise entry

    thread = threading.Thread(target=produce, name='prefetch', daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()
