"""Common to frames of all sources: stamps, size limits, conversion of 16-bit samples to 8 bits, prefetching."""

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
"""Latest stamp that a ROS header can hold, nanoseconds."""
DEFAULT_FPS = 24.0


@dataclass(frozen=True)
class Frame:
    """One image, (H, W, 3) uint8 RGB, with its stamp (nanoseconds of the source's clock) and name."""

    image: NDArray[np.uint8]
    stamp: int
    name: str


class FrameSource(ABC):
    """Frames of a folder, a video or a bag; each iteration starts at the first.

    ``name`` is the path; ``fps`` is above zero; ``frame_count`` is None if only reading all frames tells (for a video,
    the container's claim); ``size`` is (height, width) of the first frame in pixels, None if not known yet.
    """

    name: str
    fps: float
    frame_count: int | None
    size: tuple[int, int] | None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, one in memory at a time; an ImageError concerns one frame, iteration can continue."""


def stamp_of(header: Any) -> int:
    """Return the stamp of a std_msgs/Header, nanoseconds."""
    return int(header.stamp.sec) * SECOND + int(header.stamp.nanosec)


def rate_of(stamps: Iterable[int]) -> float | None:
    """Return frames per second from the median step of stamps (nanoseconds, any order); None for fewer than two."""
    # Sorted, so that swapped neighbours do not look like double steps.
    ordered = sorted(set(stamps))
    steps = [after - before for before, after in pairwise(ordered)]
    # Rounded, because stamps are whole nanoseconds: 24 frames/s would become 24.000000096.
    return round(SECOND / median(steps), 6) if steps else None


def frame_stamp(index: int, fps: float) -> int:
    """Return the time of frame ``index`` in nanoseconds when frame 0 is at 0."""
    return round(index * SECOND / fps)


def ros_stamp_offset(first: int) -> int:
    """Return an offset for stamps that start at ``first``, so that none is 0, which in ROS means "no time"."""
    return SECOND if first == 0 else 0


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r'([0-9]+)', name)
    return tuple((1, int(part), part) if part.isdecimal() else (0, 0, part.casefold()) for part in parts)


Item = TypeVar('Item')


@contextmanager
def prefetch(items: Iterable[Item], depth: int = 8) -> Iterator[Iterator[Item]]:
    """Yield an iterator over ``items``, which a thread produces up to ``depth`` ahead; errors are passed on."""
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
"""Shortest side allowed, pixels."""
LARGEST_SIDE: Final = 4096
"""Default for the longest side allowed, pixels; larger images are refused before they are decoded."""

_MARGIN: Final = 1 / 8
"""Margin at either end, as a share of the first image's range."""
_LEAST_RANGE: Final = 256
"""Smallest range in levels, so that the noise of a uniform image is not amplified."""
_OUTSIDE: Final = 0.01
"""Share of samples outside the range from which the range grows."""


class SizeError(ImageError):
    """An image is too large or too small."""


def check_size(
    height: int, width: int, largest: int = LARGEST_SIDE, smallest: int = SMALLEST_SIDE, name: str = ''
) -> None:
    """Raise SizeError if an image is too small or too large, before its pixels are processed."""
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
    """Converts 16-bit samples to 8 bits by one linear scale for a whole stream, since flow compares brightness.

    The first image's 0.1 to 99.9 percentile range, plus an eighth of it as margin at either end, maps to 0 to 255. If
    a hundredth of a later image's samples are outside, the range grows to include them; it never shrinks.
    """

    def __init__(self) -> None:
        self.range: tuple[float, float] | None = None
        """Levels that map to 0 and 255; None before the first image."""

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Convert 16-bit samples (H, W) or (H, W, C) to 8 bits; 8-bit samples are returned unchanged."""
        if samples.dtype == np.uint8:
            return np.asarray(samples, np.uint8)
        self._adapt(samples)
        return np.asarray(self._table[samples], np.uint8)

    def _adapt(self, samples: NDArray[Any]) -> None:
        # Every fourth row and column suffices.
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
    """Resize an image (H, W) or (H, W, C) to (height, width): by area if both sides shrink, else linearly."""
    import cv2  # not at the top: modules that need only the sizes load faster

    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
