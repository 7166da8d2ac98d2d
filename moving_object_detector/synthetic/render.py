"""Render a clip with exact truth: a scene of sheets, or a flight over a world of planes.

OUT holds frames/ and masks/ (PNG), with --flow also flow/ (.flo, to the next frame) and occluded/ (PNG). A flight adds
instances/ (PNG, number of the mover), depth/ (TIFF, float32 metres along the optical axis, infinite in the sky),
trajectory.txt (TUM: stamp, position, quaternion of the optical frame in odom) and camera.json; --bag adds a rosbag2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import positive_int, run_program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``render``."""
    parser = argparse.ArgumentParser(
        prog='render', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--scene', choices=('sheets', 'flight'), default='sheets', help='default %(default)s')
    parser.add_argument('--frames', type=positive_int, default=80, help='default %(default)s')
    parser.add_argument('--seed', type=int, default=7, help='the same seed gives the same pixels, default %(default)s')
    parser.add_argument('--height', type=int, default=360, help='default %(default)s')
    parser.add_argument('--width', type=int, default=640, help='default %(default)s')
    parser.add_argument(
        '--objects', type=int, nargs=2, metavar=('LEAST', 'MOST'), help='sheets: that move on their own, default 1 2'
    )
    parser.add_argument('--still', action='store_true', help='nothing moves on its own')
    parser.add_argument('--motion', default='', help='flight: such as orbit; else by chance')
    parser.add_argument('--parallax', type=float, help='flight: 0 nothing stands up, 2 much and near, default 1')
    parser.add_argument('--flow', action='store_true', help='write the flow from each frame to the next')
    parser.add_argument(
        '--bag', action='store_true', help='flight: write OUT/bag with images, CameraInfo, masks and tf from odom'
    )
    arguments = parser.parse_args(argv)

    def body() -> int:
        from moving_object_detector.synthetic.clip_files import render

        return render(arguments)

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
