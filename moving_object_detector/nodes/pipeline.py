"""The worker threads between the node's subscriptions and publishers: image messages in, results out."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moving_object_detector.common.errors import ImageError, NotFiniteError, foreign
from moving_object_detector.detection.continuity import Step
from moving_object_detector.detection.load import LoadController
from moving_object_detector.media.frames import SECOND, SampleScale, stamp_of
from moving_object_detector.media.messages import decode_message
from moving_object_detector.nodes.messages import Statistics
from moving_object_detector.nodes.outputs import Outputs
from moving_object_detector.nodes.parameters import NodeConfig

if TYPE_CHECKING:
    from moving_object_detector.detection.detector import Detector, StepOutcome

log = logging.getLogger(__name__)

ADVICE: Final = {
    Step.REPEATS: 'is the topic published twice, or does the clock stand still?',
    Step.GOES_BACK: 'does a bag loop, was the clock set back, or do two cameras publish on this topic?',
    Step.AFTER_GAP: 'are images lost on the way (see frames lost in /diagnostics), or does the camera skip them? If '
    'it is that slow, raise the parameter continuity.max_gap',
    Step.NEW_SIZE: 'do two cameras publish on this topic?',
}

MAX_BYTES: Final = 256 * 2**20
"""Most memory of all waiting images, unless a single one takes more."""

Command = Callable[[], None]
"""An action of the detector thread between two images."""


def take_thread_count() -> None:
    """Apply PyTorch's number of threads to the calling thread.

    Otherwise its matrix products take a thread per core until some other operation asks for the number, and on a busy
    machine these threads wait for each other, up to a second for a frame.
    """
    import torch

    torch.get_num_threads()


class Arrival(NamedTuple):
    """One image message and its time of arrival."""

    message: Any
    """sensor_msgs/Image or CompressedImage."""
    moment: float
    """Seconds of the monotonic clock."""
    stamp: int = 0
    """Nanoseconds of the node's clock."""


def _time_of(arrival: Arrival) -> int:
    """Return the time by which an image is told from the one before it, nanoseconds."""
    return stamp_of(arrival.message.header) or arrival.stamp


