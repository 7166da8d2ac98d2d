"""The computing thread: image messages in, results out."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.detection.continuity import Step
from moving_object_detector.media.pixels import SampleScale
from moving_object_detector.nodes.adaptation import Adaptation
from moving_object_detector.nodes.complaints import Complaints
from moving_object_detector.nodes.config import NodeConfig
from moving_object_detector.nodes.intake import ADVICE, decode, header_stamp, kind_of, message_encoding
from moving_object_detector.nodes.mailbox import Letter, Mailbox, Order
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.statistics import Statistics

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector
    from moving_object_detector.detection.result import Result


class Pipeline:
    """Takes images out of a mailbox, runs the detector on the newest and publishes what it says.

    Nothing that arrives can end the thread: an image that cannot be used is complained about and
    counted, an unexpected failure is reported with its trace and the detector starts anew.

    Args:
        detector: Used by this thread alone.
        outputs: Where results go.
        statistics: Where counts and timings go.
        config: All parameters.
        topic: Name of the image topic, for messages.
        warn: Logs a warning.
        fail: Logs an error.
        now: The node's clock in nanoseconds, for images without a stamp.
        inform: Logs a line.

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
        inform: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.trouble = ''
        """What was wrong with the last image; empty when it was in order."""
        self.load = Adaptation(detector, config, inform)
        """Keeps up with the target rate."""
        self._mailbox = Mailbox(config.input.queue)
        self._config = config
        self._detector = detector
        self._outputs = outputs
        self._statistics = statistics
        self.topic = topic
        """Name of the image topic, for messages; may be changed."""
        self._warn = Complaints(warn)
        self._fail = Complaints(fail)
        self._now = now
        self._encoding: str | None = None
        self._stamped: bool | None = None
        self._scale = self._new_scale()
        self._missed = 0
        self._newest = 0
        self._thread = threading.Thread(target=self._run, name='detector', daemon=True)
        self._thread.start()

    # For other threads; all return at once but close.

    def receive(self, message: Any) -> None:
        """Take an image message."""
        self._statistics.count('received')
        arrival = time.monotonic()
        self.load.arrived(arrival)
        dropped = self._mailbox.put(Letter(message, arrival, self._now()))
        if dropped:
            self._statistics.count('dropped', dropped)
            self._warn(
                'dropped',
                f'{self.topic}: images come faster than they can be entered, the oldest are dropped; lower the '
                "camera's rate or size, or the parameters window.past, window.future, flow.height and flow.width",
            )

    def configure(self, config: NodeConfig) -> None:
        """Use the options of ``config`` that can change at run time, from the next image on."""
        self._mailbox.order(partial(self._configure, config))

    def flush(self) -> None:
        """Publish the frames that still wait for later ones."""
        self._mailbox.order(self._finish)

    def reset(self) -> None:
        """Forget all frames, also those that have not been looked at."""
        self._mailbox.order(self._reset, discard=True)

    def close(self) -> None:
        """End the thread after the frame it is at."""
        self._mailbox.close()
        self._thread.join()

    # The computing thread

    def _run(self) -> None:
        while (work := self._mailbox.take()) is not None:
            letters, order = work
            self._attempt(partial(self._process, letters))
            if order is not None:
                self._attempt(order)

    def _attempt(self, action: Order) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the thread must outlive whatever one frame does
            self._statistics.count('failed')
            self.trouble = f'detection failed: {type(error).__name__}: {foreign(error)}'
            trace = '\n'.join(foreign(line, 200) for line in traceback.format_exc().splitlines())
            self._fail(
                type(error).__name__, f'{self.topic}: detection failed and starts anew; please report this:\n{trace}'
            )
            self._reset()

    def _configure(self, config: NodeConfig) -> None:
        if config.estimate != self._config.estimate:
            # Else a frame in the window would come out twice.
            self._flush()
        self._config = config
        self._detector.config = config
        self.load.configure(config)

    def _flush(self) -> None:
        self._publish(self._detector.flush())

    def _finish(self) -> None:
        self._stamped = None
        self.load.forget()
        self._flush()

    def _new_scale(self) -> SampleScale:
        return SampleScale(self._config.input.black, self._config.input.white)

    def _reset(self) -> None:
        self._encoding = self._stamped = None
        self._scale = self._new_scale()
        self.load.forget()
        self._detector.reset()

    def _process(self, letters: deque[Letter]) -> None:
        """Enter all images into the window and compute masks of the newest."""
        wanted = self._outputs.wanted()
        letters = self._taken(letters)
        while letters and not self._mailbox.closed:
            # Taken out, so that its memory is free when the next one is decoded.
            letter = letters.popleft()
            newest = not letters
            started = time.monotonic()
            results = self._step(letter, infer=newest and wanted)
            if results is None:
                continue
            self.load.stepped(time.monotonic() - started)
            self._publish(results)
            if wanted and not (newest and self.load.inferred()):
                self._statistics.count('skipped')
            elif wanted:
                finished = time.monotonic()
                self._statistics.count('processed')
                cycle = self._statistics.time(finished - started, finished - letter.arrival, finished)
                self._outputs.publish_timings(finished - started, finished - letter.arrival, cycle)
                self.load.decide()

    def _taken(self, letters: deque[Letter]) -> deque[Letter]:
        taken = deque(letter for letter in letters if self.load.takes())
        if len(taken) < len(letters):
            self._statistics.count('dropped', len(letters) - len(taken))
        return taken

    def _step(self, letter: Letter, infer: bool) -> list[Result] | None:
        """Run one image through the detector; None for an image that is not used."""
        message = letter.message
        encoding = message_encoding(message)
        scale = self._scale if self._encoding in {None, encoding} else self._new_scale()
        try:
            image = decode(message, self._config.input.max_side, scale)
        except ImageError as error:
            self._ignore('invalid', kind_of(error), str(error))
            return None
        trouble = self._follow_encoding(encoding)
        self._scale = scale
        stamp = self._stamp(letter)
        if stamp is None:
            self._ignore('invalid', 'no stamp', 'it has no stamp, but those before it have; set it in the driver')
            return None
        results = self._detector.step(image, stamp, infer=infer, tag=message.header)
        step = self._detector.last_step
        if step is Step.REPEATS:
            self._ignore('repeated', step.name, f'it {step.value}; {ADVICE[step]}')
            return None
        if step.starts_anew:
            trouble = f'{self.topic}: detection starts anew: the image {step.value}; {ADVICE[step]}'
            self._warn(step.name, trouble)
        else:
            # Else the results are those of the stream that ended.
            self._newest = stamp
        self.trouble = trouble
        return results

    def _stamp(self, letter: Letter) -> int | None:
        """Return the image's time on the stream's one clock: its stamps, or the arrivals where it has none.

        A stream that begins without stamps starts anew with its first one (a simulation's clock may come late); in one
        that has stamps an image without is of no use: None.
        """
        stamp = header_stamp(letter.message.header)
        if stamp == 0 and self._stamped:
            return None
        if stamp == 0:
            self._warn(
                'stamp', f'{self.topic}: images have no stamp, so their time of arrival is used; set it in the driver'
            )
        elif self._stamped is False:
            self._flush()
        self._stamped = stamp != 0
        return stamp or letter.stamp

    def _ignore(self, count: str, kind: str, reason: str) -> None:
        self._statistics.count(count)
        self.trouble = f'{self.topic}: image ignored: {foreign(reason, 500)}'
        self._warn(kind, self.trouble)

    def _follow_encoding(self, encoding: str) -> str:
        """Start anew where the encoding changes; return what there is to say about it."""
        last, self._encoding = self._encoding, encoding
        if last in (None, encoding):
            return ''
        self._flush()
        change = f'the encoding changed from {last} to {encoding}; do two cameras publish here?'
        trouble = f'{self.topic}: detection starts anew: {change}'
        self._warn('encoding', trouble)
        return trouble

    def _publish(self, results: list[Result]) -> None:
        missed, self._missed = self._detector.missed - self._missed, self._detector.missed
        if missed:
            self._statistics.count('skipped', missed)
            self._statistics.count('processed', -missed)
        for result in results:
            started = time.monotonic()
            if result.estimate == self._config.estimate and self._send(result):
                self._statistics.count('published')
                if self.load.active:
                    self.load.published(time.monotonic() - started)
                    self._outputs.publish_window_delay((self._newest - result.stamp) / 1e9)

    def _send(self, result: Result) -> bool:
        """Publish a result; return whether anybody listens."""
        from moving_object_detector.detection.result import NotFiniteError

        try:
            return self._outputs.publish(result, result.tag)
        except NotFiniteError as error:
            self._statistics.count('failed')
            self.trouble = f'no result is published: {error}'
            self._fail('not finite', f'{self.topic}: {self.trouble}')
            return False
