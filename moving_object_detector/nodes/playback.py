"""The loop that publishes a source's frames, each at its moment."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from tqdm import tqdm

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.frames import SECOND, Frame, FrameSource, prefetch, ros_stamp_offset
from moving_object_detector.nodes.messages import compressed_message, image_message

# Stamps further apart are a cut, not a pause worth waiting for.
LONGEST_PAUSE = 5.0
# Seconds at a cut, also back to the start of a loop: what is stamped now would else be one stream across it.
CUT = 1.5
# A program that fell behind by more than this goes on from where it is; it never sends a burst.
LARGEST_DEBT = 0.25
_CLOCK_PERIOD = 0.01


class Pacer:
    """Turns stamps into moments to wait for.

    Moments are counted from the first frame, so errors of single waits do not add up.
    """

    def __init__(self, rate: float, period: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """Start with the first call of :meth:`due`.

        Args:
            rate: How many times faster than recorded to play.
            period: Seconds between two frames where their stamps say nothing sensible.
            now: Clock in seconds.

        """
        self.rate = rate
        self._period = period
        self._now = now
        self._anchor: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def due(self, stamp: int) -> float:
        """Return the moment, on the clock, at which the frame of ``stamp`` (nanoseconds) is due.

        A stamp that repeats or goes back by less than a second comes one period after the frame before, one that
        goes back further or leaps by more than :data:`LONGEST_PAUSE` :data:`CUT` seconds after it.
        """
        now = self._now()
        if self._anchor is None:
            self._anchor = (stamp, now)
        elif not 0 < stamp - self._last[0] <= LONGEST_PAUSE * SECOND:
            cut = abs(stamp - self._last[0]) > SECOND
            self._anchor = (stamp, self._last[1] + (CUT if cut else self._period / self.rate))
        moment = self._anchor[1] + (stamp - self._anchor[0]) / SECOND / self.rate
        if moment < now - LARGEST_DEBT:
            self._anchor, moment = (stamp, now), now
        self._last = (stamp, moment)
        return moment


class Playback:
    """Publishes frames and, if asked, the recording's time on /clock.

    Attributes:
        count: Frames published so far.
        measured_rate: Frames per second from the first frame to the last.

    """

    def __init__(
        self,
        node: Node,
        publisher: Publisher,
        *,
        rate: float,
        compressed: bool,
        frame_id: str,
        source_stamps: bool,
        clock: bool,
        keep_going: bool = False,
    ) -> None:
        """Prepare.

        Args:
            node: Gives the time for headers stamped now.
            publisher: For sensor_msgs/Image, or CompressedImage when ``compressed``.
            rate: Times faster than recorded.
            compressed: Publish JPEG.
            frame_id: Of the headers.
            source_stamps: Headers carry the recording's time; else the time of publishing.
            clock: Publish /clock, a hundred times a second and just before each frame.
            keep_going: Leave out frames that cannot be read, with a warning.

        """
        self._node = node
        self._publisher = publisher
        self._rate = rate
        self._compressed = compressed
        self._frame_id = frame_id
        self._source_stamps = source_stamps
        self._keep_going = keep_going
        self._clock = node.create_publisher(Clock, '/clock', 10) if clock else None
        self._first = self._last = 0.0
        self.count = 0

    @property
    def measured_rate(self) -> float:
        """Frames per second from the first frame to the last, 0 before the second."""
        return (self.count - 1) / (self._last - self._first) if self.count > 1 else 0.0

    def _frames(self, source: FrameSource) -> Iterator[Frame]:
        frames = iter(source)
        while True:
            try:
                frame = next(frames, None)
            except ImageError as error:
                if not self._keep_going:
                    raise
                self._node.get_logger().warning(f'left out: {error}')
                continue
            if frame is None:
                return
            yield frame

    def _messages(self, source: FrameSource, *, loop: bool) -> Iterator[tuple[Any, int]]:
        """Yield messages and the recording's times; runs in the prefetching thread."""
        for _ in itertools.count() if loop else range(1):
            offset: int | None = None
            for frame in self._frames(source):
                offset = ros_stamp_offset(frame.stamp) if offset is None else offset
                header = Header(frame_id=self._frame_id)
                if self._compressed:
                    yield compressed_message(encode_jpeg(frame.image), header), frame.stamp + offset
                else:
                    yield image_message(frame.image, 'rgb8', header), frame.stamp + offset

    def _publish_clock(self, stamp: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=Time(nanoseconds=stamp).to_msg()))

    def _wait(self, due: float, stamp: int, stop: threading.Event) -> None:
        """Sleep until ``due``, the moment of the frame of ``stamp``; /clock moves on meanwhile."""
        while (remaining := due - time.monotonic()) > 0 and not stop.is_set():
            self._publish_clock(max(stamp - round(remaining * self._rate * SECOND), 1))
            stop.wait(remaining if self._clock is None else min(remaining, _CLOCK_PERIOD))

    def run(self, source: FrameSource, stop: threading.Event, *, loop: bool = False) -> None:
        """Publish every frame of ``source``, or until ``stop`` is set.

        Args:
            source: The frames.
            stop: Ends the loop from another thread or a signal handler.
            loop: Begin again at the end; the stamps go back as in a bag that loops.

        Raises:
            UserError: A frame cannot be read.

        """
        pacer = Pacer(self._rate, 1 / source.fps)
        total = None if loop else source.frame_count
        with (
            prefetch(self._messages(source, loop=loop)) as messages,
            tqdm(total=total, unit='frame', disable=None) as bar,
        ):
            for message, stamp in messages:
                self._wait(pacer.due(stamp), stamp, stop)
                if stop.is_set():
                    return
                self._publish_clock(stamp)
                time_of_header = Time(nanoseconds=stamp) if self._source_stamps else self._node.get_clock().now()
                message.header.stamp = time_of_header.to_msg()
                self._publisher.publish(message)
                self._last = time.monotonic()
                self._first = self._first if self.count else self._last
                self.count += 1
                bar.update()
