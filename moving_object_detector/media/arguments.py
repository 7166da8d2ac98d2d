"""Command-line arguments of every program that reads frames; light, so that `--help` is instant."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.program import positive_float

if TYPE_CHECKING:
    from moving_object_detector.media.frames import FrameSource


TOPIC: Final = 'camera/image_raw'
"""Of images, where none is named."""
BLACK: Final = 'Level of 16-bit images shown as black; see white.'
WHITE: Final = 'Level of 16-bit images shown as white; where it is not above black, the first image gives both.'
"""What the options of these names mean, of the node and of programs."""


def add_source_arguments(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add ``input``, or a list ``inputs`` where ``several``, and what :func:`source_of` takes besides."""
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
    add_levels(parser)


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Add ``--levels``, a pair of numbers."""
    parser.add_argument(
        '--levels',
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=('BLACK', 'WHITE'),
        help='levels of 16-bit images shown as black and as white (default: from the range of the first image)',
    )


def source_of(arguments: argparse.Namespace, path: str) -> FrameSource:
    """Open one of the inputs as the arguments say; raises UserError where one of these has no effect on it."""
    from moving_object_detector.media.sources import open_source

    levels = tuple(arguments.levels)
    source = open_source(path, topic=arguments.bag_topic, fps=arguments.fps, levels=levels)
    if any(levels) and not source.has_levels:
        raise UserError(f'{path}: --levels has no effect on a video, whose samples have 8 bits; leave it out')
    return source
