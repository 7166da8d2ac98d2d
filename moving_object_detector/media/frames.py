"""What holds for every frame, wherever it comes from: its time, its least and largest size, how 16 bits become 8."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError

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

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, one in memory at a time; after an ImageError, which is one frame's, comes the next."""


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
    """Give an iterator over ``items``, errors too, which a thread produces, ``depth`` at most before they are taken."""
    iterator, end = iter(items), object()
    thread = ThreadPoolExecutor(1, 'prefetch')

    def consume() -> Iterator[Item]:
        ahead = deque(thread.submit(next, iterator, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(thread.submit(next, iterator, end))
            yield cast('Item', item)

    try:
        yield consume()
    finally:
        thread.shutdown(cancel_futures=True)


# Pixels

SMALLEST_SIDE: Final = 16
"""Pixels: images with a shorter side are refused."""
LARGEST_SIDE: Final = 4096
"""Pixels: images with a longer side are refused before they are decoded, unless another limit is given."""

_MARGIN: Final = 1 / 8
"""Of the first image's range, left free at either end."""
_LEAST_RANGE: Final = 256
"""Levels: of an image that is all one grey, noise is not to become a picture."""
_OUTSIDE: Final = 0.01
"""Share of an image beyond the range from which the range grows."""


class SizeError(ImageError):
    """An image is too large or too small."""


def check_size(
    height: int, width: int, largest: int = LARGEST_SIDE, smallest: int = SMALLEST_SIDE, name: str = ''
) -> None:
    """Refuse an image by its size, before anything is done with its pixels; raises SizeError."""
    if min(height, width) < smallest:
        raise SizeError(
            f'{name}size {width}x{height} is too small; both sides must be at least {smallest} pixels, '
            'check the camera driver'
        )
    if max(height, width) > largest:
        raise SizeError(
            f'{name}size {width}x{height} is too large; the longest side allowed is {largest}: scale the images down '
            'before they are published or stored, or raise the parameter input.max_side of the node'
        )


class SampleScale:
    """How samples of 16 bits become 8: one linear scale for a whole stream, since flow compares brightness.

    The first image's range, without the extreme thousandths at either end and with an eighth of it as margin, becomes
    0 to 255. Where a hundredth of a later image is outside, the range grows to hold it, and never shrinks.
    """

    def __init__(self) -> None:
        self.range: tuple[float, float] | None = None
        """Levels that are shown as 0 and 255; None before the first image."""

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Return 16-bit samples (H, W) or (H, W, C) as 8 bits; 8-bit ones as they are."""
        if samples.dtype == np.uint8:
            return np.asarray(samples, np.uint8)
        self._look(samples)
        return np.asarray(self._table[samples], np.uint8)

    def _look(self, samples: NDArray[Any]) -> None:
        # Every fourth row and column tells the range well enough.
        some = samples[::4, ::4] if min(samples.shape[:2]) >= 64 else samples
        if self.range is not None:
            black, white = self.range
            if np.mean((some < black) | (some > white)) < _OUTSIDE:
                return
        low, high = (float(level) for level in np.percentile(some, (0.1, 99.9)))
        if self.range is not None:
            low, high = min(low, self.range[0]), max(high, self.range[1])
        margin = max(_MARGIN * (high - low), (_LEAST_RANGE - (high - low)) / 2)
        self.range = black, white = max(low - margin, 0.0), min(high + margin, 65535.0)
        scaled = (np.arange(65536) - black) * 255 / (white - black)
        self._table = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize an image (H, W) or (H, W, C) to (height, width): by area where both sides shrink, else linearly."""
    import cv2  # the sizes above are wanted where it is not loaded

    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
