"""The program ``train``: from unlabelled video to a model that the detector runs with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign
from moving_object_detector.common.program import add_settings, refuse_old, run_program

if TYPE_CHECKING:
    from moving_object_detector.training.config import TrainConfig

DESCRIPTION: Final = """
Train the mask generator: first on rendered scenes, where the mask is exact and free, then against the inpainter on
your own video, which needs no annotation. It leaves NAME.safetensors, which the detector takes as `model`, and its card
NAME.md in --out. Killed at any moment it goes on from its last checkpoint when started again with the same arguments.
Several GPUs or machines: torchrun --nproc-per-node N -m moving_object_detector.training.train ...
"""
FLOW: Final = """
Train PWC-Net on pairs of frames that are rendered on the fly, whose flow is exact and free; with video.root also on
real video, by a teacher's flow. It leaves NAME.safetensors, which the detector takes as
`flow.model`, and its card NAME.md with the end-point errors beside those of OpenCV's DIS.
"""
WARM_UP: Final = 4
"""Steps before those that are timed."""


def _add(parser: argparse.ArgumentParser, config: str, setting: str, out: str) -> None:
    parser.add_argument('--config', type=Path, metavar='FILE', help=f'file of options, such as {config}')
    add_settings(parser, f'options, such as {setting}')
    parser.add_argument('--out', type=Path, default=Path(out), help='folder of the run, default %(default)s')
    parser.add_argument('--options', action='store_true', help='list all options and end')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='train', description=DESCRIPTION, allow_abbrev=False)
    _add(parser, 'config/train.yaml', 'data.root=my_videos', 'training')
    parser.add_argument(
        '--ideal',
        action='store_true',
        help='table 1 of the paper: constant independent flow inside and outside of the true masks; a check of the '
        'objective, not a training for use',
    )
    parser.add_argument(
        '--bench',
        nargs='?',
        type=int,
        const=24,
        metavar='STEPS',
        help='time this many steps of each stage (%(const)s), on rendered clips unless data.root is set; keeps nothing',
    )
    commands = parser.add_subparsers(dest='command', metavar='flow', help='train the flow network: train flow --help')
    flow = commands.add_parser('flow', description=FLOW, allow_abbrev=False)
    _add(flow, 'config/train_flow.yaml', 'training.steps=500', 'flow_training')
    return parser


def list_options(config: type) -> str:
    """Return all options of a kind of training with default and meaning, one a line."""
    from moving_object_detector.common.options import options_of

    options = options_of(config)
    return ''.join(f'{one.name}={one.default}\n    {one.description} Takes {one.takes()}.\n' for one in options)


def bench(config: TrainConfig, steps: int, folder: Path) -> str:
    """Time steps of the stages by the loop's own timing, on rendered clips without footage; return a Markdown table."""
    import torch

    from moving_object_detector.common.options import with_values
    from moving_object_detector.synthetic.clip_files import write_clip
    from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
    from moving_object_detector.training.run import run_training

    values: dict[str, object] = {f'{name}.steps': WARM_UP + steps for name in ('rendered', 'inpainter', 'game')}
    if not config.data.root:
        clips = [folder / f'clip{seed}' for seed in range(2)]
        for seed, clip in enumerate(clips):
            write_clip(clip_scene(seed, SceneOptions((360, 640), (1, 2))), clip, 20)
        values['data.root'] = ','.join(str(clip / 'frames') for clip in clips)
    # Checkpoints and pictures are not what is timed.
    values |= {'run.checkpoint_every': 10**9, 'run.picture_every': 10**9, 'run.candidates': 1, 'run.select': 'last'}
    config = with_values(config, values)
    outcome = run_training(config, folder / 'run', [], untimed=WARM_UP)
    assert outcome is not None
    device = torch.cuda.get_device_name() if config.run.device != 'cpu' and torch.cuda.is_available() else 'CPU'
    network, run = config.network, config.run
    size = f'{network.height}x{network.width}'
    lines = [
        f'**{device}**, {torch.get_num_threads()} threads, {size}, {run.precision}, {config.data.workers} workers',
        '',
        '| stage | batch | steps/s | samples/s | waiting for data |',
        '|---|---|---|---|---|',
    ]
    for name, timing in outcome.timings.items():
        batch, rate = getattr(config, name).batch, timing.steps / timing.total
        lines.append(f'| {name} | {batch} | {rate:.3f} | {rate * batch:.2f} | {timing.waiting_share:.1%} |')
    return '\n'.join(lines)


def _train(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    from moving_object_detector.common.parameter_files import load_plain_config
    from moving_object_detector.training.config import FlowTrainConfig, TrainConfig

    flow = arguments.command == 'flow'
    if arguments.options:
        sys.stdout.write(list_options(FlowTrainConfig if flow else TrainConfig))
        return 0
    if flow:
        from moving_object_detector.training.flow_training import run_flow_training

        flow_config = load_plain_config(FlowTrainConfig(), arguments.config, arguments.set)
        outcome: Any = run_flow_training(flow_config, arguments.out, given[1:])
    else:
        from moving_object_detector.training.run import run_training

        config = load_plain_config(TrainConfig(), arguments.config, arguments.set)
        if arguments.bench is not None:
            with TemporaryDirectory() as folder:
                sys.stdout.write(f'{bench(config, max(arguments.bench, 1), Path(folder))}\n')
            return 0
        outcome = run_training(config, arguments.out, given, ideal=arguments.ideal)
    if outcome is not None:
        sys.stdout.write(''.join(f'{foreign(line, LONGEST_MESSAGE)}\n' for line in (outcome.model, *outcome.told)))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    given = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        refuse_old(given, "the training's")
        arguments = _parser().parse_args(given)
        if arguments.command and given[0] != arguments.command:
            raise UserError(f'write "train {arguments.command}" before the options')
        return _train(arguments, given)

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
