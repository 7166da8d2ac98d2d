"""Play a clip through the detector: one process plays, one detects, one records, ROS 2 between them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from moving_object_detector.nodes.runtime import ros_node, run_node, spinning
from moving_object_detector.tools.arguments import positive_float, positive_int

if TYPE_CHECKING:
    from moving_object_detector.nodes.children import Child

_PACKAGE = 'moving_object_detector'
# A camera's images may get lost; the frames of a clip are to be seen all.
_NO_LOSS = (
    *('-p', 'qos_overrides./image.subscription.reliability:=reliable'),
    *('-p', 'qos_overrides./image.subscription.depth:=30'),
)
_START_SECONDS = 300.0


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
    parser.add_argument('--domain-id', type=int, help='ROS domain (default: one of its own)')
    return parser.parse_args(argv)


def isolated_environment(domain: int | None) -> dict[str, str]:
    """Return this process's environment with a ROS domain of its own that nothing outside the machine sees."""
    environment = dict(os.environ)
    # Up to 101 the ports stay clear of those that the system hands out.
    environment['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101 if domain is None else domain)
    if environment.get('ROS_DISTRO') == 'humble':
        environment['ROS_LOCALHOST_ONLY'] = '1'
    else:
        environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return environment


class Demo:
    """The folder of results and the programs of the installed package."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix

        from moving_object_detector.errors import UserError

        try:
            prefix = Path(get_package_prefix(_PACKAGE))
        except PackageNotFoundError:
            raise UserError(f'{_PACKAGE} is not installed where ROS looks; source install/setup.bash first') from None
        self._programs = prefix / 'lib' / _PACKAGE
        self._arguments = arguments
        self._environment = isolated_environment(arguments.domain_id)
        self.out = Path(arguments.out)
        self._params = Path(arguments.params or prefix / 'share' / _PACKAGE / 'config' / 'cpu.yaml')
        if not self._params.is_file():
            raise UserError(f'there is no file {self._params}; --params takes a YAML file with parameters')

    def _child(self, program: str, *arguments: str | Path) -> Child:
        from moving_object_detector.nodes.children import Child

        log = self.out / ('node.log' if program == 'detect' else f'{program}.log')
        return Child([str(self._programs / program), *map(str, arguments)], log, self._environment)

    def _run(self, program: str, *arguments: str | Path) -> None:
        with self._child(program, *arguments) as child:
            child.wait()

    def _clip(self, running: ExitStack) -> Path:
        from moving_object_detector.datasets.sources import open_source

        if self._arguments.input:
            # A wrong path is told before the model is loaded.
            open_source(self._arguments.input)
            return Path(self._arguments.input)
        folder = Path(running.enter_context(TemporaryDirectory()))
        print(f'rendering {self._arguments.frames} frames, seed {self._arguments.seed}', flush=True)
        self._run('render', folder, '--frames', str(self._arguments.frames), '--seed', str(self._arguments.seed))
        return folder / 'frames'

    def run(self) -> None:
        """Make all results; what they are stands in the README."""
        from moving_object_detector.errors import UserError
        from moving_object_detector.nodes.watcher import Settled, Watcher

        self.out.mkdir(parents=True, exist_ok=True)
        os.environ.update(self._environment)
        with ExitStack() as running, ros_node('demo', []) as (node, stop), spinning(node):
            clip = self._clip(running)
            watcher = Watcher(node, stop)
            print('loading the model', flush=True)
            detect = running.enter_context(
                self._child('detect', '--ros-args', '--params-file', self._params, *_NO_LOSS)
            )
            watcher.wait(lambda: watcher.values.get('state') == 'active', 'activation', [detect], _START_SECONDS)
            record = running.enter_context(
                self._child('record', '--video', self.out / 'overlay.mp4', '--bag', self.out / 'masks', '--overwrite')
            )
            results = ('/detect/overlay', '/detect/mask')
            watcher.wait(lambda: watcher.subscribed(*results), 'recording', [detect, record], _START_SECONDS)
            print(f'playing {clip}', flush=True)
            # With the recording's own stamps the overlay video runs at the recording's speed.
            timing = ('--rate', str(self._arguments.rate), '--stamp', 'source')
            play = running.enter_context(self._child('play', clip, *timing, '--wait-for-subscriber', '60'))
            settled = Settled(watcher)
            # Both are asked each time: one tells the progress, the other fails when the player does.
            watcher.wait(lambda: all([settled(), play.finished()]), 'the end', [detect, record], float('inf'))
            record.stop()
            detect.stop()
            played = play.number_before(' frames published')
        if not watcher.count('published'):
            raise UserError(f'the detector published no mask; see {self.out / "node.log"}')
        self._run('contact_sheet', self.out / 'overlay.mp4', self.out / 'contact_sheet.png')
        print(f'results: {", ".join(str(self.out / name) for name in ("overlay.mp4", "contact_sheet.png", "masks"))}')
        print(watcher.summary(played))


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
