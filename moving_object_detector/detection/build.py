"""Builds a detector from its options."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, cast

import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import fetched_weights, generator_path
from moving_object_detector.detection.config import DetectorConfig, FlowConfig, check_refinement
from moving_object_detector.detection.detector import Detector
from moving_object_detector.detection.pair_masks import Watch
from moving_object_detector.engines.base import Engine, MaskEngine, load_checked, usable_cores
from moving_object_detector.engines.create import choose_device, create_engine, mask_precision
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.flow.raft_small import RaftSmallFlow
from moving_object_detector.media.frames import SMALLEST_SIDE
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.generator_forms import load_ranges, merge_upsampling, quantise, ranges_path
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.networks.weights import FlowInput, load_network

GET_WEIGHTS: Final = 'ros2 run moving_object_detector get_weights'
TRAINED_ON: Final = ('dis', 'pwcnet', 'raft_small')
log = logging.getLogger(__name__)


def choose_flow(config: FlowConfig) -> FlowConfig:
    """Resolve backend ``auto`` and the path of the weights; raises UserError if they are missing."""
    if config.backend == 'auto':
        if config.model:
            raise UserError('flow.model is set, so flow.backend must name its network, raft_small or pwcnet, not auto')
        installed = [name for name in ('raft_small', 'pwcnet') if fetched_weights(name).is_file()]
        if not installed:
            log.warning(
                'using flow by DIS: no weights of RAFT-small or PWC-Net are installed; fetch them with: %s raft_small',
                GET_WEIGHTS,
            )
        config = replace(config, backend=installed[0] if installed else 'dis')
    if config.backend == 'dis' or config.model:
        return config
    path = fetched_weights(config.backend)
    if not path.is_file():
        raise UserError(
            f'flow.backend is {config.backend}, but its weights are not installed; fetch them with `{GET_WEIGHTS} '
            f'{config.backend}`, which shows their licence first, or set flow.model to a weights file'
        )
    return replace(config, model=str(path))


def create_flow(
    config: FlowConfig,
    device: torch.device,
    engine: Engine | None = None,
    batch: int = 1,
    threads: int = 0,
) -> FlowBackend:
    """Create the flow backend of the options; raises UserError if its weights are missing.

    ``engine`` runs a network, usually on ``batch`` pairs at once (None: PyTorch); DIS computes ``threads`` pairs in
    parallel (0: one per physical core).
    """
    config = choose_flow(config)
    size = (config.height, config.width)
    for option, backends in (('model', ('pwcnet', 'raft_small')), ('iterations', ('raft_small',))):
        if config.backend not in backends and getattr(config, option) != getattr(FlowConfig(), option):
            log.warning('flow.%s has no effect with flow.backend %s; leave it out', option, config.backend)
    if config.backend == 'dis':
        return DisFlow(size, config.preset, threads or usable_cores())
    network = load_flow_network(config.model, config.backend)
    load = partial(load_checked, engine) if engine else None
    if isinstance(network, RaftSmall):
        return RaftSmallFlow(network, size, device, config.iterations, config.warm_iterations, load, batch)
    return PwcFlow(cast('PWCNet', network), size, device, load, batch)


def flow_precision(config: FlowConfig, precision: str, engine: str, device: torch.device) -> str:
    """Return the precision for an engine's flow network, given the option ``precision``.

    Masks and RAFT-small tolerate less than float32; its effect on PWC-Net's flow depends on the weights.
    """
    if precision in ('auto', 'int8') and config.backend != 'raft_small':
        return 'float32'
    return mask_precision(engine, device) if precision == 'auto' else precision


class LoadedGenerator(NamedTuple):
    """A generator with its weights; sizes are (height, width) of its input."""

    network: Generator
    size: tuple[int, int]
    """From the options, else as trained."""
    flow_input: FlowInput
    path: Path
    """Its file."""


def load_generator(config: DetectorConfig) -> LoadedGenerator:
    """Load the generator that the options name; raises UserError if its file or the size is wrong."""
    backend = choose_flow(config.flow).backend
    path = generator_path(config.model, backend)
    network, metadata = load_network(path, expect='generator')
    trained = metadata['flow_backend'].partition('-')[0]
    if config.model not in ('', 'small') and trained != backend and trained in TRAINED_ON:
        log.warning(
            '%s was trained on flow by %s, but flow.backend is %s: its masks may be wrong; set flow.backend to %s',
            path, trained, backend, trained,
        )  # fmt: skip
    size = config.height or int(metadata['height']), config.width or int(metadata['width'])
    for name, length in zip(('height', 'width'), size, strict=True):
        if length % 4 or length < SMALLEST_SIDE:
            raise UserError(f'{name} is {length}; the generator takes multiples of 4 from {SMALLEST_SIDE}')
    return LoadedGenerator(cast('Generator', network), size, cast('FlowInput', metadata['flow_input']), path)


def build_detector(config: DetectorConfig, stage: Watch | None = None) -> Detector:
    """Load the weights and build the detector of the options; UserError if one of them is wrong.

    ``stage`` gives the context manager around each named stage, for measuring. With OpenVINO, PyTorch is limited to one
    thread in this process.
    """
    if config.window.past + config.window.future == 0:
        raise UserError(
            'window.past and window.future are both 0, so no frame could vote; set one of them to 1 or more'
        )
    check_refinement(config.refinement.method)
    device = choose_device(config.device)
    config = replace(config, flow=choose_flow(config.flow))
    generator, size, flow_input, path = load_generator(config)
    make = partial(
        create_engine,
        config.engine,
        device,
        threads=config.threads,
        experimental_gpu=config.experimental_gpu,
    )
    precision = mask_precision(config.engine, device) if config.precision == 'auto' else config.precision
    engine, of_flow = make(precision=precision), flow_precision(config.flow, config.precision, config.engine, device)
    flow_engine = engine if of_flow == precision else make(precision=of_flow)
    if engine.name == 'openvino':
        # PyTorch is left with small operations, whose threads would wait for each other on busy cores.
        torch.set_num_threads(1)
    if config.precision == 'int8':
        generator = quantise(generator, load_ranges(ranges_path(path), generator))
    elif engine.name == 'openvino':
        generator = merge_upsampling(generator)
    # Pairs per frame once the window is full.
    batch = config.window.past + config.window.future
    masks = MaskEngine(engine, generator, size, batch)
    flow = create_flow(config.flow, device, flow_engine, batch, config.threads)
    return Detector(flow, masks, size, flow_input, config, stage)
