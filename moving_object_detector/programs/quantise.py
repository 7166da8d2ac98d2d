"""Measure the ranges that precision int8 needs, on rendered scenes: writes NAME-int8.safetensors next to the model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.program import positive_int, run_program

if TYPE_CHECKING:
    from torch import Tensor

    from moving_object_detector.networks.weights import FlowInput

SIZES = ((96, 192), (192, 384))
"""(height, width) that the ranges are to hold at: those of config/cpu.yaml and of the paper."""
BATCH = 4
SEED = 2_000_000


def samples(count: int, flow_input: FlowInput) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and prepared flows of rendered scenes as the detector gives them, ``count`` at each size."""
    import torch

    from moving_object_detector.flow.generator_input import prepare_flow
    from moving_object_detector.training.pairs import RenderedOptions, RenderedPairs

    for size in SIZES:
        pairs = RenderedPairs(SEED, RenderedOptions(size=size, image_dropout=0.0, evidence=flow_input == 'geometric'))
        for start in range(0, count, BATCH):
            items = [pairs[index] for index in range(start, min(start + BATCH, count))]
            flow = prepare_flow(torch.stack([item[1] for item in items]), flow_input).flow
            yield torch.stack([item[0] for item in items]), flow


def measure(arguments: argparse.Namespace) -> int:
    """Measure as the command line asks and say what was written."""
    from moving_object_detector.common.files import default_model
    from moving_object_detector.networks.generator import Generator
    from moving_object_detector.networks.generator_forms import measure_ranges, ranges_path, save_ranges
    from moving_object_detector.networks.weights import load_network

    model: Path = arguments.model or default_model()
    if not model.is_file():
        raise UserError(f'{model}: no such model file; give a generator, .safetensors')
    network, metadata = load_network(model, expect='generator')
    generator = cast('Generator', network)
    ranges = measure_ranges(generator, samples(arguments.samples, cast('FlowInput', metadata['flow_input'])))
    path = arguments.out or ranges_path(model)
    save_ranges(path, generator, ranges, {'samples': f'{arguments.samples} rendered pairs at each of {SIZES}'})
    print(f'{path}: ranges of {len(ranges)} layers')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(prog='quantise', description=__doc__)
    parser.add_argument(
        'model', metavar='MODEL.safetensors', type=Path, nargs='?', help='default: the one that comes with the package'
    )
    parser.add_argument('--samples', type=positive_int, default=48, help='at each size (default: %(default)s)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='default: NAME-int8.safetensors next to the model')
    return run_program(lambda: measure(parser.parse_args(argv)))


if __name__ == '__main__':
    sys.exit(main())
