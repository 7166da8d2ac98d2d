"""The program ``record``: writes messages from topics to a video and a bag."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Final

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.frames import SampleScale, stamp_of
from moving_object_detector.media.messages import RAW_TYPE, TYPES, decode_image
from moving_object_detector.media.video import VideoWriter
from moving_object_detector.nodes.messages import read_message
from moving_object_detector.nodes.runtime import ros_node, topic_name

_QUEUE: Final = 100
"""QoS depth: messages that may wait for a slow encoder; beyond it the oldest is lost."""
_REPORT_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.25
_NOTHING: Final = 'no message arrived, so nothing was written'


@dataclass
class Recorded:
    """One recorded topic: full name, most messages to record, messages recorded so far."""

    topic: str
    limit: int
    count: int = 0


class Recorder:
    """Subscriptions that write to a video and a bag, as the arguments say."""

    def __init__(
        self, node: Node, arguments: argparse.Namespace, video: VideoWriter | None, bag: BagWriter | None
    ) -> None:
        self._node = node
        self.missing = {topic_name(node, topic) for topic in arguments.also}
        """Further topics that nobody has published so far."""
        limit = arguments.frames or sys.maxsize
        self.tracks: list[Recorded] = []
        """Overlay, mask or both; their limits end the recording."""
        self.extras: list[Recorded] = []
        if video:
            scale = SampleScale()

            def write(message: Any, _: bytes) -> None:
                video.write(decode_image(message, scale), stamp_of(message.header))

            self.tracks.append(self._subscribe(arguments.overlay, RAW_TYPE, write, limit))
        # Not the node's clock: simulated time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        if bag:
            self.tracks.append(self._record(bag, arguments.mask, RAW_TYPE, limit))
            # Else each of its messages would be written twice.
            self.missing.discard(self.tracks[-1].topic)
            node.create_timer(_LOOK_SECONDS, partial(self._follow, bag), clock=steady)
        node.create_timer(_REPORT_SECONDS, self._log_missing, clock=steady)

    def _subscribe(self, topic: str, message_type: str, write: Callable[[Any, bytes], None], limit: int) -> Recorded:
        """Pass the messages of a topic to ``write``, deserialised and in CDR."""
        if message_type not in TYPES.fielddefs:
            raise UserError(f'{topic} is {message_type}, not a type of ROS 2 itself; record it with: ros2 bag record')
        package, _, name = message_type.split('/')
        try:
            kind = getattr(import_module(f'{package}.msg'), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f'{topic} is {message_type}; install the package {package} and source it') from error
        track = Recorded(topic_name(self._node, topic), limit)

        def receive(data: bytes) -> None:
            if track.count < track.limit:
                try:
                    write(read_message(message_type, data), data)
                    track.count += 1
                except ImageError as error:
                    self._node.get_logger().error(f'{track.topic}: {error}', throttle_duration_sec=5.0)

        policies = QoSOverridingOptions.with_default_policies()
        quality = self._quality(track.topic)
        self._node.create_subscription(kind, track.topic, receive, quality, raw=True, qos_overriding_options=policies)
        return track

    def _quality(self, topic: str) -> QoSProfile:
        """Return a QoS that every publisher of the topic matches, with the messages that were sent before."""
        offers = [one.qos_profile for one in self._node.get_publishers_info_by_topic(topic)]
        quality = QoSProfile(depth=_QUEUE)
        if any(one.reliability == ReliabilityPolicy.BEST_EFFORT for one in offers):
            quality.reliability = ReliabilityPolicy.BEST_EFFORT
        if offers and all(one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offers):
            # Such as /tf_static, published once.
            quality.durability = DurabilityPolicy.TRANSIENT_LOCAL
        return quality

    def _record(self, bag: BagWriter, topic: str, message_type: str, limit: int = sys.maxsize) -> Recorded:
        """Record a topic unchanged, at the header's stamp, or at the time of arrival if there is none or it is 0."""

        def write(message: Any, data: bytes) -> None:
            stamp = stamp_of(message.header) if hasattr(message, 'header') else 0
            bag.write_raw(track.topic, message_type, stamp or self._node.get_clock().now().nanoseconds, data)

        track = self._subscribe(topic, message_type, write, limit)
        return track

    def _follow(self, bag: BagWriter) -> None:
        """Subscribe to the remaining topics whose type is known now that they are published."""
        found = [
            (name, types[0])
            for name, types in self._node.get_topic_names_and_types()
            # The types include those of subscriptions.
            if name in self.missing and self._node.count_publishers(name)
        ]
        self.missing -= {name for name, _ in found}
        self.extras += [self._record(bag, name, kind) for name, kind in found]

    def _log_missing(self) -> None:
        if not any(track.count for track in self.tracks):
            counts = {track.topic: self._node.count_publishers(track.topic) for track in self.tracks}
            why = '; '.join(
                f'{topic} has {count} publisher(s), but no message arrives' if count else f'nobody publishes {topic}'
                for topic, count in counts.items()
            )
            self._node.get_logger().info(f'waiting for messages: {why}')

    def ended(self) -> bool:
        """Return whether the recording is complete."""
        return all(track.count >= track.limit for track in self.tracks)


def run(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    """Run the program ``record`` and return its exit status."""
    # Outermost context: the files are completed whatever happens to the node.
    with ExitStack() as files:
        video = bag = None
        if arguments.video:
            video = files.enter_context(VideoWriter(arguments.video, arguments.fps))
        if arguments.bag:
            bag = files.enter_context(
                BagWriter(arguments.bag, storage=arguments.storage, overwrite=arguments.overwrite)
            )
        with ros_node('record', ros_arguments) as (node, stop):
            recorder = Recorder(node, arguments, video, bag)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            while not (stop.is_set() or recorder.ended()):
                executor.spin_once(timeout_sec=0.1)
            executor.shutdown()
    if video:
        frames = video.frame_count
        print(f'{video.path}: {frames} frames at {video.fps:g} frames/s' if frames else _NOTHING)
    if bag:
        kept = (recorder.tracks[-1], *recorder.extras)
        contents = ', '.join(f'{track.count} messages of {track.topic}' for track in kept)
        print(f'{bag.path}: {contents}' if bag.message_count else _NOTHING)
        for topic in sorted(recorder.missing):
            print(f'{topic}: not recorded, since nobody published it')
    return 0
