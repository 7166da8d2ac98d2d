"""From options to a running detector."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import torch

from moving_object_detector.detection.config import DetectorConfig, FlowConfig
from moving_object_detector.detection.detector import Detector, Stage
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.errors import ModelError, UserError
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.generator_input import FLOW_INPUTS, FlowInput
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import load_weights
from moving_object_detector.resources import default_model


def _create_flow(config: FlowConfig, device: torch.device) -> FlowBackend:
    size = (config.height, config.width)
    if config.backend == 'dis':
        return DisFlow(size, config.preset)
    if not config.model:
        raise UserError(
            'flow.backend is pwcnet, but flow.model names no weights; convert the authors\' checkpoint with '
            '`ros2 run moving_object_detector convert_weights pwc_net.pth.tar pwcnet.safetensors` and set flow.model'
        )
    network = PWCNet()
    state, _ = load_weights(Path(config.model).expanduser(), expect='pwcnet')
    network.load_state_dict(state)
    return PwcFlow(network, size, device)


def _input_size(path: Path, metadata: dict[str, str], config: DetectorConfig) -> tuple[int, int]:
    size = []
    for name, asked in (('height', config.height), ('width', config.width)):
        own = metadata.get(name, '')
        if not asked and not re.fullmatch(r'[1-9]\d{0,3}', own):
            raise ModelError(f'{path} does not say the {name} of its input (metadata {own!r}); set the option {name}')
        length = asked or int(own)
        if length % 4 or length < 16:
            raise UserError(f'{name} is {length}; the generator takes multiples of 4 from 16')
        size.append(length)
    return size[0], size[1]


def build_detector(config: DetectorConfig, stage: Stage | None = None) -> Detector:
    """Load the weights and make the detector that the options describe.

    Args:
        config: All options.
        stage: Called with a stage's name around each stage; for measuring.

    Raises:
        UserError: An option, a device or a model file is wrong; the message says which and what to do.

    """
    if config.window.past + config.window.future == 0:
        raise UserError('window.past and window.future are both 0, so no frame could vote; set one of them to 1 or more')
    device = choose_device(config.device)
    path = Path(config.model).expanduser() if config.model else default_model()
    state, metadata = load_weights(path, expect='generator')
    flow_input = metadata.get('flow_input', '')
    if flow_input not in FLOW_INPUTS:
        raise ModelError(
            f'{path} says flow_input {flow_input!r}, but it must be one of {", ".join(FLOW_INPUTS)}; convert it again'
        )
    generator = Generator()
    generator.load_state_dict(state)
    size = _input_size(path, dict(metadata), config)
    engine = create_engine(config.engine, generator, size, device, config.threads)
    return Detector(_create_flow(config.flow, device), engine, size, cast('FlowInput', flow_input), config, stage)
