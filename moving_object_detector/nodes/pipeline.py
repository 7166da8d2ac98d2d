"""The computing thread: image messages in, results out."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from moving_object_detector.datasets.messages import decode_compressed, decode_image
from moving_object_detector.detection.continuity import Step
from moving_object_detector.detection.detector import SMALLEST_SIDE, Detector
from moving_object_detector.detection.result import Result
from moving_object_detector.errors import ImageError
from moving_object_detector.nodes.complaints import Complaints
from moving_object_detector.nodes.config import NodeConfig
from moving_object_detector.nodes.mailbox import Letter, Mailbox, Order
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.statistics import Statistics


def header_stamp(header: Any) -> int:
    """Return a header's stamp in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


class Pipeline:
    """Takes images out of a mailbox, runs the detector on the newest and publishes what it says.

    Nothing that arrives can end the thread: an image that cannot be used is complained about and
    counted, an unexpected failure is reported with its trace and the detector starts anew.

    Args:
        detector: Used by this thread alone.
        outputs: Where results go.
        statistics: Where counts and timings go.
        topic: Name of the image topic, for messages.
        warn: Logs a warning.
        fail: Logs an error.
        now: The node's clock in nanoseconds, for images without a stamp.

    """

    def __init__(
        self,
        detector: Detector,
        outputs: Outputs,
        statistics: Statistics,
        config: NodeConfig,
        topic: str,
        warn: Callable[[str], object],
        fail: Callable[[str], object],
        now: Callable[[], int],
    ) -> None:
        self.mailbox = Mailbox(config.input.queue)
        self._config = config
        self._detector = detector
        self._outputs = outputs
        self._statistics = statistics
        self._topic = topic
        self._complain = Complaints(warn)
        self._fail = Complaints(fail)
        self._now = now
        self._encoding: str | None = None
        self._thread = threading.Thread(target=self._run, name='detector', daemon=True)
        self._thread.start()

    def configure(self, config: NodeConfig) -> None:
        """Use the options of ``config`` that can change at run time, from the next frame on."""
        self._config = config
        self._detector.config = config

    def close(self) -> None:
        """End the thread after the frame it is at."""
        self.mailbox.close()
        self._thread.join()

    def receive(self, message: Any) -> None:
        """Take an image message; returns at once."""
        self._statistics.count('received')
        if not self.mailbox.put(Letter(message, time.monotonic())):
            self._statistics.count('dropped')
            self._complain(
                'dropped',
                f'{self._topic}: images come faster than they can be entered, the oldest is dropped; '
                'lower the camera rate, window.past or window.future',
            )

    def _run(self) -> None:
        while (work := self.mailbox.take()) is not None:
            orders, letters = work
            try:
                for order in orders:
                    self._obey(order)
                self._process(letters)
            except Exception as error:  # the thread must outlive whatever one frame does
                trace = traceback.format_exc()
                self._fail(
                    type(error).__name__,
                    f'{self._topic}: detection failed and starts anew; please report this:\n{trace}',
                )
                self._detector.reset()

    def _obey(self, order: Order) -> None:
        if order is Order.FLUSH:
            self._publish(self._detector.flush())
        else:
            self._detector.reset()

    def _process(self, letters: list[Letter]) -> None:
        """Enter all images into the window and compute masks of the newest."""
        wanted = self._outputs.wanted()
        for position, letter in enumerate(letters):
            newest = position == len(letters) - 1
            started = time.monotonic()
            results = self._step(letter, infer=newest and wanted)
            if results is None:
                continue
            self._publish(results)
            if not newest:
                self._statistics.count('skipped')
            elif wanted:
                finished = time.monotonic()
                self._statistics.count('processed')
                cycle = self._statistics.time(finished - started, finished - letter.arrival, finished)
                self._outputs.publish_timings(finished - started, finished - letter.arrival, cycle)

    def _step(self, letter: Letter, infer: bool) -> list[Result] | None:
        """Run one image through the detector; None for an image that is not used."""
        message = letter.message
        try:
            image = self._decode(message)
        except ImageError as error:
            self._statistics.count('invalid')
            self._complain(f'invalid {str(error)[:24]}', f'{self._topic}: image ignored: {error}')
            return None
        stamp = header_stamp(message.header)
        if stamp == 0:
            self._complain(
                'stamp', f'{self._topic}: images have no stamp, so their time of arrival is used; set it in the driver'
            )
            stamp = self._now()
        results = self._detector.step(image, stamp, infer=infer, tag=message.header)
        step = self._detector.last_step
        if step is Step.REPEATS:
            self._statistics.count('repeated')
            self._complain(
                'repeats', f'{self._topic}: image ignored: it {step.value}; is the topic published twice, or the clock still?'
            )
            return None
        if step.starts_anew:
            self._complain(step.name, f'{self._topic}: detection starts anew: the image {step.value}')
        return results

    def _decode(self, message: Any) -> Any:
        if hasattr(message, 'encoding'):
            # Checked before the pixels are touched, so that an absurd size costs nothing.
            self._check_size(message.height, message.width)
            image = decode_image(message)
            encoding = message.encoding
        else:
            image = decode_compressed(message)
            self._check_size(*image.shape[:2])
            encoding = message.format
        if self._encoding not in (None, encoding):
            self._publish(self._detector.flush())
            self._complain(
                'encoding',
                f'{self._topic}: detection starts anew: the encoding changed from {self._encoding} to {encoding}',
            )
        self._encoding = encoding
        return image

    def _check_size(self, height: int, width: int) -> None:
        if 0 < min(height, width) < SMALLEST_SIDE:
            raise ImageError(f'it is {width}x{height}, but both sides must be at least {SMALLEST_SIDE} pixels')
        longest = self._config.input.max_side
        if max(height, width) > longest:
            raise ImageError(
                f'it is {width}x{height}, but the longest side allowed is {longest}; scale it down before it is '
                'published, or raise the parameter input.max_side'
            )

    def _publish(self, results: list[Result]) -> None:
        for result in results:
            if result.estimate == self._config.estimate:
                self._outputs.publish(result, result.tag)  # type: ignore[arg-type]
                self._statistics.count('published')
