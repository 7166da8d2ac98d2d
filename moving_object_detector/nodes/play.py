"""The program ``play``: publishes a source's frames on a topic at the recorded pace."""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tqdm import tqdm

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.frames import SECOND, Frame, FrameSource, prefetch, ros_stamp_offset
from moving_object_detector.media.sources import source_of
from moving_object_detector.nodes.messages import compressed_message, image_message
from moving_object_detector.nodes.runtime import ros_node, spinning

LONGEST_PAUSE: Final = 5.0
"""Seconds; stamps further apart are a cut and are not waited for."""
CUT: Final = 1.5
"""Seconds to wait at a cut or the start of a loop, so that with ``--stamp now`` the stream shows a gap there."""
_LARGEST_DEBT: Final = 0.25
"""Seconds; playback that is later than this resumes at the normal pace instead of catching up in a burst."""
_CLOCK_PERIOD: Final = 0.01
_DEPTH: Final = 50
"""QoS depth: a reliable subscriber that stalls for two seconds still gets every frame."""
_ACKNOWLEDGE_SECONDS: Final = 5
_SETTLE_SECONDS: Final = 1.0
"""Least wait, for others to discover the topics, also /clock."""
_FIND_SECONDS: Final = 2.5
"""Longest wait for a subscriber to be discovered; enough on a busy machine."""


class Pacer:
    """Converts stamps to due times, relative to the first frame, so that timing errors do not add up."""

    def __init__(self, rate: float, period: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._period = period
        self._now = now
        self._anchor: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def due(self, stamp: int) -> float:
        """Return when, on the clock ``now``, the frame with ``stamp`` (nanoseconds) is due.

        After a stamp that repeats or goes back by at most a second, that is one period after the previous frame; after
        one that goes back further or leaps by more than :data:`LONGEST_PAUSE`, :data:`CUT` seconds after it.
        """
        now = self._now()
        if self._anchor is None:
            self._anchor = (stamp, now)
        elif not 0 < stamp - self._last[0] <= LONGEST_PAUSE * SECOND:
            cut = abs(stamp - self._last[0]) > SECOND
            self._anchor = (stamp, self._last[1] + (CUT if cut else self._period / self.rate))
        moment = self._anchor[1] + (stamp - self._anchor[0]) / SECOND / self.rate
        if moment < now - _LARGEST_DEBT:
            self._anchor, moment = (stamp, now), now
        self._last = (stamp, moment)
        return moment


class _Playback:
    """Publishes frames as the arguments say and, with ``--clock``, the recording's time on /clock."""

    def __init__(self, node: Node, publisher: Publisher, arguments: argparse.Namespace) -> None:
        self._node = node
        self._publisher = publisher
        self._arguments = arguments
        self._clock = node.create_publisher(Clock, '/clock', 10) if arguments.clock else None
        self.count = 0
        self.seconds = 0.0
        """Time from the first frame to the latest."""

    def _frames(self, source: FrameSource) -> Iterator[Frame]:
        frames = iter(source)
        while True:
            try:
                frame = next(frames, None)
            except ImageError as error:
                if not self._arguments.keep_going:
                    raise
                self._node.get_logger().warning(f'frame skipped: {error}')
                continue
            if frame is None:
                return
            yield frame

    def _messages(self, source: FrameSource) -> Iterator[tuple[Any, int]]:
        """Yield messages and the recording's times; runs in the prefetching thread."""
        for _ in itertools.count() if self._arguments.loop else range(1):
            offset: int | None = None
            for frame in self._frames(source):
                offset = ros_stamp_offset(frame.stamp) if offset is None else offset
                header = Header(frame_id=self._arguments.frame_id)
                if self._arguments.compressed:
                    yield compressed_message(encode_jpeg(frame.image), header), frame.stamp + offset
                else:
                    yield image_message(frame.image, 'rgb8', header), frame.stamp + offset

    def _publish_clock(self, stamp: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=Time(nanoseconds=stamp).to_msg()))

    def _wait(self, due: float, stamp: int, stop: threading.Event) -> None:
        """Sleep until ``due``, when the frame with ``stamp`` is due; /clock keeps running meanwhile."""
        while (remaining := due - time.monotonic()) > 0 and not stop.is_set():
            self._publish_clock(max(stamp - round(remaining * self._arguments.rate * SECOND), 1))
            stop.wait(remaining if self._clock is None else min(remaining, _CLOCK_PERIOD))

    def run(self, source: FrameSource, stop: threading.Event) -> None:
        """Publish all frames, or until ``stop`` is set; raises UserError if a frame cannot be read."""
        pacer, first = Pacer(self._arguments.rate, 1 / source.fps), 0.0
        total = None if self._arguments.loop else source.frame_count
        with prefetch(self._messages(source)) as messages, tqdm(total=total, unit='frame', disable=None) as bar:
            for message, stamp in messages:
                self._wait(pacer.due(stamp), stamp, stop)
                if stop.is_set():
                    return
                self._publish_clock(stamp)
                recorded = self._arguments.stamp == 'source'
                moment = Time(nanoseconds=stamp) if recorded else self._node.get_clock().now()
                message.header.stamp = moment.to_msg()
                self._publisher.publish(message)
                first = first or time.monotonic()
                self.seconds = time.monotonic() - first
                self.count += 1
                bar.update()


def _await_subscriber(node: Node, publisher: Publisher, limit: float | None, stop: threading.Event) -> None:
    topic, begin = publisher.topic_name, time.monotonic()
    while limit is not None and not publisher.get_subscription_count() and not stop.wait(0.1):
        node.get_logger().info(f'waiting for a subscriber on {topic}', throttle_duration_sec=5.0)
        if limit and time.monotonic() - begin > limit:
            raise UserError(
                f'nobody subscribed to {topic} within {limit:g} s; start the subscriber first, or publish on the topic '
                f'that it subscribes to: --ros-args -r {topic}:=/its/topic'
            )
    stop.wait(_SETTLE_SECONDS)
    while not publisher.get_subscription_count() and time.monotonic() - begin < _FIND_SECONDS and not stop.wait(0.05):
        pass


def run(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """Run the program ``play`` and return its exit status."""
    source = source_of(arguments, arguments.input)
    with ros_node('play', ros_arguments) as (node, stop), spinning(node):
        kind, suffix = (CompressedImage, '/compressed') if arguments.compressed else (Image, '')
        # As in image_transport: remap the name first, then add the suffix.
        topic = node.resolve_topic_name(arguments.topic) + suffix
        policies = QoSOverridingOptions.with_default_policies()
        publisher = node.create_publisher(kind, topic, _DEPTH, qos_overriding_options=policies)
        _await_subscriber(node, publisher, arguments.wait_for_subscriber, stop)
        playback = _Playback(node, publisher, arguments)
        try:
            playback.run(source, stop)
        finally:
            rate = (playback.count - 1) / playback.seconds if playback.count > 1 else 0.0
            print(
                f'{publisher.topic_name}: {playback.count} frames published at {rate:.2f} frames/s '
                f'(target: {source.fps * arguments.rate:.2f})',
                flush=True,
            )
        if not stop.is_set() and not publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_SECONDS)):
            node.get_logger().warning(f'not every subscriber of {publisher.topic_name} confirmed all frames')
    return 0
