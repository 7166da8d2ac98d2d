"""Show the detector's results live: a page for any browser, and a server for the Foxglove app where it is installed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from moving_object_detector.nodes.runtime import run_node, split_arguments

PAGE_PORT: Final = 8766
FOXGLOVE_PORT: Final = 8765


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='view',
        description=__doc__,
        epilog='Subscribes only to what is looked at. Ends with Ctrl-C. ROS arguments (remapping) follow --ros-args.',
    )
    parser.add_argument('--detector', metavar='NODE', default='detect', help='name of the node (default: %(default)s)')
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen on; 0.0.0.0: whoever reaches it (default: %(default)s)'
    )
    parser.add_argument('--port', type=int, default=PAGE_PORT, help='of the page; 0: a free one (default: %(default)s)')
    parser.add_argument(
        '--foxglove-port',
        type=int,
        default=FOXGLOVE_PORT,
        help='for the Foxglove app, where foxglove-sdk is installed; 0: do without (default: %(default)s)',
    )
    parser.add_argument('--open', action='store_true', help='open the page in a browser, where there is a display')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)

    def body() -> int:
        from moving_object_detector.nodes.view_servers import view

        return view(arguments, ros)

    return run_node(body)


if __name__ == '__main__':
    sys.exit(main())
