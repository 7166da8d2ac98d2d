"""The programs ``quantise`` and ``export_onnx``: measure ranges for int8, export networks to ONNX."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from moving_object_detector import __version__
from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import check_apart, generator_path, write_atomically
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import choose_flow, load_generator
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.flow.pwcnet import FLOW_LEVELS, PwcDecoder, PwcPyramid
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.generator_forms import measure_ranges, ranges_path, save_ranges
from moving_object_detector.networks.pwcnet import PWCNet, padded
from moving_object_detector.networks.weights import FlowInput, load_network
from moving_object_detector.training.rendered import RenderedOptions, RenderedPairs

RANGE_SIZES: Final = ((96, 192), (192, 384))
"""Input sizes (height, width) to measure at: those that the small generator was trained at and of the paper."""
RANGE_BATCH: Final = 4
RANGE_SEED: Final = 2_000_000
OPSET: Final = 18
ONNX_TOLERANCE: Final = 1e-3
"""Largest allowed difference from PyTorch, of masks in [0, 1] and of flow in pixels."""


# Ranges for int8 -----------------------------------------------------------------------------------------------------


def _samples(count: int, flow_input: FlowInput) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of rendered images and flows, prepared as by the detector; ``count`` samples at each size."""
    for size in RANGE_SIZES:
        options = RenderedOptions(size=size, image_dropout=0.0, flow_input=flow_input)
        pairs = Subset(RenderedPairs(RANGE_SEED, options), range(count))
        for image, flow, _ in DataLoader(pairs, RANGE_BATCH):
            yield image, prepare_flow(flow, flow_input).flow


def write_ranges(arguments: argparse.Namespace) -> int:
    """Run the program ``quantise``."""
    model: Path = arguments.model or generator_path()
    network, metadata = load_network(model, expect='generator')
    generator = cast('Generator', network)
    path: Path = arguments.out or ranges_path(model)
    check_apart(path, [model])
    ranges = measure_ranges(generator, _samples(arguments.samples, cast('FlowInput', metadata['flow_input'])))
    save_ranges(path, generator, ranges, {'samples': f'{arguments.samples} rendered pairs at each of {RANGE_SIZES}'})
    print(f'{path}: ranges of {len(ranges)} layers')
    return 0


# ONNX ----------------------------------------------------------------------------------------------------------------


class _Export(NamedTuple):
    """One network and the metadata of its file."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    """Inputs with a batch of two; the batch size is exported as dynamic."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def _exports(config: DetectorConfig) -> list[_Export]:
    """Return the networks of a configuration: the generator and, if it computes the flow, both halves of PWC-Net."""
    torch.manual_seed(0)
    generator, (height, width), flow_input, _ = load_generator(config)
    examples = torch.rand(2, 3, height, width) - 0.5, torch.randn(2, generator.flow_channels, height, width)
    about = {
        'architecture': 'generator',
        'height': str(height),
        'width': str(width),
        'flow_input': flow_input,
        'flow_channels': str(generator.flow_channels),
        'image': 'RGB in [-0.5, 0.5]',
        'mask': 'probability of moving on its own, in [0, 1]',
    }
    found = [_Export('generator', generator.eval(), examples, ('image', 'flow'), ('mask',), about)]
    flow = choose_flow(config.flow)
    if flow.backend != 'pwcnet':
        return found
    network = load_flow_network(flow.model, 'pwcnet')
    assert isinstance(network, PWCNet)
    height, width = padded((config.flow.height, config.flow.width))
    first, second = torch.rand(2, 3, height, width), torch.rand(2, 3, height, width)
    pyramid = PwcPyramid(network).eval()
    with torch.no_grad():
        features = (*pyramid(first), *pyramid(second))
    level, source, target = (
        tuple(f'{end}{level}' for level in range(2, FLOW_LEVELS + 2)) for end in ('level', 'source', 'target')
    )
    size = {'height': str(height), 'width': str(width)}
    about = {**size, 'architecture': 'pwcnet pyramid', 'image': 'BGR in [0, 1]'}
    found.append(_Export('pwcnet_pyramid', pyramid, (first,), ('image',), level, about))
    about = {**size, 'architecture': 'pwcnet decoder', 'flow': 'a quarter of the size, in pixels of the full one'}
    found.append(_Export('pwcnet_decoder', PwcDecoder(network).eval(), features, (*source, *target), ('flow',), about))
    return found


def _write_network(export: _Export, path: Path) -> None:
    batch = torch.export.Dim('batch', min=1, max=1024)
    shapes = tuple({0: batch} for _ in export.examples)
    # PWC-Net's decoder takes its inputs as *levels, which torch.export sees as one argument.
    dynamic: Any = (shapes,) if export.name == 'pwcnet_decoder' else shapes
    # The exporter warns about torchvision, which is not needed, and about its own deprecated calls.
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            export.module,
            export.examples,
            input_names=list(export.inputs),
            output_names=list(export.outputs),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
    assert program is not None
    program.model.metadata_props.update(export.metadata, producer=f'moving_object_detector {__version__}')
    write_atomically(path, program.model_proto.SerializeToString())


def _difference(export: _Export, path: Path) -> float:
    """Return the largest difference between ONNX Runtime and PyTorch, for batches of three and of one."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    worst = 0.0
    for rows in (3, 1):
        inputs = tuple(torch.cat((example, example.flip(0)))[:rows] for example in export.examples)
        with torch.no_grad():
            expected = export.module(*inputs)
        feeds = {name: tensor.numpy() for name, tensor in zip(export.inputs, inputs, strict=True)}
        found = session.run(None, feeds)
        pairs = zip(found, (expected,) if isinstance(expected, Tensor) else expected, strict=True)
        worst = max(worst, *(float((torch.from_numpy(ours) - theirs).abs().max()) for ours, theirs in pairs))
    return worst


def write_onnx(arguments: argparse.Namespace) -> int:
    """Run the program ``export_onnx``; each file is compared with PyTorch if ONNX Runtime is installed."""
    missing = [package for package in ('onnx', 'onnxscript') if find_spec(package) is None]
    if missing:
        raise UserError(f'ONNX export needs {" and ".join(missing)}; pip install {" ".join(missing)}')
    for export in _exports(load_config(DetectorConfig(), arguments.config, arguments.set)):
        path = arguments.out / f'{export.name}.onnx'
        _write_network(export, path)
        line = f'{path}: {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}'
        if find_spec('onnxruntime') is None:
            print(f'{line}; not checked against PyTorch: pip install onnxruntime')
            continue
        worst = _difference(export, path)
        if worst > ONNX_TOLERANCE:
            raise UserError(f'{path} differs from PyTorch by {worst:.2g}; please report this with your versions')
        print(f'{line}, differs from PyTorch by at most {worst:.1g}')
    return 0
