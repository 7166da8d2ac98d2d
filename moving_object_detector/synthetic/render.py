"""Render a clip of a random scene: frames, exact masks and exact flow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import run_program
from moving_object_detector.tools.arguments import positive_int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``render``."""
    parser = argparse.ArgumentParser(prog='render', description=__doc__)
    parser.add_argument('out', type=Path, help='folder for frames/ and masks/ (PNG), and flow/ (.flo) with --flow')
    parser.add_argument('--frames', type=positive_int, default=80, help='default %(default)s')
    parser.add_argument('--seed', type=int, default=7, help='the same seed gives the same pixels, default %(default)s')
    parser.add_argument('--height', type=int, default=360, help='default %(default)s')
    parser.add_argument('--width', type=int, default=640, help='default %(default)s')
    parser.add_argument('--objects', type=int, nargs=2, default=(1, 2), metavar=('LEAST', 'MOST'), help='default 1 2')
    parser.add_argument('--flow', action='store_true', help='write the flow from each frame to the next')
    arguments = parser.parse_args(argv)

    def body() -> int:
        import cv2
        from tqdm import tqdm

        from moving_object_detector.common.errors import UserError
        from moving_object_detector.common.files import make_folder
        from moving_object_detector.flow.files import write_flow
        from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

        least, most = arguments.objects
        if arguments.seed < 0 or not 0 <= least <= most or min(arguments.height, arguments.width) < 32:
            raise UserError('--seed takes 0 or more, --objects LEAST not above MOST, --height and --width 32 or more')
        size = (arguments.height, arguments.width)
        scene = clip_scene(arguments.seed, SceneOptions(size=size, objects=(least, most)))
        names = ('frames', 'masks', 'flow') if arguments.flow else ('frames', 'masks')
        for name in names:
            make_folder(arguments.out / name)
        for time in tqdm(range(arguments.frames), unit='frame', desc='render'):
            image = cv2.cvtColor(scene.image(time), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(arguments.out / 'frames' / f'{time:05d}.png'), image)
            cv2.imwrite(str(arguments.out / 'masks' / f'{time:05d}.png'), scene.mask(time).astype('uint8') * 255)
            if arguments.flow:
                write_flow(arguments.out / 'flow' / f'{time:05d}.flo', scene.flow(time, time + 1))
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
