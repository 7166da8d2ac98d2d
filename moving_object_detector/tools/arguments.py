"""Command-line arguments that several programs share."""

from __future__ import annotations

import argparse
import math


def positive_float(text: str) -> float:
    """Parse a number above zero."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return value


def seconds(text: str) -> float:
    """Parse a duration in seconds, zero or more."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f'{text} is not a duration in seconds')
    return value


def positive_int(text: str) -> int:
    """Parse a whole number above zero."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return value


def add_source_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add ``input``, ``--bag-topic`` and ``--fps``, which ``open_source`` takes; ``several``: a list ``inputs``."""
    what = 'folder of frames, video file, or bag (ROS 2 or ROS 1)'
    if several:
        parser.add_argument('inputs', metavar='INPUT', nargs='+', help=what)
    else:
        parser.add_argument('input', metavar='INPUT', help=what)
    # Empty is what a launch file passes for an argument that was left out.
    parser.add_argument(
        '--bag-topic', metavar='TOPIC', type=lambda text: text or None, help='image topic of a bag that has several'
    )
    parser.add_argument(
        '--fps',
        type=positive_float,
        help="frames per second in place of the input's own timing (a folder has none: 24)",
    )
