"""Time the detector and its stages by every engine that runs here, beside the naive pipeline; a table and JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import add_settings, positive_int, run_program


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='bench',
        description=__doc__,
        epilog='Each case has a process of its own; those that are compared take turns.',
    )
    parser.add_argument('--config', type=Path, help='measure this parameter file in place of the built-in settings')
    add_settings(parser, 'options, in every setting')
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='CASE', help="settings or cases, such as cpu 'paper/openvino*'"
    )
    parser.add_argument('--input', default='', help='folder, video or bag; a rendered 640x480 clip unless given')
    parser.add_argument(
        '--frames', type=positive_int, default=24, help='of the input, played there and back (%(default)s)'
    )
    parser.add_argument('--quick', action='store_true', help='the smallest settings, two rounds: a check, not a figure')
    parser.add_argument('--json', type=Path, metavar='FILE', help='the same figures as JSON')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``bench``."""
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser().parse_args(words)

    def body() -> int:
        from moving_object_detector.bench.measure import run

        return run(arguments, words)

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
