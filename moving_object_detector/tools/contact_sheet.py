"""Show evenly spaced frames of a folder, a video or a bag in one PNG."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moving_object_detector.common.program import run_program
from moving_object_detector.tools.arguments import add_source_arguments, positive_int, source_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from moving_object_detector.media.frames import FrameSource


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Return ``wanted`` frame numbers (fewer if there are fewer) from 0 to ``total - 1``, both included."""
    if wanted >= total:
        return list(range(total))
    return [round(k * (total - 1) / max(wanted - 1, 1)) for k in range(wanted)]


def draw_sheet(images: Sequence[tuple[int, NDArray[np.uint8]]], columns: int, width: int) -> NDArray[np.uint8]:
    """Draw labelled images in a grid.

    Args:
        images: Pairs of a frame number and its (H, W, 3) uint8 RGB image; the first gives the
            cells' shape, and images of another shape are fitted into it.
        columns: Cells in a row.
        width: Width of a cell in pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    """
    import cv2
    import numpy as np

    height = max(1, round(width * images[0][1].shape[0] / images[0][1].shape[1]))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    gap = 4
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for cell, (number, image) in enumerate(images):
        scale = min(width / image.shape[1], height / image.shape[0])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        picture: Any = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        # White on black is read on any picture.
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, str(number), (5, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
        top, left = gap + cell // columns * (height + gap), gap + cell % columns * (width + gap)
        sheet[top : top + size[1], left : left + size[0]] = picture
    return sheet


def select_frames(source: FrameSource, wanted: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """Read a source once or twice and return evenly spaced frames with their numbers."""
    total = source.frame_count
    if total is None:
        total = sum(1 for _ in source)
    chosen = set(evenly_spaced(total, wanted))
    return [(number, frame.image) for number, frame in enumerate(source) if number in chosen]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='contact_sheet', description=__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUT.png', help='picture to write; an older one is replaced')
    parser.add_argument('--columns', type=positive_int, default=4, help='default: %(default)s')
    parser.add_argument('--frames', type=positive_int, default=12, help='default: %(default)s')
    parser.add_argument('--width', type=positive_int, default=320, help='pixels of a frame (default: %(default)s)')
    return parser.parse_args(argv)


def _contact_sheet(arguments: argparse.Namespace) -> int:
    import cv2

    from moving_object_detector.common.errors import UserError

    output = Path(arguments.output)
    if output.suffix.lower() != '.png':
        raise UserError(f'{output}: give a file name that ends in .png')
    source = source_of(arguments, arguments.input)
    images = select_frames(source, arguments.frames)
    sheet = draw_sheet(images, arguments.columns, arguments.width)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(cv2.imencode('.png', cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())
    except OSError as error:
        raise UserError(f'{output}: cannot be written: {error.strerror}') from error
    print(f'{output}: {len(images)} frames of {arguments.input}')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_program(lambda: _contact_sheet(arguments))


if __name__ == '__main__':
    sys.exit(main())
