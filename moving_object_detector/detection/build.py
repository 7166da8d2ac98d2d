"""From options to a running detector."""

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
log = logging.getLogger(__name__)


def choose_flow(config: FlowConfig) -> FlowConfig:
    """Return the options with the backend of ``auto`` and the file of its weights; UserError where there are none."""
    if config.backend == 'auto':
        if config.model:
            raise UserError('flow.model names weights, so flow.backend must say whose: raft_small or pwcnet, not auto')
        there = [name for name in ('raft_small', 'pwcnet') if fetched_weights(name).is_file()]
        if not there:
            log.warning('flow by DIS: no weights of RAFT-small or PWC-Net are here; %s raft_small', GET_WEIGHTS)
        config = replace(config, backend=there[0] if there else 'dis')
    if config.backend == 'dis' or config.model:
        return config
    path = fetched_weights(config.backend)
    if not path.is_file():
        raise UserError(
            f'flow.backend is {config.backend}, whose weights are not here; fetch them with `{GET_WEIGHTS} '
            f'{config.backend}`, which tells their licence first, or set flow.model to a file of them'
        )
    return replace(config, model=str(path))


def create_flow(
    config: FlowConfig,
    device: torch.device,
    engine: Engine | None = None,
    batch: int = 1,
    threads: int = 0,
) -> FlowBackend:
    """Make the flow backend that the options describe; raises UserError where it lacks its weights.

    ``engine`` runs a network, None: PyTorch; ``batch`` pairs are usually estimated at once; DIS computes ``threads`` of
    them at a time, 0: one for each physical core.
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
    """Return the precision in which an engine is to run a flow network where that of the masks is ``precision``.

    Masks and RAFT-small bear less than float32; what it does to PWC-Net's flow depends on the weights.
    """
    if precision in ('auto', 'int8') and config.backend != 'raft_small':
        return 'float32'
    return mask_precision(engine, device) if precision == 'auto' else precision


class LoadedGenerator(NamedTuple):
    """A generator with its weights; sizes are (height, width) of its input."""

    network: Generator
    size: tuple[int, int]
    """What the options say."""
    flow_input: FlowInput
    path: Path
    """Its file."""


def load_generator(config: DetectorConfig) -> LoadedGenerator:
    """Return the generator that the options name; raises UserError where its file or the size is wrong."""
    path = generator_path(config.model, choose_flow(config.flow).backend)
    network, metadata = load_network(path, expect='generator')
    # The size that was asked for, else the one that the weights were trained at.
    size = config.height or int(metadata['height']), config.width or int(metadata['width'])
    for name, length in zip(('height', 'width'), size, strict=True):
        if length % 4 or length < SMALLEST_SIDE:
            raise UserError(f'{name} is {length}; the generator takes multiples of 4 from {SMALLEST_SIDE}')
    return LoadedGenerator(cast('Generator', network), size, cast('FlowInput', metadata['flow_input']), path)


def build_detector(config: DetectorConfig, stage: Watch | None = None) -> Detector:
    """Load the weights and make the detector that the options describe; UserError where one of them is wrong.

    ``stage`` is called with a stage's name around each stage, for measuring. Where OpenVINO runs the networks, PyTorch
    is set to one thread in this process.
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
        # What is left for PyTorch are small operations, whose threads would wait for each other on busy cores.
        torch.set_num_threads(1)
    if config.precision == 'int8':
        generator = quantise(generator, load_ranges(ranges_path(path), generator))
    elif engine.name == 'openvino':
        generator = merge_upsampling(generator)
    # What every frame brings once the window is full.
    batch = config.window.past + config.window.future
    masks = MaskEngine(engine, generator, size, batch)
    flow = create_flow(config.flow, device, flow_engine, batch, config.threads)
    return Detector(flow, masks, size, flow_input, config, stage)
