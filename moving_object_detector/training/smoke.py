"""A minute of training on rendered clips, to see that all of it works and that both players learn."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from moving_object_detector.common.program import run_program

if TYPE_CHECKING:
    from moving_object_detector.training.config import TrainConfig

SCORED_PAIRS: Final = 32
CLIP_SEEDS: Final = (7, 11)
RENDER: Final = ('--frames', '12', '--height', '96', '--width', '192', '--objects', '1', '1')
OPTIONS: Final = (
    'data.height=64', 'data.width=128', 'data.largest_gap=2', 'flow.height=96', 'flow.width=192', 'network.height=48',
    'network.width=96', 'rendered.steps=16', 'rendered.batch=4', 'inpainter.steps=32', 'inpainter.batch=4',
    'inpainter.learning_rate=0.001', 'game.steps=60', 'game.batch=4', 'game.learning_rate=0.0003', 'run.candidates=2',
)  # fmt: skip


def fell(what: str, first: float, last: float) -> bool:
    """Print two losses; return whether the second is less."""
    right = last < first
    sys.stdout.write(
        f'{what}: {first:.3f} at the beginning, {last:.3f} at the end{"" if right else ": did not fall"}\n'
    )
    return right


def quarters(values: Sequence[float]) -> tuple[float, float]:
    """Return the means of the first and of the last quarter."""
    part = max(len(values) // 4, 1)
    return sum(values[:part]) / part, sum(values[-part:]) / part


def generator_losses(config: TrainConfig, out: Path) -> tuple[float, float]:
    """Return the generator's loss before and after the game, both against the inpainter that the game has left.

    What the log has says less: there the generator's loss rises while the inpainter becomes better.
    """
    import torch
    from torch.utils.data import default_collate

    from moving_object_detector.flow.generator_input import prepare_flow
    from moving_object_detector.networks.weights import FlowInput, load_network
    from moving_object_detector.training.cached_pairs import CachedPairs, PairOptions
    from moving_object_detector.training.game import guess
    from moving_object_detector.training.losses import generator_loss, motion_units
    from moving_object_detector.training.prepare import open_clips

    clips = open_clips(config, out, torch.device('cpu'), progress=False)
    pairs = CachedPairs(clips, 0, PairOptions((config.network.height, config.network.width), config.data.largest_gap))
    image, flow = default_collate([pairs[number] for number in range(SCORED_PAIRS)])[:2]
    prepared, target = prepare_flow(flow, cast('FlowInput', config.network.flow_input)).flow, motion_units(flow)
    inpainter = load_network(out / f'{config.name}-inpainter.safetensors', 'inpainter')[0]
    found = []
    with torch.inference_mode():
        for step in (0, config.game.steps):
            mask = load_network(out / 'candidates' / f'{step:06d}.safetensors')[0](image, prepared)
            guesses = guess(inpainter, image, target, mask, alone=True)
            found.append(float(generator_loss(target, mask, guesses, config.game.loss)))
    return found[0], found[1]


def smoke(folder: Path, options: Sequence[str] = ()) -> int:
    """Render, train, and check.

    Args:
        folder: For the clips and the run.
        options: More ``name=value`` of ``train``.

    Returns:
        0, or 1 where the training failed or a player did not learn.

    """
    from moving_object_detector.common.parameter_files import load_plain_config
    from moving_object_detector.synthetic.render import main as render
    from moving_object_detector.training.config import TrainConfig
    from moving_object_detector.training.journal import read_log
    from moving_object_detector.training.train import main as train

    clips = [folder / f'clip{seed}' for seed in CLIP_SEEDS]
    for seed, clip in zip(CLIP_SEEDS, clips, strict=True):
        if render([str(clip), '--seed', str(seed), *RENDER]):
            return 1
    roots = ','.join(str(clip / 'frames') for clip in clips)
    out = folder / 'run'
    given = [*OPTIONS, f'data.root={roots}', *options]
    if train(['--out', str(out), *given]):
        return 1
    boxes = [line['loss'] for line in read_log(out / 'log.jsonl') if line['stage'] == 'inpainter']
    checks = (
        fell("inpainter's loss on boxes", *quarters(boxes)),
        fell("generator's loss in the game", *generator_losses(load_plain_config(TrainConfig(), None, given), out)),
    )
    return 0 if all(checks) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(prog='train-smoke', description=__doc__)
    parser.add_argument('options', nargs='*', metavar='NAME=VALUE', help='more options of train')
    parser.add_argument('--out', type=Path, help='folder to keep clips and run in; a temporary one unless given')
    arguments = parser.parse_intermixed_args(argv)

    def body() -> int:
        if arguments.out is not None:
            return smoke(arguments.out, arguments.options)
        with tempfile.TemporaryDirectory() as folder:
            return smoke(Path(folder), arguments.options)

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
