"""Play a clip through the detector: one process plays, one detects, one records, ROS 2 between them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from moving_object_detector.nodes.playthrough import Parts, Playthrough, isolated_environment
from moving_object_detector.nodes.runtime import ros_node, run_node, spinning
from moving_object_detector.nodes.view import PAGE_PORT
from moving_object_detector.tools.arguments import positive_float, positive_int

_PACKAGE = 'moving_object_detector'


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__)
    parser.add_argument(
        'input', metavar='INPUT', nargs='?', help='folder of frames, video or bag; else a rendered scene'
    )
    parser.add_argument('--out', metavar='DIR', default='demo_output', help='for the results (default: %(default)s)')
    parser.add_argument('--params', metavar='FILE', help="parameters of the detector (default: the package's cpu.yaml)")
    parser.add_argument(
        '--rate',
        type=positive_float,
        default=0.2,
        help='speed of playing, 1: as recorded (default: %(default)s, at which two cores compute every frame)',
    )
    parser.add_argument('--frames', type=positive_int, default=80, help='length of the rendered scene (default: 80)')
    parser.add_argument('--seed', type=int, default=7, help='seed of the rendered scene (default: 7)')
    parser.add_argument(
        '--view', action='store_true', help='show it live in a browser; waits for the page to be opened'
    )
    parser.add_argument('--domain-id', type=int, help='ROS domain (default: one of its own)')
    return parser.parse_args(argv)


class Demo:
    """The folder of results and the programs of the installed package."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix

        from moving_object_detector.common.errors import UserError

        try:
            prefix = Path(get_package_prefix(_PACKAGE))
        except PackageNotFoundError:
            raise UserError(f'{_PACKAGE} is not installed where ROS looks; source install/setup.bash first') from None
        self._arguments = arguments
        self._environment = isolated_environment(arguments.domain_id)
        self.out = Path(arguments.out)
        programs = prefix / 'lib' / _PACKAGE
        self._programs = Playthrough(lambda name: [str(programs / name)], self.out, self._environment)
        self._params = Path(arguments.params or prefix / 'share' / _PACKAGE / 'config' / 'cpu.yaml')
        if not self._params.is_file():
            raise UserError(f'there is no file {self._params}; --params takes a YAML file with parameters')

    def _clip(self, running: ExitStack) -> Path:
        from moving_object_detector.datasets.sources import open_source

        if self._arguments.input:
            # A wrong path is told before the model is loaded.
            open_source(self._arguments.input)
            return Path(self._arguments.input)
        folder = Path(running.enter_context(TemporaryDirectory()))
        frames, seed = str(self._arguments.frames), str(self._arguments.seed)
        print(f'rendering {frames} frames, seed {seed}', flush=True)
        self._programs.run('render', folder, '--frames', frames, '--seed', seed)
        return folder / 'frames'

    def run(self) -> None:
        """Make all results; what they are stands in the README."""
        from moving_object_detector.common.errors import UserError

        self.out.mkdir(parents=True, exist_ok=True)
        os.environ.update(self._environment)
        video, sheet, bag = (self.out / name for name in ('overlay.mp4', 'contact_sheet.png', 'masks'))
        parts = Parts(
            detect=('--ros-args', '--params-file', self._params),
            record=('--video', video, '--bag', bag, '--overwrite'),
            results=('/detect/overlay', '/detect/mask'),
            # With the recording's own stamps the overlay video runs at the recording's speed.
            play=('--rate', str(self._arguments.rate), '--stamp', 'source'),
        )
        with ExitStack() as running, ros_node('demo', []) as (node, stop), spinning(node):
            clip = self._clip(running)
            if self._arguments.view:
                running.enter_context(self._programs.child('view', ['--open']))
                print(f'look at http://localhost:{PAGE_PORT}/ (playing begins when the page is open)', flush=True)
            played = self._programs.play(node, stop, clip, parts, lookers=2 if self._arguments.view else 1)
        if not played.watcher.count('published'):
            raise UserError(f'the detector published no mask; see {self._programs.log("detect")}')
        self._programs.run('contact_sheet', video, sheet)
        print(f'results: {video}, {sheet}, {bag}')
        print(played.watcher.summary(played.frames))


def _demo(arguments: argparse.Namespace) -> int:
    try:
        Demo(arguments).run()
    except KeyboardInterrupt:
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_node(lambda: _demo(arguments))


if __name__ == '__main__':
    sys.exit(main())
