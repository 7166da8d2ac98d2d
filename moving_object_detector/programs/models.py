"""What is done with model files: engines built, ranges for int8, ONNX, weights of others imported and fetched."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector import __version__
from moving_object_detector.common.errors import ModelError, UserError, foreign
from moving_object_detector.common.files import default_model, fetched_weights, write_atomically
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import build_detector, choose_flow, load_generator
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.engines.cache import EngineCache
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.flow.pwcnet import LEVELS, PwcDecoder, PwcPyramid
from moving_object_detector.networks.authors import from_pytorch, from_tensorflow, load_flow_network, read_pytorch
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.generator_forms import measure_ranges, ranges_path, save_ranges
from moving_object_detector.networks.pwcnet import PWCNet, padded
from moving_object_detector.networks.weights import (
    FLOW_NETWORKS,
    FlowInput,
    build_network,
    check_tensors,
    load_network,
    save_network,
)
from moving_object_detector.training.rendered import RenderedOptions, RenderedPairs

RANGE_SIZES: Final = ((96, 192), (192, 384))
"""(height, width) that ranges are to hold at: those of config/cpu.yaml and of the paper."""
RANGE_BATCH: Final = 4
RANGE_SEED: Final = 2_000_000
OPSET: Final = 18
ONNX_TOLERANCE: Final = 1e-3
"""Largest difference to PyTorch, of masks in [0, 1] and of flow in pixels."""
FETCH_TIMEOUT: Final = 30.0
"""Seconds without a byte after which a transfer is given up."""
SLOWEST_FETCH: Final = 1000
"""Bytes a second that it has to bring on average."""
WORTH_KEEPING: Final = 1 << 16
"""Bytes of a broken transfer from which it is worth going on."""
TENSORFLOW_ENDING: Final = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


# Engines -------------------------------------------------------------------------------------------------------------


def build_engines(arguments: argparse.Namespace) -> int:
    """Build the engines and say where they are."""
    config = load_config(DetectorConfig(), arguments.config, arguments.set)
    cache = EngineCache(arguments.folder)
    progress = logging.StreamHandler(sys.stderr)
    progress.setFormatter(logging.Formatter('%(message)s'))
    engines = logging.getLogger('moving_object_detector.engines')
    level = engines.level
    engines.addHandler(progress)
    engines.setLevel(logging.INFO)
    try:
        detector = build_detector(config, cache=cache)
    finally:
        engines.removeHandler(progress)
        engines.setLevel(level)
    height, width = detector.size
    kept = sorted(cache.folder.glob('*.engine'))
    print(f'ready: {detector.engine.name}, {width}x{height}, {detector.flow.name} flow')
    print(f'{cache.folder} holds {len(kept)} engines, {sum(file.stat().st_size for file in kept) / 1e6:.1f} MB')
    return 0


# Ranges for int8 -----------------------------------------------------------------------------------------------------


def _samples(count: int, flow_input: FlowInput) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and prepared flows of rendered scenes as the detector gives them, ``count`` at each size."""
    for size in RANGE_SIZES:
        options = RenderedOptions(size=size, image_dropout=0.0, evidence=flow_input == 'geometric')
        pairs = RenderedPairs(RANGE_SEED, options)
        for start in range(0, count, RANGE_BATCH):
            items = [pairs[index] for index in range(start, min(start + RANGE_BATCH, count))]
            flow = prepare_flow(torch.stack([item[1] for item in items]), flow_input).flow
            yield torch.stack([item[0] for item in items]), flow


def write_ranges(arguments: argparse.Namespace) -> int:
    """Measure the ranges and say what was written."""
    model: Path = arguments.model or default_model()
    if not model.is_file():
        raise UserError(f'{model}: no such model file; give a generator, .safetensors')
    network, metadata = load_network(model, expect='generator')
    generator = cast('Generator', network)
    ranges = measure_ranges(generator, _samples(arguments.samples, cast('FlowInput', metadata['flow_input'])))
    path = arguments.out or ranges_path(model)
    save_ranges(path, generator, ranges, {'samples': f'{arguments.samples} rendered pairs at each of {RANGE_SIZES}'})
    print(f'{path}: ranges of {len(ranges)} layers')
    return 0


# ONNX ----------------------------------------------------------------------------------------------------------------


class _Export(NamedTuple):
    """One network and what its file says of it."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]
    """Two rows; the number of rows is left open."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def _exports(config: DetectorConfig) -> list[_Export]:
    """Return the networks of a configuration: the generator, and both halves of PWC-Net where it computes the flow."""
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
        tuple(f'{end}{level}' for level in range(2, LEVELS + 2)) for end in ('level', 'source', 'target')
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
    # The halves of PWC-Net's decoder take their inputs as *levels, which torch.export sees as one argument.
    dynamic: Any = (shapes,) if export.name == 'pwcnet_decoder' else shapes
    # It speaks of torchvision, which is not needed, and of its own deprecated calls.
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
    model = program.model_proto
    for key, value in {**export.metadata, 'producer': f'moving_object_detector {__version__}'}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    write_atomically(path, model.SerializeToString())


