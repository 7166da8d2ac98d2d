"""Play a clip through the real detector as a camera would, and record what it says and what it misses."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.nodes.playthrough import Parts, Playthrough, isolated_environment
from moving_object_detector.nodes.runtime import ros_node, run_node, spinning, split_arguments
from moving_object_detector.tools.arguments import add_source_arguments, positive_float

if TYPE_CHECKING:
    from moving_object_detector.nodes.playthrough import Played

_MASK: Final = '/detect/mask'
_TIMINGS: Final = ('/detect/debug/pipeline_latency_ms', '/detect/debug/processing_time_ms')
# What the detector misses counts, not what the recording does: masks wait for it.
_KEPT: Final = tuple(
    argument for topic in (_MASK, *_TIMINGS) for argument in ('-p', f'qos_overrides.{topic}.publisher.depth:=200')
)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='live',
        description=__doc__,
        epilog='Parameters of the detector follow --ros-args: --ros-args -p window.past:=3. What comes: masks, a bag '
        'with the masks under the stamps of their frames and the timings; live.json, what was counted; logs.',
    )
    add_source_arguments(parser)
    parser.add_argument('--out', metavar='DIR', required=True, help='folder for the results')
    parser.add_argument('--rate', type=positive_float, default=1.0, help='times faster than recorded (default: 1)')
    parser.add_argument('--params', metavar='FILE', help='parameters of the detector (default: its own defaults)')
    parser.add_argument('--estimate', choices=('refined', 'zero_lag'), help='parameter estimate of the detector')
    parser.add_argument(
        '--best-effort',
        action='store_true',
        help='play as most cameras do: images that get lost on the way, as many large ones do on a busy '
        'machine, are not sent again',
    )
    parser.add_argument('--domain-id', type=int, help='ROS domain (default: one of its own)')
    return parser.parse_args(argv)


def _parts(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> Parts:
    given: list[str | Path] = ['--ros-args', *_KEPT]
    if arguments.params:
        given += ['--params-file', arguments.params]
    given += ['-p', 'autostart:=true']
    if arguments.estimate:
        given += ['-p', f'estimate:={arguments.estimate}']
    source = ['--bag-topic', arguments.bag_topic] if arguments.bag_topic else []
    source += ['--fps', str(arguments.fps)] if arguments.fps else []
    quality = ['--best-effort'] if arguments.best_effort else []
    also = [argument for topic in _TIMINGS for argument in ('--also', topic)]
    return Parts(
        detect=[*given, *ros_arguments],
        record=['--bag', Path(arguments.out) / 'masks', '--overwrite', *also],
        results=(_MASK, *_TIMINGS),
        play=[*source, '--rate', str(arguments.rate), '--stamp', 'source', '--keep-going', *quality],
    )


def _report(arguments: argparse.Namespace, played: Played) -> dict[str, Any]:
    """Return what was counted and measured."""
    watcher = played.watcher
    pace = re.search(r'frames published at ([\d.]+) frames/s \(asked: ([\d.]+)\)', played.play_log)
    recorded = re.search(rf'(\d+) messages of {re.escape(_MASK)}', played.record_log)
    names = ('received', 'dropped', 'skipped', 'invalid', 'repeated', 'failed', 'processed', 'published')
    return {
        'input': str(arguments.input),
        'rate': arguments.rate,
        'frames': {
            'played': played.frames,
            # Not by the detector: between the two processes.
            'lost': max(played.frames - watcher.count('received'), 0),
            **{name: watcher.count(name) for name in names},
            'recorded': int(recorded[1]) if recorded else 0,
        },
        'frames per second': {
            'asked': float(pace[2]) if pace else 0.0,
            'played': float(pace[1]) if pace else 0.0,
            'detected': watcher.frame_rate,
        },
        'detector': watcher.values,
    }


def _live(arguments: argparse.Namespace, ros_arguments: Sequence[str]) -> int:
    import moving_object_detector
    from moving_object_detector.common.errors import UserError
    from moving_object_detector.common.files import make_folder, write_atomically
    from moving_object_detector.datasets.sources import open_source

    # Mistakes are told before the model is loaded.
    open_source(arguments.input, topic=arguments.bag_topic, fps=arguments.fps)
    if arguments.params and not Path(arguments.params).is_file():
        raise UserError(f'there is no file {arguments.params}; --params takes a YAML file with parameters')
    out = Path(arguments.out)
    make_folder(out)
    environment = isolated_environment(arguments.domain_id)
    os.environ.update(environment)
    # The programs are those of this very package, installed or not.
    package = Path(moving_object_detector.__file__).parent
    paths = [str(package.parent), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment |= {'PYTHONPATH': os.pathsep.join(paths), 'PYTHONUNBUFFERED': '1'}
    programs = Playthrough(lambda name: [sys.executable, '-m', f'{package.name}.nodes.{name}'], out, environment)
    try:
        with ros_node('live', []) as (node, stop), spinning(node):
            played = programs.play(node, stop, Path(arguments.input), _parts(arguments, ros_arguments))
    except KeyboardInterrupt:
        return 130
    if not played.watcher.count('received'):
        raise UserError(f'the detector received none of {played.frames} images; see {programs.log("detect")}')
    write_atomically(out / 'live.json', json.dumps(_report(arguments, played), indent=1).encode())
    print(played.watcher.summary(played.frames))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    own, ros = split_arguments(argv)
    arguments = _parse(own)
    return run_node(lambda: _live(arguments, ros))


if __name__ == '__main__':
    sys.exit(main())
