"""Conversion between arrays and ROS image messages; the node's counters and timings."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.media.messages import TYPES, encode_image


def read_message(kind: str, data: bytes) -> Any:
    """Deserialise a message of type ``kind`` from CDR; its arrays are views of ``data``. Raises ImageError.

    Uses rosbags, since rclpy silently skips messages that it cannot deserialise.
    """
    try:
        return TYPES.deserialize_cdr(memoryview(data), kind)
    except SerdeError as error:
        raise ImageError(
            f'message of {len(data)} bytes that does not deserialise ({foreign(error)}); do the definitions of {kind} '
            'differ between publisher and node?'
        ) from error


def _octets(data: NDArray[Any]) -> array[int]:
    # Humble's messages check each element of anything but an array.array: seconds for a large image.
    octets = array('B')
    octets.frombytes(data.data)
    return octets


def image_message(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Build a sensor_msgs/Image with a copy of the pixels, in the layout of ``encode_image`` (RGB for bgr8)."""
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
"""Number of latest timings kept."""
RECENT: Final = 5.0
"""Seconds over which rates and shares are reported."""
FEW: Final = 20
"""Images from which on a share is told."""


class Statistics:
    """Frame counters and the latest timings; thread-safe.

    processed: masks were computed; missed: processed, but no neighbour came, so there is no result; skipped: added to
    the window without masks, because a newer frame was waiting; dropped: discarded unread, because the queue was full;
    invalid: not decodable; repeated: same stamp as the previous frame; failed: unexpected error.
    """

    NAMES = ('received', 'processed', 'missed', 'skipped', 'dropped', 'invalid', 'repeated', 'failed', 'published')

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._times: deque[tuple[float, float, float]] = deque(maxlen=WINDOW)
        self._wanted: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
        """When a mask was computed for an image that should have one (True), or was not for lack of time (False)."""
        self._lock = threading.Lock()

    def count(self, name: str, number: int = 1) -> None:
        """Add to the counter ``frames name``."""
        with self._lock:
            self._counts[name] += number
            if name in ('processed', 'skipped', 'dropped'):
                self._wanted.extend([(time.monotonic(), name == 'processed')] * number)

    def masked_share(self, now: float) -> float:
        """Return the share of the last five seconds' images with a mask; 1 below twenty images."""
        with self._lock:
            recent = [masked for moment, masked in self._wanted if now - moment <= RECENT]
        return sum(recent) / len(recent) if len(recent) >= FEW else 1.0

    def time(self, processing: float, latency: float, finished: float) -> float:
        """Record one processed frame (seconds; ``finished`` is monotonic); return the time since the previous one."""
        with self._lock:
            cycle = finished - self._times[-1][2] if self._times else 0.0
            self._times.append((processing, latency, finished))
            return cycle

    def report(self, now: float) -> dict[str, str]:
        """Return all as texts for a diagnostic status; rates are over the last five seconds."""
        with self._lock:
            counts, times = self._counts.copy(), list(self._times)
        recent = [finished for *_, finished in times if now - finished <= RECENT]
        rate = (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0
        values = {f'frames {name}': str(counts[name]) for name in self.NAMES}
        values['frame rate hz'] = f'{rate:.2f}'
        for name, column in (('processing', 0), ('latency', 1)):
            seconds_of = [row[column] for row in times] or [0.0]
            shares = np.percentile(seconds_of, (50, 95, 99), method='inverted_cdf')
            for what, seconds in zip(('median', 'p95', 'p99'), shares, strict=True):
                values[f'{name} {what} ms'] = f'{1000 * seconds:.1f}'
        return values
