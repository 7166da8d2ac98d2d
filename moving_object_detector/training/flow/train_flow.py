"""Train PWC-Net, the flow network: on rendered pairs with exact flow, and if wanted on your own video."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moving_object_detector.common.program import run_program

DESCRIPTION = """
Train PWC-Net on pairs of frames that are rendered on the fly, whose flow is exact and free; with video.root also on
real video, by a teacher's flow or by the images alone. Killed at any moment it goes on from its last checkpoint when
started again with the same arguments. It leaves NAME.safetensors in --out, which the detector takes as `flow.model`,
and its card NAME.md with the end-point errors beside those of OpenCV's DIS.
"""
EPILOG = """
Several GPUs or machines: torchrun --nproc-per-node N -m moving_object_detector.training.train flow ...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that :func:`run` takes."""
    parser.add_argument('options', nargs='*', metavar='NAME=VALUE', help='such as training.steps=500 video.root=clips')
    parser.add_argument('--config', type=Path, help='YAML file with options, such as config/train_flow.yaml')
    parser.add_argument(
        '--out', type=Path, default=Path('flow_training'), help='folder of the run, default %(default)s'
    )
    parser.add_argument('--options', dest='list', action='store_true', help='list all options and end')


def list_options() -> str:
    """Return all options with default and meaning, one a line."""
    from moving_object_detector.common.options import options_of
    from moving_object_detector.training.flow.config import FlowTrainConfig

    return ''.join(
        f'{option.name}={option.default}\n    {option.description} Takes {option.takes()}.\n'
        for option in options_of(FlowTrainConfig)
    )


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Train as the arguments say; ``command`` is what the card quotes."""
    if arguments.list:
        sys.stdout.write(list_options())
        return 0
    from moving_object_detector.common.parameter_files import load_plain_config
    from moving_object_detector.training.flow.config import FlowTrainConfig

    config = load_plain_config(FlowTrainConfig(), arguments.config, arguments.options)
    from moving_object_detector.training.flow.run import run_flow_training

    model = run_flow_training(config, arguments.out, command)
    if model is not None:
        sys.stdout.write(f'{model}\n{model.with_suffix(".md")}\n')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``train flow``."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog='train flow', description=DESCRIPTION, epilog=EPILOG)
    add_arguments(parser)
    arguments = parser.parse_args(given)
    return run_program(lambda: run(arguments, given))


if __name__ == '__main__':
    sys.exit(main())
