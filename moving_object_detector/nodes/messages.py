"""Images and ROS messages into each other; what the node counts and times."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.media.messages import TYPES, encode_image


def read_message(kind: str, data: bytes) -> Any:
    """Return what a message of a ``kind`` holds in CDR, its arrays views of ``data``; ImageError where nothing can be.

    By rosbags, since rclpy says nothing of a message that it cannot deserialise, and takes the next one instead.
    """
    try:
        return TYPES.deserialize_cdr(memoryview(data), kind)
    except SerdeError as error:
        raise ImageError(
            f'message of {len(data)} bytes that does not deserialise ({foreign(error)}); is it published from other '
            f'definitions than those of {kind} here?'
        ) from error


def _octets(data: NDArray[Any]) -> array[int]:
    # Of anything but an array.array Humble's messages check every single element: seconds for a large image.
    octets = array('B')
    octets.frombytes(data.data)
    return octets


def image_message(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Build a sensor_msgs/Image with its own copy of pixels, given as ``encode_image`` takes them (RGB for bgr8)."""
    image = encode_image(pixels, encoding)
    message = Image(header=header, height=image.height, width=image.width, encoding=encoding, step=image.step)
    message.data = _octets(image.data)
    return message


def compressed_message(data: NDArray[np.uint8], header: Header) -> CompressedImage:
    """Build a sensor_msgs/CompressedImage from the bytes of a JPEG (flat uint8)."""
    message = CompressedImage(header=header, format='jpeg')
    message.data = _octets(data)
    return message


WINDOW = 300
"""Timings that are remembered."""


class Statistics:
    """Counts of frames, and the last timings; used by several threads.

    processed: masks were computed; missed: of these, no neighbour came, so there is no result; skipped: entered the
    window without masks, because a newer one had come; dropped: never looked at, because the queue was full; invalid:
    could not be decoded; repeated: had the stamp of the one before; failed: an unexpected error.
    """

    NAMES = ('received', 'processed', 'missed', 'skipped', 'dropped', 'invalid', 'repeated', 'failed', 'published')

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._times: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._lock = threading.Lock()

    def count(self, name: str, number: int = 1) -> None:
        """Add to the count ``frames name``."""
        with self._lock:
            self._counts[name] += number

    def time(self, processing: float, latency: float, finished: float) -> float:
        """Record one processed frame (seconds; ``finished`` is monotonic); return how long after the one before."""
        with self._lock:
            cycle = finished - self._times[-1][2] if self._times else 0.0
            self._times.append((processing, latency, finished))
            return cycle

    def report(self, now: float) -> dict[str, str]:
        """Return all as texts for a diagnostic status; rates are over the last five seconds."""
        with self._lock:
            counts, times = self._counts.copy(), list(self._times)
        recent = [finished for *_, finished in times if now - finished <= 5.0]
        rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        values = {f'frames {name}': str(counts[name]) for name in self.NAMES}
        values['frame rate hz'] = f'{rate:.2f}'
        for name, column in (('processing', 0), ('latency', 1)):
            seconds_of = [row[column] for row in times] or [0.0]
            shares = np.percentile(seconds_of, (50, 95, 99), method='inverted_cdf')
            for what, seconds in zip(('median', 'p95', 'p99'), shares, strict=True):
                values[f'{name} {what} ms'] = f'{1000 * seconds:.1f}'
        return values
