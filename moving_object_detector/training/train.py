"""The program ``train``: trains mask generator, inpainter or PWC-Net, and writes a model for the detector."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign
from moving_object_detector.common.options import options_of
from moving_object_detector.common.parameter_files import load_plain_config
from moving_object_detector.common.program import add_settings, run_program
from moving_object_detector.training.config import FlowTrainConfig, TrainConfig

DESCRIPTION: Final = """
Train the mask generator, first on rendered scenes with exact masks, then against the inpainter on your own video,
without annotations. Writes the model NAME.safetensors (the detector's option `model`) and its card NAME.md to --out.
A killed run resumes from its last checkpoint when started again with the same arguments.
"""
FLOW: Final = """
Train PWC-Net on pairs of frames rendered on the fly, with exact flow. Writes NAME.safetensors (the detector's option
`flow.model`) and its card NAME.md with end-point errors, next to those of OpenCV's DIS, to --out.
"""


def _add(parser: argparse.ArgumentParser, config: str, setting: str, out: str) -> None:
    parser.add_argument('--config', type=Path, metavar='FILE', help=f'YAML file of options, such as {config}')
    add_settings(parser, f'options, such as {setting}')
    parser.add_argument('--out', type=Path, default=Path(out), help='folder of the run, default %(default)s')
    parser.add_argument('--options', action='store_true', help='list all options and exit')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='train', description=DESCRIPTION, allow_abbrev=False)
    _add(parser, 'config/train.yaml', 'data.root=my_videos', 'training')
    commands = parser.add_subparsers(dest='command', metavar='flow', help='train the flow network: train flow --help')
    flow = commands.add_parser('flow', description=FLOW, allow_abbrev=False)
    _add(flow, 'config/train_flow.yaml', 'training.steps=500', 'flow_training')
    return parser


def _train(given: Sequence[str]) -> int:
    arguments = _parser().parse_args(given)
    if arguments.command and given[0] != arguments.command:
        raise UserError(f'write "train {arguments.command}" before the options')
    kind: type[FlowTrainConfig | TrainConfig] = FlowTrainConfig if arguments.command == 'flow' else TrainConfig
    if arguments.options:
        for one in options_of(kind):
            print(f'{one.name}={one.default}\n    {one.description} Takes {one.takes()}.')
        return 0
    config = load_plain_config(kind(), arguments.config, arguments.set)
    # Imported late, so that --help does not wait for PyTorch and OpenCV.
    from moving_object_detector.training.flow_training import run_flow_training
    from moving_object_detector.training.run import run_training

    if isinstance(config, FlowTrainConfig):
        outcome = run_flow_training(config, arguments.out, given[1:])
    else:
        outcome = run_training(config, arguments.out, given)
    for line in (outcome.model, outcome.card, *outcome.told):
        print(foreign(line, LONGEST_MESSAGE))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    given = list(sys.argv[1:] if argv is None else argv)
    return run_program(lambda: _train(given))


if __name__ == '__main__':
    sys.exit(main())
