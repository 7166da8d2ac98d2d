"""Publish a folder of frames, a video or a bag as camera images at their own pace."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moving_object_detector.common.program import positive_float, seconds
from moving_object_detector.media.arguments import TOPIC, add_source_arguments, source_of
from moving_object_detector.nodes.runtime import run_node, split_arguments


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)

    def body() -> int:
        source = source_of(arguments, arguments.input)
        from moving_object_detector.nodes.playback import play  # after the input, whose mistakes need no ROS

        return play(source, arguments, ros)

    return run_node(body)


if __name__ == '__main__':
    sys.exit(main())