class Mailbox:
    """A bounded queue that drops its oldest images, so that a burst cannot make latency or memory grow."""

    def __init__(self, capacity: int, max_bytes: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._items: deque[Arrival | Command] = deque()
        self._taken = 0
        self._condition = threading.Condition()
        self.closed = False

    @property
    def waiting(self) -> int:
        """Number of images in the queue, plus those of the last :meth:`take` until the next call."""
        with self._condition:
            return len(self._images()) + self._taken

    def _images(self) -> list[Arrival]:
        return [item for item in self._items if isinstance(item, Arrival)]

    def put(self, image: Arrival) -> int:
        """Add an image; return how many older ones were dropped for it."""
        with self._condition:
            if self.closed:
                return 0
            self._items.append(image)
            images = self._images()
            sizes = accumulate(len(one.message.data) for one in reversed(images))
            kept = sum(size <= self._max_bytes for size in islice(sizes, self._capacity))
            dropped = images[: -max(kept, 1)]
            for one in dropped:
                self._items.remove(one)
            self._condition.notify()
        return len(dropped)

    def command(self, command: Command, *, discard: bool = False) -> None:
        """Add a command, to run after the images queued before it; ``discard`` drops those."""
        with self._condition:
            if discard:
                self._items = deque(item for item in self._items if not isinstance(item, Arrival))
            self._items.append(command)
            self._condition.notify()

    def close(self) -> None:
        """Close the queue; :meth:`take` returns None from now on."""
        with self._condition:
            self.closed = True
            self._items.clear()
            self._condition.notify()

    def take(self) -> tuple[deque[Arrival], Command | None] | None:
        """Wait for an item; return all images up to the next command, and that command; None once closed."""
        with self._condition:
            self._taken = 0
            self._condition.wait_for(lambda: self.closed or self._items)
            if self.closed:
                return None
            images: deque[Arrival] = deque()
            while self._items:
                item = self._items.popleft()
                if not isinstance(item, Arrival):
                    return images, item
                images.append(item)
                self._taken = len(images)
            return images, None


class Pipeline:
    """Takes images out of a mailbox, runs the detector on the newest and publishes its results.

    Results are refined and published on a second thread, in parallel with the detector's next step (at most one image
    ahead), in order, and before any later command. No input can end the thread: an unusable image is counted and
    logged, an unexpected failure restarts the detector. ``now`` is the node's clock in nanoseconds, for images without
    a stamp.
    """

    def __init__(
        self, detector: Detector, outputs: Outputs, statistics: Statistics, config: NodeConfig, now: Callable[[], int]
    ) -> None:
        self.topic = ''
        """Name of the image topic, for log messages; set by the subscriber."""
        self.enabled = True
        """Whether images are accepted."""
        self.trouble = ''
        """What was wrong with the last image; empty if nothing."""
        self.mailbox = Mailbox(config.input.queue)
        self._config = config
        self._detector = detector
        self.outputs = outputs
        self._statistics = statistics
        self._now = now
        self._encoding: str | None = None
        self._stamped: bool | None = None
        self._scale = SampleScale()
        self._newest = 0
        self.load = self._new_load()
        """Adapts the window to the target rate, if there is one."""
        self._publisher = ThreadPoolExecutor(1, 'publisher', initializer=take_thread_count)
        self._publishing: Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name='detector', daemon=True)
        self._thread.start()

    # Called by other threads; all but close return at once.

    def receive(self, message: Any) -> None:
        """Accept an image message."""
        if not self.enabled:
            return
        self._statistics.count('received')
        moment = time.monotonic()
        self.load.arrived(moment)
        dropped = self.mailbox.put(Arrival(message, moment, self._now()))
        if dropped:
            self._statistics.count('dropped', dropped)
            log.warning(
                "%s: images come faster than the detector can take them, so the oldest are dropped; lower the camera's "
                'rate or resolution, or the parameters window.past, window.future, flow.height and flow.width',
                self.topic,
                extra={'kind': 'dropped'},
            )

    @property
    def delay(self) -> int:
        """Number of later frames that a result waits for at present."""
        return 0 if self._config.estimate == 'zero_lag' else self._detector.delay

    def refuse(self, reason: str) -> None:
        """Count and log an image that cannot be deserialised."""
        if not self.enabled:
            return
        self._statistics.count('received')
        self._ignore('invalid', 'unreadable', reason)

    def configure(self, config: NodeConfig) -> None:
        """Use the options of ``config`` that can change at run time, from the next image on."""
        self.mailbox.command(partial(self._configure, config))

    def flush(self) -> None:
        """Publish the results of frames that still wait for later ones."""
        self.mailbox.command(self._finish)

    def reset(self) -> None:
        """Discard all frames, also those still in the queue."""
        self.mailbox.command(self._reset, discard=True)

    def close(self) -> None:
        """End the threads after their current frames."""
        self.mailbox.close()
        self._thread.join()
        self._publisher.shutdown()

    # The detector thread

    def _run(self) -> None:
        take_thread_count()
        while (work := self.mailbox.take()) is not None:
            images, command = work
            self._attempt(partial(self._process, images), self._reset)
            if command is not None:
                self._settle()
                self._attempt(command, self._reset)

    def _attempt(self, action: Command, reset: Command) -> None:
        try:
            action()
        except Exception as error:
            self._statistics.count('failed')
            name = type(error).__name__
            self.trouble = f'detection failed: {name}: {foreign(error)}'
            log.exception('%s: detection failed and restarts; please report this', self.topic, extra={'kind': name})
            reset()

    def _settle(self) -> None:
        """Wait for the publishing thread."""
        if self._publishing is not None:
            self._publishing.result()

    def _configure(self, config: NodeConfig) -> None:
        same_estimate = config.estimate == self._config.estimate
        if not same_estimate:
            # Otherwise a frame in the window would be published twice.
            self._publish(self._detector.flush())
        self._config = self._detector.config = config
        if same_estimate and bool(config.load.target_rate) == bool(self.load.target):
            self.load.target = config.load.target_rate
        else:
            self.load = self._new_load()

    def _finish(self) -> None:
        self._stamped = None
        self.load.pause()
        self._publish(self._detector.flush())

    def _new_load(self) -> LoadController:
        zero_lag = self._config.estimate == 'zero_lag'
        load = LoadController(self._config.window, zero_lag=zero_lag, target=self._config.load.target_rate)
        self._detector.window, self._detector.refined_only = load.window, not zero_lag
        return load

    def _reset(self) -> None:
        self._encoding = self._stamped = None
        self._scale = SampleScale()
        self.load.pause()
        self._detector.reset()

    def _process(self, images: deque[Arrival]) -> None:
        """Add all images to the window and compute the masks of the newest."""
        wanted = self.outputs.wanted()
        while images and not self.mailbox.closed:
            # Removed from the queue, so that its memory is free when the next one is decoded.
            image = images.popleft()
            started = time.monotonic()
            # An image that only repeats this one must not take its place: it gets no mask.
            infer = wanted and all(_time_of(later) == _time_of(image) for later in images)
            outcome = self._step(image, infer)
            if outcome is None:
                continue
            if infer:
                self._publish(outcome, partial(self._note_times, started, image.moment))
            else:
                self._publish(outcome)
                self._statistics.count('skipped', int(wanted))
            # Time until the next image can be taken; publishing in parallel counts only as far as it blocks this.
            finished = time.monotonic()
            self.load.worked(finished - started, outcome.pairs, outcome.masks, inferred=infer)
            if self.load.decide(finished):
                self._detector.window = self.load.window
                log.info('load: %s; %s', self.load.window, self.load.reason, extra={'kind': 'load'})

    def _note_times(self, started: float, arrived: float) -> None:
        finished = time.monotonic()
        self._statistics.count('processed')
        cycle = self._statistics.time(finished - started, finished - arrived, finished)
        self.outputs.publish_times(
            processing_time=finished - started, pipeline_latency=finished - arrived, cyclic_time=cycle
        )

    def _step(self, arrival: Arrival, infer: bool) -> StepOutcome | None:
        """Run one image through the detector; None if the image is ignored."""
        message = arrival.message
        encoding = foreign(message.encoding if hasattr(message, 'encoding') else message.format)
        changed = self._encoding not in (None, encoding)
        scale = SampleScale() if changed else self._scale
        try:
            image = decode_message(message, scale, self._config.input.max_side)
        except ImageError as error:
            # The first word of the message tells the kinds of errors apart.
            self._ignore('invalid', f'invalid {str(error).split(maxsplit=1)[0]}', str(error))
            return None
        trouble = ''
        if changed:
            self._publish(self._detector.flush())
            reason = f'the encoding changed from {self._encoding} to {encoding}; {ADVICE[Step.NEW_SIZE]}'
            trouble = self._report_restart('encoding', reason)
        self._encoding, self._scale = encoding, scale
        stamp = self._stamp(arrival)
        if stamp is None:
            reason = 'it has no stamp, but earlier images have one; set the header stamp in the camera driver'
            self._ignore('invalid', 'no stamp', reason)
            return None
        outcome = self._detector.step(image, stamp, infer=infer, tag=message.header)
        step = outcome.relation
        if step is Step.REPEATS:
            self._ignore('repeated', step.name, f'it {step.value}; {ADVICE[step]}')
            return None
        if step.starts_anew:
            trouble = self._report_restart(step.name, f'the image {step.value}; {ADVICE[step]}')
        else:
            # After a restart the results are still those of the previous stream.
            self._newest = stamp
        self.trouble = trouble
        return outcome

    def _stamp(self, arrival: Arrival) -> int | None:
        """Return the image's time on the stream's clock: its stamp, or its arrival in a stream without stamps.

        A stream that begins without stamps restarts at the first stamp (a simulated clock may start late). In a stream
        with stamps, an image without one is unusable: None.
        """
        stamp = stamp_of(arrival.message.header)
        if stamp == 0 and self._stamped:
            return None
        if stamp == 0:
            text = '%s: images have no stamp, so their time of arrival is used; set it in the camera driver'
            log.warning(text, self.topic, extra={'kind': 'stamp'})
        elif self._stamped is False:
            self._publish(self._detector.flush())
        self._stamped = stamp != 0
        return stamp or arrival.stamp

    def _ignore(self, count: str, name: str, reason: str) -> None:
        self._statistics.count(count)
        self.trouble = f'{self.topic}: image ignored: {foreign(reason, 500)}'
        log.warning('%s', self.trouble, extra={'kind': name})

    def _report_restart(self, kind: str, reason: str) -> str:
        trouble = f'{self.topic}: detection restarts: {reason}'
        log.warning('%s', trouble, extra={'kind': kind})
        return trouble

    def _publish(self, outcome: StepOutcome, afterwards: Command = lambda: None) -> None:
        """Hand results to the publishing thread once it has published the previous ones."""
        self._statistics.count('missed', outcome.missed)
        results = [result for result in outcome.results if result.estimate == self._config.estimate]
        newest, adapts = self._newest, bool(self.load.target)

        def publish() -> None:
            for result in results:
                try:
                    heard = self.outputs.publish(result, result.tag)
                except NotFiniteError as error:
                    self._statistics.count('failed')
                    self.trouble = f'result not published: {error}'
                    log.error('%s: %s', self.topic, self.trouble, extra={'kind': 'not finite'})
                    continue
                if heard:
                    self._statistics.count('published')
                    if adapts:
                        # Age of the result's image relative to the newest image.
                        self.outputs.publish_times(window_delay=(newest - result.stamp) / SECOND)
            afterwards()

        self._settle()
        reset = partial(self.mailbox.command, self._reset)
        self._publishing = self._publisher.submit(self._attempt, publish, reset)
