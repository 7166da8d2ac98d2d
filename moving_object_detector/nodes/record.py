"""Record the detector's results: the overlay as a video, masks and whatever else as a bag."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from moving_object_detector.common.program import positive_float, positive_int, seconds
from moving_object_detector.nodes.runtime import ros_node, run_node, split_arguments

if TYPE_CHECKING:
    from rclpy.node import Node

    from moving_object_detector.media.bags import BagWriter
    from moving_object_detector.nodes.recording import Recorder, Track

# A slow encoder lets messages wait; beyond this the oldest is lost.
_QUEUE = 100
_REPORT_SECONDS = 5.0
_NOTHING = 'nothing came, so nothing was written'


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='record',
        description=__doc__,
        epilog='Ends after --frames, after --idle-timeout, or with Ctrl-C; the files are complete in each case. '
        'ROS arguments (remapping, parameters) follow --ros-args.',
    )
    parser.add_argument('--video', metavar='OUT.mp4', help='video to write; an older one is replaced')
    parser.add_argument('--overlay', metavar='TOPIC', help='its topic (default: detect/overlay)')
    parser.add_argument('--fps', type=positive_float, help='rate of the video (default: that of the first stamps)')
    parser.add_argument('--bag', metavar='OUT_DIR', help='bag to write')
    parser.add_argument('--mask', metavar='TOPIC', help='its image topic (default: detect/mask)')
    parser.add_argument(
        '--also', metavar='TOPIC', action='append', default=[], help='topic of any type to add to the bag; repeatable'
    )
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), help='default: mcap')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    parser.add_argument('--frames', type=positive_int, metavar='N', help='end after N overlays and N masks')
    parser.add_argument(
        '--idle-timeout',
        type=seconds,
        metavar='SECONDS',
        help='end this long after the last message',
    )
    parser.add_argument(
        '--start-timeout', type=seconds, metavar='SECONDS', help='fail when no message has come within this time'
    )
    parser.add_argument('--best-effort', action='store_true', help='subscribe as to a camera driver; may lose frames')
    arguments = parser.parse_args(argv)
    if not (arguments.video or arguments.bag):
        parser.error('nothing to write: give --video, --bag or both')
    for kind, options in (('video', ('overlay', 'fps')), ('bag', ('mask', 'also', 'storage', 'overwrite'))):
        idle = [f'--{name}' for name in options if getattr(arguments, name) and not getattr(arguments, kind)]
        if idle:
            parser.error(f'{", ".join(idle)}: no effect without --{kind}; give it, or leave them out')
    arguments.overlay, arguments.mask = arguments.overlay or 'detect/overlay', arguments.mask or 'detect/mask'
    arguments.storage = arguments.storage or 'mcap'
    return arguments


def _why_nothing(node: Node, tracks: Sequence[Track]) -> str:
    def state(topic: str) -> str:
        count = node.count_publishers(topic)
        return f'{topic} has {count} publisher(s) but brought no message' if count else f'nobody publishes {topic}'

    return '; '.join(state(topic) for topic in dict.fromkeys(track.topic for track in tracks))


class _Extras:
    """Topics whose type is known only once somebody publishes them."""

    def __init__(self, node: Node, recorder: Recorder, topics: Sequence[str]) -> None:
        self._node = node
        self._recorder = recorder
        self._missing = {str(node.resolve_topic_name(topic)) for topic in topics}
        self._next_look = 0.0

    def look(self, bag: BagWriter) -> list[Track]:
        """Subscribe to those that have appeared; really looks four times a second."""
        if not self._missing or time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + 0.25
        found = [(name, types[0]) for name, types in self._node.get_topic_names_and_types() if name in self._missing]
        self._missing -= {name for name, _ in found}
        return [self._recorder.subscribe_bag(name, kind, bag) for name, kind in found]


def _ended(node: Node, recorder: Recorder, tracks: Sequence[Track], arguments: argparse.Namespace, age: float) -> bool:
    """Tell whether the recording is complete, ``age`` seconds after its start."""
    from moving_object_detector.common.errors import UserError

    if recorder.last_arrival is None:
        if arguments.start_timeout is not None and age > arguments.start_timeout:
            raise UserError(f'nothing came within {arguments.start_timeout:g} s: {_why_nothing(node, tracks)}')
        if age > _REPORT_SECONDS:
            node.get_logger().info(f'waiting: {_why_nothing(node, tracks)}', throttle_duration_sec=_REPORT_SECONDS)
        return False
    if arguments.idle_timeout is not None and time.monotonic() - recorder.last_arrival > arguments.idle_timeout:
        return True
    return all(track.count >= track.limit for track in tracks)


def _record(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    from moving_object_detector.media.bags import BagWriter
    from moving_object_detector.media.video import VideoWriter
    from moving_object_detector.nodes.recording import Recorder

    reliability = ReliabilityPolicy.BEST_EFFORT if arguments.best_effort else ReliabilityPolicy.RELIABLE
    extra_tracks: list[Track] = []
    # The files are left last, so they are completed whatever happens to the node.
    with ExitStack() as files:
        video = bag = None
        if arguments.bag:
            bag = files.enter_context(
                BagWriter(arguments.bag, storage=arguments.storage, overwrite=arguments.overwrite)
            )
        if arguments.video:
            video = files.enter_context(VideoWriter(arguments.video, arguments.fps))
        with ros_node('record', ros_arguments) as (node, stop):
            recorder = Recorder(node, QoSProfile(depth=_QUEUE, reliability=reliability))
            tracks: list[Track] = []
            if video:
                tracks.append(recorder.subscribe_video(arguments.overlay, video, arguments.frames))
            if bag:
                tracks.append(recorder.subscribe_bag(arguments.mask, 'sensor_msgs/msg/Image', bag, arguments.frames))
            extras = _Extras(node, recorder, arguments.also)
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            begin = time.monotonic()
            while not (stop.is_set() or _ended(node, recorder, tracks, arguments, time.monotonic() - begin)):
                if bag:
                    extra_tracks += extras.look(bag)
                executor.spin_once(timeout_sec=0.1)
            executor.shutdown()
    if video:
        frames = video.frame_count
        print(f'{video.path}: {frames} frames at {video.fps:g} frames/s' if frames else _NOTHING)
    if bag:
        contents = ', '.join(f'{track.count} messages of {track.topic}' for track in [tracks[-1], *extra_tracks])
        print(f'{bag.path}: {contents}' if bag.message_count else _NOTHING)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)
    return run_node(lambda: _record(arguments, ros))


if __name__ == '__main__':
    sys.exit(main())
