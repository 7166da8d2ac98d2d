"""Train a first generator on rendered scenes, where the mask is exact and free.

What it learns needs no annotated frame of real video; the adversarial game starts from it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from moving_object_detector.errors import UserError
from moving_object_detector.tools.arguments import positive_float, positive_int
from moving_object_detector.tools.program import run_program

if TYPE_CHECKING:
    from torch import Tensor

    from moving_object_detector.networks.generator import Generator


@dataclass(frozen=True)
class WarmStartOptions:
    """Everything that decides what a run computes."""

    steps: int = 1500
    batch: int = 12
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    average_decay: float = 0.995
    """Of the exponential moving average of the weights, which is what is saved as the model."""
    seed: int = 1
    height: int = 96
    width: int = 192
    flow_input: str = 'residual'

    def __post_init__(self) -> None:
        if self.height % 4 or self.width % 4 or self.seed < 0:
            raise UserError('height and width take multiples of 4, and seed a number of at least 0')


def mask_loss(probability: Tensor, mask: Tensor) -> Tensor:
    """Return binary cross-entropy plus soft Dice loss, a scalar.

    Args:
        probability: (B, 1, H, W) in [0, 1].
        mask: (B, 1, H, W) in [0, 1], exact.

    """
    from torch.nn import functional

    entropy = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), mask)
    overlap = (probability * mask).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return entropy + dice.mean()


def _learning_rate(step: int, options: WarmStartOptions) -> float:
    """Return the rate of a step: linear rise over 5 % of the run, then a half cosine down to 1 %."""
    import math

    rise = max(options.steps // 20, 1)
    if step < rise:
        return options.learning_rate * (step + 1) / rise
    share = (step - rise) / max(options.steps - rise, 1)
    return options.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def held_out_overlap(generator: Generator, options: WarmStartOptions, count: int) -> float:
    """Return the mean Jaccard index over rendered pairs that training never sees."""
    import torch

    from moving_object_detector.flow.generator_input import prepare_flow
    from moving_object_detector.trainer.rendered_pairs import PairOptions, RenderedPairs

    pairs = RenderedPairs(2**31 + options.seed, 0, count, PairOptions(size=(options.height, options.width)))
    scores = []
    with torch.inference_mode():
        for index in range(count):
            image, flow, mask = (item[None] for item in pairs[index])
            found = generator(image, prepare_flow(flow, options.flow_input).flow) > 0.5  # type: ignore[arg-type]
            truth = mask > 0.5
            union = (found | truth).sum()
            scores.append(float((found & truth).sum() / union) if union else 1.0)
    return sum(scores) / count


def train(output: Path, options: WarmStartOptions, workers: int, checkpoint_every: int, held_out: int = 64) -> float:
    """Train, or go on with the run whose checkpoint lies beside ``output``.

    Args:
        output: Model file to write, ``.safetensors``; the checkpoint is ``<output>.checkpoint``.
        options: What to compute.
        workers: Processes that render.
        checkpoint_every: Steps between checkpoints.
        held_out: Pairs on which the result is scored.

    Returns:
        Mean Jaccard index of the averaged weights on held-out rendered pairs.

    Raises:
        UserError: The checkpoint is damaged or of a run with other options, or cannot be written.

    """
    import torch
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from moving_object_detector.flow.generator_input import prepare_flow
    from moving_object_detector.networks.generator import Generator
    from moving_object_detector.networks.weights import save_network
    from moving_object_detector.trainer.checkpoint import load_checkpoint, save_checkpoint
    from moving_object_detector.trainer.rendered_pairs import PairOptions, RenderedPairs

    torch.manual_seed(options.seed)
    generator = Generator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        # Undoes the softmax's divisor, which would make supervised learning ten times slower.
        generator.conv17.gamma.fill_(10.0)
    averaged = torch.optim.swa_utils.AveragedModel(
        generator,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(options.average_decay),  # type: ignore[no-untyped-call]
    )
    optimiser = torch.optim.AdamW(generator.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    checkpoint = Path(f'{output}.checkpoint')
    state = load_checkpoint(checkpoint, asdict(options))
    first = 0
    if state:
        generator.load_state_dict(state['generator'])
        averaged.load_state_dict(state['averaged'])
        optimiser.load_state_dict(state['optimiser'])
        first = state['step']

    def save(step: int) -> None:
        save_checkpoint(
            checkpoint,
            {
                'options': asdict(options),
                'step': step,
                'generator': generator.state_dict(),
                'averaged': averaged.state_dict(),
                'optimiser': optimiser.state_dict(),
            },
        )

    size = (options.height, options.width)
    pairs = RenderedPairs(
        options.seed, first * options.batch, (options.steps - first) * options.batch, PairOptions(size=size)
    )
    loader = DataLoader(pairs, options.batch, num_workers=workers)
    running = None
    with tqdm(loader, initial=first, total=options.steps, unit='step', desc='warm start') as bar:
        for step, (image, flow, mask) in enumerate(bar, first):
            for group in optimiser.param_groups:
                group['lr'] = _learning_rate(step, options)
            prepared = prepare_flow(flow, options.flow_input).flow  # type: ignore[arg-type]
            loss = mask_loss(generator(image, prepared), mask)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
            optimiser.step()
            averaged.update_parameters(generator)
            running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
            bar.set_postfix(loss=f'{running:.3f}')
            if (step + 1) % checkpoint_every == 0 or step + 1 == options.steps:
                save(step + 1)
    overlap = held_out_overlap(cast('Generator', averaged.module), options, held_out)
    save_network(
        averaged.module,
        output,
        {
            'flow_input': options.flow_input,
            'flow_backend': 'dis-medium',
            'height': str(options.height),
            'width': str(options.width),
            'training': 'rendered scenes with exact masks',
            'steps': str(options.steps),
            'seed': str(options.seed),
        },
    )
    return overlap


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``warm_start``."""
    defaults = WarmStartOptions()
    parser = argparse.ArgumentParser(
        prog='warm_start',
        description='Train a generator on rendered scenes with exact masks; killed at any moment, it goes on from its '
        'last checkpoint when started again.',
    )
    parser.add_argument('output', type=Path, help='model file to write, .safetensors')
    parser.add_argument('--steps', type=positive_int, default=defaults.steps, help='default %(default)s')
    parser.add_argument('--batch', type=positive_int, default=defaults.batch, help='pairs a step, default %(default)s')
    parser.add_argument(
        '--learning-rate', type=positive_float, default=defaults.learning_rate, help='default %(default)s'
    )
    parser.add_argument('--seed', type=int, default=defaults.seed, help='default %(default)s')
    parser.add_argument(
        '--height', type=positive_int, default=defaults.height, help='multiple of 4, default %(default)s'
    )
    parser.add_argument('--width', type=positive_int, default=defaults.width, help='multiple of 4, default %(default)s')
    parser.add_argument('--flow-input', choices=('residual', 'normalised'), default=defaults.flow_input)
    parser.add_argument('--workers', type=int, default=1, help='processes that render, default %(default)s')
    parser.add_argument('--checkpoint-every', type=positive_int, default=50, help='steps, default %(default)s')
    parser.add_argument('--held-out', type=positive_int, default=64, help='pairs to score it on, default %(default)s')
    arguments = parser.parse_args(argv)

    def body() -> int:
        options = WarmStartOptions(
            steps=arguments.steps,
            batch=arguments.batch,
            learning_rate=arguments.learning_rate,
            seed=arguments.seed,
            height=arguments.height,
            width=arguments.width,
            flow_input=arguments.flow_input,
        )
        overlap = train(arguments.output, options, arguments.workers, arguments.checkpoint_every, arguments.held_out)
        sys.stdout.write(f'{arguments.output}: mean J {overlap:.3f} on held-out rendered scenes\n')
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
