"""The command lines of the programs that talk over ROS. What they run is loaded later, so ``--help`` is instant."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

from moving_object_detector.common.files import PACKAGE
from moving_object_detector.common.program import TOPIC, add_source_arguments, positive_float, positive_int, seconds
from moving_object_detector.nodes.runtime import ros_node, run_node, spinning, split_arguments

if TYPE_CHECKING:
    from rclpy.node import Node

PAGE_PORT: Final = 8766
_ROS_ARGUMENTS: Final = 'ROS arguments (remapping, parameters) follow --ros-args.'
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h has them


def _parser(program: Callable[..., int], epilog: str = _ROS_ARGUMENTS) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=program.__name__, description=program.__doc__, epilog=epilog)


def _start(program: str, arguments: argparse.Namespace, ros: Sequence[str]) -> int:
    """Run the module of this room that is called as the program."""
    return run_node(lambda: int(import_module(f'{__package__}.{program}').run(arguments, ros)))


def _keep_memory() -> None:
    """Let what images took stay with the process: fetching it anew for each costs more than decoding it (glibc)."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def detect(argv: Sequence[str] | None = None) -> int:
    """Detect what moves on its own in the images of a moving camera."""
    own, ros = split_arguments(argv)
    example = f'ros2 run {PACKAGE} detect --ros-args -r image:=/front/image_raw --params-file config/cpu.yaml'
    epilog = f'Topics and services: README.md; parameters: docs/parameters.md. Example: {example}'
    _parser(detect, epilog).parse_args(own)

    def body() -> int:
        def make(name: str) -> Node:
            from moving_object_detector.nodes.detect_node import DetectNode  # after Ctrl-C is caught

            return DetectNode(name, ros)

        _keep_memory()
        # Two threads, so that services and diagnostics answer while a model loads.
        with (
            ros_node('detect', ros, make, remap=['image:=camera/image_raw']) as (node, stop),
            spinning(node, threads=2),
        ):
            stop.wait()
            node.get_logger().info('stopping')
        if node.loading:
            # Python would wait for the thread that loads, and nothing can interrupt an engine that is being built.
            sys.stderr.flush()
            os._exit(0)
        return 0

    return run_node(body)


def play(argv: Sequence[str] | None = None) -> int:
    """Publish a folder of frames, a video or a bag as camera images at their own pace."""
    own, ros = split_arguments(argv)
    parser = _parser(play)
    add_source_arguments(parser)
    parser.add_argument('--topic', default=TOPIC, help='topic of the images (default: %(default)s)')
    parser.add_argument('--rate', type=positive_float, default=1.0, help='times faster than recorded (default: 1)')
    parser.add_argument('--loop', action='store_true', help='start again at the end, until Ctrl-C')
    parser.add_argument('--clock', action='store_true', help="publish the recording's time on /clock")
    stamp = "time in the headers: of publishing, or the recording's (default: now; source with --clock)"
    parser.add_argument('--stamp', choices=('now', 'source'), help=stamp)
    parser.add_argument('--frame-id', default='camera', help='frame id of the headers (default: %(default)s)')
    parser.add_argument('--compressed', action='store_true', help='publish JPEG on TOPIC/compressed instead')
    parser.add_argument('--keep-going', action='store_true', help='leave out what cannot be read, in place of ending')
    wait = 'wait for a subscriber before publishing; give up after this long (0: never)'
    parser.add_argument('--wait-for-subscriber', type=seconds, metavar='SECONDS', help=wait)
    arguments = parser.parse_args(own)
    if arguments.clock and arguments.stamp == 'now':
        parser.error("--clock publishes the recording's time, and the headers must agree with it: drop --stamp now")
    arguments.stamp = arguments.stamp or ('source' if arguments.clock else 'now')
    return _start('play', arguments, ros)


