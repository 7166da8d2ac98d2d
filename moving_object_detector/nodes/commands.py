"""Command lines of the ROS programs; the modules they run are imported later, so ``--help`` is instant."""

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
    """Run the module of this folder with the program's name."""
    return run_node(lambda: int(import_module(f'{__package__}.{program}').run(arguments, ros)))


def _keep_memory() -> None:
    """Keep freed image memory in the process (glibc): allocating it anew per image costs more than decoding."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def detect(argv: Sequence[str] | None = None) -> int:
    """Detect objects that move on their own in the images of a moving camera."""
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
            # Python would wait for the loading thread, and building an engine cannot be interrupted.
            sys.stderr.flush()
            os._exit(0)
        return 0

    return run_node(body)


def play(argv: Sequence[str] | None = None) -> int:
    """Publish a folder of frames, a video or a bag as camera images, at the recorded pace."""
    own, ros = split_arguments(argv)
    parser = _parser(play)
    add_source_arguments(parser)
    parser.add_argument('--topic', default=TOPIC, help='topic of the images (default: %(default)s)')
    parser.add_argument('--rate', type=positive_float, default=1.0, help='playback speed, 1: as recorded (default: 1)')
    parser.add_argument('--loop', action='store_true', help='start again at the end, until Ctrl-C')
    parser.add_argument('--clock', action='store_true', help="publish the recording's time on /clock")
    stamp = 'time in the headers, now: of publishing, source: of the recording (default: now; source with --clock)'
    parser.add_argument('--stamp', choices=('now', 'source'), help=stamp)
    parser.add_argument('--frame-id', default='camera', help='frame id of the headers (default: %(default)s)')
    parser.add_argument('--compressed', action='store_true', help='publish JPEG on TOPIC/compressed instead')
    parser.add_argument('--keep-going', action='store_true', help='skip unreadable frames instead of stopping')
    wait = 'wait for a subscriber before publishing, and fail after this time (0: wait forever)'
    parser.add_argument('--wait-for-subscriber', type=seconds, metavar='SECONDS', help=wait)
    arguments = parser.parse_args(own)
    if arguments.clock and arguments.stamp == 'now':
        parser.error("--clock publishes the recording's time, and the headers must agree: leave out --stamp now")
    arguments.stamp = arguments.stamp or ('source' if arguments.clock else 'now')
    return _start('play', arguments, ros)


def record(argv: Sequence[str] | None = None) -> int:
    """Record the detector's results: the overlay as a video, masks and other topics as a bag."""
    own, ros = split_arguments(argv)
    parser = _parser(record, f'Ends after --frames or with Ctrl-C; the files are complete either way. {_ROS_ARGUMENTS}')
    parser.add_argument('--video', metavar='OUT.mp4', help='video to write; an older one is replaced')
    parser.add_argument('--overlay', metavar='TOPIC', help='image topic for the video (default: detect/overlay)')
    parser.add_argument('--fps', type=positive_float, help='frame rate of the video (default: from the first stamps)')
    parser.add_argument('--bag', metavar='OUT_DIR', help='bag to write')
    parser.add_argument('--mask', metavar='TOPIC', help='image topic for the bag (default: detect/mask)')
    also = 'another topic for the bag, with a message type that comes with ROS 2; repeatable'
    parser.add_argument('--also', metavar='TOPIC', action='append', default=[], help=also)
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), help='format of the bag (default: mcap)')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    parser.add_argument('--frames', type=positive_int, metavar='N', help='end after N overlays and N masks')
    arguments = parser.parse_args(own)
    if not (arguments.video or arguments.bag):
        parser.error('nothing to write: give --video, --bag or both')
    for kind, options in (('video', ('overlay', 'fps')), ('bag', ('mask', 'also', 'storage', 'overwrite'))):
        idle = [f'--{name}' for name in options if getattr(arguments, name) and not getattr(arguments, kind)]
        if idle:
            parser.error(f'{", ".join(idle)}: no effect without --{kind}; give --{kind}, or leave this out')
    arguments.overlay, arguments.mask = arguments.overlay or 'detect/overlay', arguments.mask or 'detect/mask'
    arguments.storage = arguments.storage or 'mcap'
    return _start('record', arguments, ros)


def view(argv: Sequence[str] | None = None) -> int:
    """Show the detector's results live on a web page."""
    own, ros = split_arguments(argv)
    parser = _parser(view, f'Subscribes only to results that a page shows. Ends with Ctrl-C. {_ROS_ARGUMENTS}')
    parser.add_argument('--detector', metavar='NODE', default='detect', help='detector node (default: %(default)s)')
    host = 'address to listen on; 0.0.0.0 lets every computer on the network see the images (default: %(default)s)'
    parser.add_argument('--host', default='127.0.0.1', help=host)
    port = 'port of the page; 0: any free port (default: %(default)s)'
    parser.add_argument('--port', type=int, default=PAGE_PORT, help=port)
    parser.add_argument('--open', action='store_true', help='open the page in a browser, if there is a display')
    return _start('view', parser.parse_args(own), ros)


def demo(argv: Sequence[str] | None = None) -> int:
    """Play a clip through the detector and record the results, with play, detect and record as separate processes."""
    own, ros = split_arguments(argv)
    parser = _parser(demo, 'Parameters of the detector follow --ros-args: -p window.past:=3')
    parser.add_argument('input', metavar='INPUT', nargs='?', help='folder, video or bag (default: render a flight)')
    parser.add_argument('--bag-topic', metavar='TOPIC', help='image topic of a bag that has several')
    out = 'folder for video, contact sheet, masks and logs (default: %(default)s)'
    parser.add_argument('--out', metavar='DIR', default='demo_output', help=out)
    parser.add_argument('--params', metavar='FILE', help="parameter file (default: the package's cpu.yaml)")
    rate = 'playback speed, 1: as recorded (default: %(default)s, slow enough for two CPU cores to process every frame)'
    parser.add_argument('--rate', type=positive_float, default=0.2, help=rate)
    parser.add_argument('--frames', type=positive_int, help='frames of the rendered flight (default: 60)')
    parser.add_argument('--seed', type=int, help='seed of the rendered flight (default: 7)')
    parser.add_argument('--view', action='store_true', help='show results in a browser; play once the page is open')
    arguments = parser.parse_args(own)
    if arguments.input and (arguments.frames, arguments.seed) != (None, None):
        parser.error('--frames and --seed apply to the rendered flight only; leave them out with INPUT')
    arguments.frames = arguments.frames or 60
    arguments.seed = 7 if arguments.seed is None else arguments.seed
    return _start('demo', arguments, ros)
