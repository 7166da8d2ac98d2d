"""Record the detector's results: the overlay as a video, masks and whatever else as a bag."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moving_object_detector.common.program import positive_float, positive_int, seconds
from moving_object_detector.nodes.runtime import run_node, split_arguments


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)

    def body() -> int:
        from moving_object_detector.nodes.recording import record

        return record(arguments, ros)

    return run_node(body)


if __name__ == '__main__':
    sys.exit(main())
