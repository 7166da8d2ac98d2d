"""The trainer: from unlabelled video to a model that the detector runs with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import run_program

DESCRIPTION = """
Train the mask generator: first on rendered scenes, where the mask is exact and free, then against the inpainter on
your own video, which needs no annotation. Killed at any moment it goes on from its last checkpoint when started again
with the same arguments. It leaves NAME.safetensors and its card NAME.md in --out, which the detector takes as `model`.
"""
EPILOG = """
`train flow --help`: train the flow network. `--options`: list all NAME=VALUE with their defaults.
Several GPUs or machines: torchrun --nproc-per-node N -m moving_object_detector.training.train ...
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='train', description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument('options', nargs='*', metavar='NAME=VALUE', help='such as data.root=videos game.steps=2000')
    parser.add_argument('--config', type=Path, help='YAML file with options, such as config/train.yaml')
    parser.add_argument('--out', type=Path, default=Path('training'), help='folder of the run, default %(default)s')
    parser.add_argument(
        '--ideal',
        action='store_true',
        help='table 1 of the paper: constant independent flow inside and outside of the true masks; a check of the '
        'objective, not a training for use',
    )
    parser.add_argument('--options', dest='list', action='store_true', help='list all options and end')
    return parser


def list_options() -> str:
    """Return all options with default and meaning, one a line."""
    from moving_object_detector.common.options import options_of
    from moving_object_detector.training.config import TrainConfig

    return ''.join(
        f'{option.name}={option.default}\n    {option.description} Takes {option.takes()}.\n'
        for option in options_of(TrainConfig)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``train``."""
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    if arguments_given[:1] == ['flow']:
        from moving_object_detector.training.flow.train_flow import main as train_flow

        return train_flow(arguments_given[1:])
    # Intermixed: NAME=VALUE may stand before and after the flags.
    arguments = _parser().parse_intermixed_args(arguments_given)
    if arguments.list:
        sys.stdout.write(list_options())
        return 0

    def body() -> int:
        from moving_object_detector.common.parameter_files import load_plain_config
        from moving_object_detector.training.config import TrainConfig

        config = load_plain_config(TrainConfig(), arguments.config, arguments.options)
        if arguments.ideal:
            from moving_object_detector.training.ideal import run_ideal as run
        else:
            from moving_object_detector.training.run import run_training as run

        model = run(config, arguments.out, arguments_given)
        if model is not None:
            sys.stdout.write(f'{model}\n')
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
