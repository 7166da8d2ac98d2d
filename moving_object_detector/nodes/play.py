"""Publish a folder of frames, a video or a bag as camera images at their own pace."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moving_object_detector.common.program import positive_float, seconds
from moving_object_detector.media.arguments import TOPIC, add_source_arguments, source_of
from moving_object_detector.nodes.runtime import ros_node, run_node, spinning, split_arguments

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

# A reliable subscriber that stalls for two seconds still gets every frame.
_DEPTH = 50
_ACKNOWLEDGE_SECONDS = 5
# On a busy machine too a subscriber is found within that time; without one, nothing more is waited for.
_FIND_SECONDS = 2.0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='play', description=__doc__, epilog='ROS arguments (remapping, parameters) follow --ros-args.'
    )
    add_source_arguments(parser)
    parser.add_argument('--topic', default=TOPIC, help='topic of the images (default: %(default)s)')
    parser.add_argument('--rate', type=positive_float, default=1.0, help='times faster than recorded (default: 1)')
    parser.add_argument('--loop', action='store_true', help='start again at the end, until Ctrl-C')
    parser.add_argument('--clock', action='store_true', help="publish the recording's time on /clock")
    parser.add_argument(
        '--stamp',
        choices=('now', 'source'),
        help="headers carry the time of publishing or the recording's time (default: now; source with --clock)",
    )
    parser.add_argument('--frame-id', default='camera', help='frame id of the headers (default: %(default)s)')
    parser.add_argument('--compressed', action='store_true', help='publish JPEG on TOPIC/compressed instead')
    parser.add_argument(
        '--keep-going', action='store_true', help='leave out frames that cannot be read; else the first one is the end'
    )
    parser.add_argument(
        '--wait-for-subscriber',
        type=seconds,
        metavar='SECONDS',
        help='wait for a subscriber before publishing; give up after this long (0: never)',
    )
    parser.add_argument(
        '--start-delay', type=seconds, default=0.5, help='seconds for others to find the topic (default: %(default)s)'
    )
    reliability = parser.add_mutually_exclusive_group()
    reliability.add_argument('--reliable', action='store_true', default=True, help='the default')
    reliability.add_argument('--best-effort', dest='reliable', action='store_false', help='as most camera drivers')
    arguments = parser.parse_args(argv)
    if arguments.clock and arguments.stamp == 'now':
        parser.error("--clock publishes the recording's time, and the headers must agree with it: drop --stamp now")
    arguments.stamp = arguments.stamp or ('source' if arguments.clock else 'now')
    return arguments


def _publisher(node: Node, topic: str, *, compressed: bool, reliable: bool) -> Publisher:
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from rclpy.qos_overriding_options import QoSOverridingOptions
    from sensor_msgs.msg import CompressedImage, Image

    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    # As image_transport does, the name is remapped first and the suffix added then.
    return node.create_publisher(
        CompressedImage if compressed else Image,
        node.resolve_topic_name(topic) + ('/compressed' if compressed else ''),
        QoSProfile(depth=_DEPTH, reliability=reliability),
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )


def _wait_for_subscriber(node: Node, publisher: Publisher, limit: float, stop: threading.Event) -> None:
    from moving_object_detector.common.errors import UserError

    topic = publisher.topic_name
    begin = time.monotonic()
    while publisher.get_subscription_count() == 0 and not stop.wait(0.1):
        node.get_logger().info(f'waiting for a subscriber on {topic}', throttle_duration_sec=5.0)
        if limit and time.monotonic() - begin > limit:
            raise UserError(
                f'nobody subscribed to {topic} within {limit:g} s; start the subscriber first, or publish where it '
                f'listens: --ros-args -r {topic}:=/its/topic'
            )


def _play(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    source = source_of(arguments, arguments.input)
    from moving_object_detector.nodes.playback import Playback  # after the input, whose mistakes need no ROS

    with ros_node('play', ros_arguments) as (node, stop), spinning(node):
        publisher = _publisher(node, arguments.topic, compressed=arguments.compressed, reliable=arguments.reliable)
        if arguments.wait_for_subscriber is not None:
            _wait_for_subscriber(node, publisher, arguments.wait_for_subscriber, stop)
        stop.wait(arguments.start_delay)
        deadline = time.monotonic() + _FIND_SECONDS
        while not publisher.get_subscription_count() and time.monotonic() < deadline and not stop.wait(0.05):
            pass
        playback = Playback(
            node,
            publisher,
            rate=arguments.rate,
            compressed=arguments.compressed,
            frame_id=arguments.frame_id,
            source_stamps=arguments.stamp == 'source',
            clock=arguments.clock,
            keep_going=arguments.keep_going,
        )
        try:
            playback.run(source, stop, loop=arguments.loop)
        finally:
            asked = source.fps * arguments.rate
            print(
                f'{publisher.topic_name}: {playback.count} frames published at {playback.measured_rate:.2f} frames/s '
                f'(asked: {asked:.2f})',
                flush=True,
            )
        acknowledged = stop.is_set() or wait_acknowledged(publisher)
        if not acknowledged:
            node.get_logger().warning(f'not everybody on {publisher.topic_name} confirmed to have got every frame')
    return 0


def wait_acknowledged(publisher: Publisher) -> bool:
    """Wait a few seconds until the reliable subscribers have everything; return whether they have."""
    from rclpy.duration import Duration

    return bool(publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGE_SECONDS)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)
    return run_node(lambda: _play(arguments, ros))


if __name__ == '__main__':
    sys.exit(main())
