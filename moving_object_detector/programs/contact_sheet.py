"""Show evenly spaced frames of a folder, a video or a bag in one PNG."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import positive_int, run_program
from moving_object_detector.media.arguments import add_source_arguments, source_of


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='contact_sheet', description=__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUT.png', help='picture to write; an older one is replaced')
    parser.add_argument('--columns', type=positive_int, default=4, help='default: %(default)s')
    parser.add_argument('--frames', type=positive_int, default=12, help='default: %(default)s')
    parser.add_argument('--width', type=positive_int, default=320, help='pixels of a frame (default: %(default)s)')
    return parser.parse_args(argv)


def _contact_sheet(arguments: argparse.Namespace) -> int:
    from moving_object_detector.common.errors import UserError
    from moving_object_detector.common.files import write_atomically
    from moving_object_detector.media.codecs import encode_png
    from moving_object_detector.media.pictures import draw_sheet, select_frames

    output = Path(arguments.output)
    if output.suffix.lower() != '.png':
        raise UserError(f'{output}: give a file name that ends in .png')
    source = source_of(arguments, arguments.input)
    images = select_frames(source, arguments.frames)
    write_atomically(output, encode_png(draw_sheet(images, arguments.columns, arguments.width)).tobytes())
    print(f'{output}: {len(images)} frames of {arguments.input}')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_program(lambda: _contact_sheet(arguments))


if __name__ == '__main__':
    sys.exit(main())