def record(argv: Sequence[str] | None = None) -> int:
    """Record the detector's results: the overlay as a video, masks and whatever else as a bag."""
    own, ros = split_arguments(argv)
    parser = _parser(record, f'Ends after --frames or with Ctrl-C; the files are complete either way. {_ROS_ARGUMENTS}')
    parser.add_argument('--video', metavar='OUT.mp4', help='video to write; an older one is replaced')
    parser.add_argument('--overlay', metavar='TOPIC', help='its topic (default: detect/overlay)')
    parser.add_argument('--fps', type=positive_float, help='rate of the video (default: that of the first stamps)')
    parser.add_argument('--bag', metavar='OUT_DIR', help='bag to write')
    parser.add_argument('--mask', metavar='TOPIC', help='its image topic (default: detect/mask)')
    also = "topic to add to the bag, of a type of ROS 2's own; repeatable"
    parser.add_argument('--also', metavar='TOPIC', action='append', default=[], help=also)
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), help='default: mcap')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    parser.add_argument('--frames', type=positive_int, metavar='N', help='end after N overlays and N masks')
    arguments = parser.parse_args(own)
    if not (arguments.video or arguments.bag):
        parser.error('nothing to write: give --video, --bag or both')
    for kind, options in (('video', ('overlay', 'fps')), ('bag', ('mask', 'also', 'storage', 'overwrite'))):
        idle = [f'--{name}' for name in options if getattr(arguments, name) and not getattr(arguments, kind)]
        if idle:
            parser.error(f'{", ".join(idle)}: no effect without --{kind}; give it, or leave them out')
    arguments.overlay, arguments.mask = arguments.overlay or 'detect/overlay', arguments.mask or 'detect/mask'
    arguments.storage = arguments.storage or 'mcap'
    return _start('record', arguments, ros)


def view(argv: Sequence[str] | None = None) -> int:
    """Show the detector's results live on a page for any browser."""
    own, ros = split_arguments(argv)
    parser = _parser(view, f'Subscribes only to what is looked at. Ends with Ctrl-C. {_ROS_ARGUMENTS}')
    parser.add_argument('--detector', metavar='NODE', default='detect', help='name of the node (default: %(default)s)')
    host = 'address to listen on; 0.0.0.0: whoever reaches it (default: %(default)s)'
    parser.add_argument('--host', default='127.0.0.1', help=host)
    parser.add_argument('--port', type=int, default=PAGE_PORT, help='of the page; 0: a free one (default: %(default)s)')
    parser.add_argument('--open', action='store_true', help='open the page in a browser, where there is a display')
    return _start('view', parser.parse_args(own), ros)


def demo(argv: Sequence[str] | None = None) -> int:
    """Play a clip through the detector: one process plays, one detects, one records, ROS 2 between them."""
    own, ros = split_arguments(argv)
    parser = _parser(demo, 'Parameters of the detector follow --ros-args: -p window.past:=3')
    parser.add_argument('input', metavar='INPUT', nargs='?', help='folder of frames, video or bag (default: a flight)')
    parser.add_argument('--out', metavar='DIR', default='demo_output', help='for the results (default: %(default)s)')
    parser.add_argument('--params', metavar='FILE', help="parameters of the detector (default: the package's cpu.yaml)")
    rate = 'speed of playing, 1: as recorded (default: %(default)s, at which two cores compute every frame)'
    parser.add_argument('--rate', type=positive_float, default=0.2, help=rate)
    parser.add_argument('--frames', type=positive_int, help='length of the rendered flight (default: 60)')
    parser.add_argument('--seed', type=int, help='seed of the rendered flight (default: 7)')
    parser.add_argument('--view', action='store_true', help='show it live in a browser; waits until the page is open')
    arguments = parser.parse_args(own)
    if arguments.input and (arguments.frames, arguments.seed) != (None, None):
        parser.error('--frames and --seed are for the rendered flight and have no effect with INPUT; leave them out')
    arguments.frames = arguments.frames or 60
    arguments.seed = 7 if arguments.seed is None else arguments.seed
    return _start('demo', arguments, ros)
