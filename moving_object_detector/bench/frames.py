"""End to end: from an image message to a mask message, by the detector and by the naive pipeline."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.bench.naive import NaivePipeline
from moving_object_detector.bench.task import Task
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.engines.create import choose_device
from moving_object_detector.media.messages import decode_image, encode_image

INTERVAL = 33_333_333
"""Nanoseconds from one frame to the next."""


class Messages:
    """Makes sensor_msgs/Image messages, without ROS."""

    def __init__(self) -> None:
        types = get_typestore(Stores.ROS2_HUMBLE).types
        self._image = types['sensor_msgs/msg/Image']
        self._header = types['std_msgs/msg/Header'](
            stamp=types['builtin_interfaces/msg/Time'](sec=0, nanosec=0), frame_id='camera'
        )

    def __call__(self, pixels: NDArray[np.uint8], encoding: str) -> Any:
        """Return a message with these pixels, (H, W, 3) RGB or (H, W)."""
        return self._image(header=self._header, is_bigendian=0, **encode_image(pixels, encoding)._asdict())


def there_and_back(images: NDArray[np.uint8]) -> Iterator[Any]:
    """Yield messages of frames forward and backward without end, so that no two neighbours are far apart."""
    message = Messages()
    forward = [message(np.asarray(image), 'bgr8') for image in images]
    return cycle(forward + forward[-2:0:-1])


class FrameTask(Task):
    """The detector as the node runs it.

    Args:
        config: Its options.
        images: uint8 (N, H, W, 3) RGB.

    """

    def __init__(self, config: DetectorConfig, images: NDArray[np.uint8]) -> None:
        super().__init__(choose_device(config.device))
        self.mask: NDArray[np.uint8] | None = None
        """The last one."""
        self._detector = build_detector(config, self.watch)
        self._incoming = there_and_back(images)
        self._message = Messages()
        self._stamp = 0
        window = config.window
        # Until the window is full, frames bring fewer pairs than they will.
        self.fill = max(window.past, window.future) * window.stride
        size = self._detector.size
        self.facts = {
            'engine': self._detector.engine.name,
            'flow': self._detector.flow.name,
            'size': size,
            'pairs': window.past + window.future,
            'window': f'-{window.past}..+{window.future}',
        }

    def call(self) -> None:
        """Take the next message, and turn the mask that is complete into one."""
        with self.watch('decode'):
            image = decode_image(next(self._incoming))
        self._stamp += INTERVAL
        for result in self._detector.step(image, self._stamp):
            if result.estimate == 'refined':
                with self.watch('refinement and regions'):
                    self.mask = result.mask
                with self.watch('encode'):
                    self._message(self.mask, 'mono8')


class NaiveTask(Task):
    """The same by :class:`~moving_object_detector.bench.naive.NaivePipeline`.

    Args:
        config: The detector's options.
        images: uint8 (N, H, W, 3) RGB.

    """

    def __init__(self, config: DetectorConfig, images: NDArray[np.uint8]) -> None:
        super().__init__(choose_device(config.device))
        if config.threads:
            torch.set_num_threads(config.threads)
        self.warm_up = 1
        self.mask: NDArray[np.uint8] | None = None
        """The last one."""
        self._pipeline = NaivePipeline(config)
        self._incoming = there_and_back(images)
        self._message = Messages()
        window = config.window
        self._ahead = window.future * window.stride
        kept = window.past * window.stride + 1 + self._ahead
        first = [decode_image(next(self._incoming)) for _ in range(kept - 1)]
        self._images: deque[NDArray[np.uint8]] = deque(first, maxlen=kept)
        self.facts = {
            'engine': f'naive, eager float32 on {self.device}',
            'pairs': window.past + window.future,
            'window': f'-{window.past}..+{window.future}',
        }

    def call(self) -> None:
        """Take the next message and compute the mask of the frame whose neighbours are all there."""
        self._images.append(decode_image(next(self._incoming)))
        self.mask = self._pipeline.mask(self._images, len(self._images) - 1 - self._ahead)
        self._message(self.mask, 'mono8')