def _difference(export: _Export, path: Path) -> float:
    """Return the largest difference between ONNX Runtime and PyTorch, of three rows and of one."""
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
    """Write the files, each compared with PyTorch where ONNX Runtime is installed."""
    missing = [package for package in ('onnx', 'onnxscript') if find_spec(package) is None]
    if missing:
        raise UserError(f'ONNX export needs {" and ".join(missing)}; pip install {" ".join(missing)}')
    for export in _exports(load_config(DetectorConfig(), arguments.config, arguments.set)):
        path = arguments.out / f'{export.name}.onnx'
        _write_network(export, path)
        line = f'{path}: {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}'
        if find_spec('onnxruntime') is None:
            print(f'{line}; not checked: pip install onnxruntime')
            continue
        worst = _difference(export, path)
        if worst > ONNX_TOLERANCE:
            raise UserError(f'{path} differs from PyTorch by {worst:.2g}; please report this with your versions')
        print(f'{line}, at most {worst:.1g} from PyTorch')
    return 0


# Released weights ----------------------------------------------------------------------------------------------------


def _read_tensorflow(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Read the floating-point variables of a TensorFlow checkpoint, whose path without ``.index`` is given."""
    # Else TensorFlow tells of processor features and missing GPUs before our one line.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f'reading {prefix} takes TensorFlow ({error}); run `pip install tensorflow`, which nothing else needs'
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, kind in types.items() if kind.is_floating}
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f'{prefix}: is no whole TensorFlow checkpoint ({error}); its .index and .data files belong together'
        ) from error


def _find_tensorflow(path: Path) -> Path | None:
    """Return the prefix of the TensorFlow checkpoint meant by it, by one of its files or by a folder; None: no such."""
    if path.is_dir():
        found = sorted(path.glob('*.index'))
        if len(found) > 1:
            names = ', '.join(file.stem for file in found)
            raise UserError(f'{path}: has several TensorFlow checkpoints ({names}); give one of them')
        return found[0].with_suffix('') if found else None
    for prefix in (path, path.with_name(TENSORFLOW_ENDING.sub('', path.name))):
        if prefix.with_name(f'{prefix.name}.index').is_file():
            return prefix
    return None


def import_weights(arguments: argparse.Namespace) -> int:
    """Convert and say what was written."""
    source: Path = arguments.input
    if arguments.output.suffix != '.safetensors':
        raise UserError(f'{arguments.output}: model files end in .safetensors; give such a name as second argument')
    prefix = _find_tensorflow(source)
    if prefix is None and not source.is_file():
        raise UserError(
            f'{source}: no such checkpoint; give a .pth or .pth.tar file, or model.best where model.best.index is'
        )
    given: str | None = arguments.network
    if given is not None and (prefix is None) != (given in FLOW_NETWORKS):
        kind = 'PyTorch file' if prefix is None else 'TensorFlow checkpoint'
        raise UserError(
            f'{source}: is a {kind}; PWC-Net and RAFT-small are imported from PyTorch, '
            'generator and inpainter from TensorFlow'
        )
    if prefix is None:
        state = from_pytorch(read_pytorch(source), str(source))
        architecture = given or ('raft_small' if 'fnet.conv1.weight' in state else 'pwcnet')
    else:
        architecture = given or 'generator'
        state = from_tensorflow(_read_tensorflow(prefix), architecture, str(prefix))
    if architecture in FLOW_NETWORKS and any((arguments.flow_input, arguments.height, arguments.width)):
        raise UserError(f'--flow-input, --height and --width have no effect with {architecture}; leave them out')
    check_tensors(source, architecture, state)
    network = build_network(architecture, state)
    metadata = {'source': source.name}
    if architecture not in FLOW_NETWORKS:
        metadata |= {
            'flow_input': arguments.flow_input or 'normalised',
            'flow_backend': 'pwcnet',
            'height': str(arguments.height or 192),
            'width': str(arguments.width or 384),
        }
    save_network(network, arguments.output, metadata)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f'{arguments.output}: {architecture}, {count:,} parameters, {len(state)} tensors')
    return 0


# Published weights ---------------------------------------------------------------------------------------------------


class Publication(NamedTuple):
    """Weights as somebody published them."""

    what: str
    url: str
    licence: str
    megabytes: float
    """About; nothing beyond twice of it is taken."""
    digest: str
    """``sha256:`` and its first digits, or ``git:`` and the name of the file's content in git."""


PUBLICATIONS: Final = {
    'raft_small': Publication(
        "RAFT-small, the authors' weights (Teed and Deng 2020) as torchvision distributes them (C_T_V1)",
        'https://download.pytorch.org/models/raft_small_C_T_V1-ad48884c.pth',
        'BSD-3-Clause: free use, with the notice of its authors',
        4.0,
        # All that torchvision states of it.
        'sha256:ad48884c',
    ),
    'pwcnet': Publication(
        "PWC-Net, the authors' weights (Sun et al. 2018)",
        'https://raw.githubusercontent.com/NVlabs/PWC-Net/07df6eb8b22b83f4a62d18231ae4ecf9cbecce05/PyTorch/pwc_net.pth.tar',
        'CC BY-NC-SA 4.0: not for commercial use',
        37.5,
        'git:27da4cc96929c0474f8083364712df3a1c50c52e',
    ),
}
"""By network; that these addresses answer has not been tried where this project is tested."""


def get_weights(arguments: argparse.Namespace) -> int:
    """Fetch the weights of one network, once their licence is accepted."""
    published, path = PUBLICATIONS[arguments.network], fetched_weights(arguments.network)
    print(
        f'{published.what}\nsource:  {published.url}\nlicence: {published.licence}\n'
        f'size:    about {published.megabytes} MB, kept as {path}',
        flush=True,
    )
    if path.is_file():
        print('they are there already; remove that file to fetch them again')
        return 0
    if not (arguments.accept_licence or sys.stdin.isatty()):
        raise UserError('nobody is there to accept the licence; read it, then give --accept-licence')
    if not arguments.accept_licence and input('Do you accept this licence? [yes/no] ').strip() not in {'y', 'yes'}:
        raise UserError('the licence was not accepted, nothing was fetched')
    part = path.with_suffix('.part')
    state = from_pytorch(read_pytorch(published.url, _fetch(published, part)), published.url)
    check_tensors(published.url, arguments.network, state)
    network = build_network(arguments.network, state)
    save_network(network, path, {'source': published.url, 'licence': published.licence})
    part.unlink(missing_ok=True)
    print(f'{path}: ready; flow.backend={arguments.network} uses it')
    return 0


def _receive(url: str, content: bytearray, most: int) -> None:
    """Add to ``content`` what is missing of it, until it is larger than ``most``; a server that cannot begins anew."""
    request = Request(url, headers={'Range': f'bytes={len(content)}-'} if content else {})
    with urlopen(request, timeout=FETCH_TIMEOUT) as response:
        if urlsplit(response.url).scheme != urlsplit(url).scheme:
            raise UserError(f'{url}: leads to {foreign(response.url, 100)}, which is not taken')
        if not response.headers.get('Content-Range', '').startswith(f'bytes {len(content)}-'):
            content.clear()
        had, started = len(content), time.monotonic()
        whole = had + (response.length or 0)
        while len(content) <= most and (block := response.read1(1 << 16)):
            content += block
            if time.monotonic() - started > FETCH_TIMEOUT + (len(content) - had) / SLOWEST_FETCH:
                raise TimeoutError(f'it sends less than {SLOWEST_FETCH} bytes a second')
        if len(content) < min(whole, most):
            raise ConnectionError(f'it broke off after {len(content)} of {whole} bytes')


def _fetch(published: Publication, part: Path) -> bytes:
    """Return what lies at its address, going on where an earlier transfer broke, as ``part`` has it.

    Raises UserError where it cannot be had, or is not what was published.
    """
    most = int(2e6 * published.megabytes)
    content = bytearray(part.read_bytes()[: most + 1] if part.is_file() else b'')
    part.unlink(missing_ok=True)
    whole = False
    try:
        _receive(published.url, content, most)
        whole = True
    except UserError:
        raise
    # What urllib raises is an OSError; ValueErrors are of addresses.
    except (OSError, HTTPException, ValueError) as error:
        reason = foreign(getattr(error, 'reason', error), 200)
        raise UserError(
            f'{published.url}: cannot be fetched ({reason}); run it again, it goes on from there'
        ) from error
    finally:
        # After Ctrl-C too.
        if not whole and len(content) >= WORTH_KEEPING:
            write_atomically(part, bytes(content))
    if len(content) > most:
        raise UserError(f'{published.url}: is larger than {most / 1e6:.0f} MB, so it is not those weights')
    kind, _, wanted = published.digest.partition(':')
    # By SHA-1, as git names contents: for a file of a known commit there is no other.
    git = hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False)
    found = git if kind == 'git' else hashlib.sha256(content)
    if not found.hexdigest().startswith(wanted):
        raise UserError(
            f'{published.url}: is not what was published there ({published.digest} is expected); run it again, and if '
            'that does not help, report it'
        )
    return bytes(content)
