"""Choosing the device and the engine."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Final

import torch

from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.errors import UserError
from moving_object_detector.networks.generator import Generator

ENGINES: Final = ('auto', 'torch', 'openvino')


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for.

    Raises:
        UserError: The name is none of these, or the machine has no such device.

    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    known = re.fullmatch(r'cpu|cuda(?::([0-9]+))?', name)
    if known is None:
        raise UserError(f'device is {name!r}, but takes auto, cpu, cuda or cuda:N')
    if name != 'cpu' and (not torch.cuda.is_available() or int(known[1] or 0) >= torch.cuda.device_count()):
        raise UserError(
            f'device is {name!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; '
            'set device to cpu, or install a PyTorch built for CUDA and its driver'
        )
    return torch.device(name)


def create_engine(
    name: str, generator: Generator, size: tuple[int, int], device: torch.device, threads: int = 0
) -> MaskEngine:
    """Make the engine that runs the generator.

    Args:
        name: ``torch``, ``openvino`` (CPU only) or ``auto``: OpenVINO on a CPU where it is installed.
        generator: With its weights loaded.
        size: (height, width) of its input.
        device: Where it runs.
        threads: CPU threads; 0: all.

    Raises:
        UserError: There is no such engine, or OpenVINO was asked for and is not installed, or for another
            device than the CPU.

    """
    if name not in ENGINES:
        raise UserError(f'engine is {name!r}, but takes one of {", ".join(ENGINES)}')
    installed = find_spec('openvino') is not None
    if name == 'openvino' and not installed:
        raise UserError(
            'engine is openvino, but OpenVINO is not installed; pip install openvino, or set engine to torch'
        )
    if name == 'openvino' and device.type != 'cpu':
        raise UserError(
            f'engine openvino runs on the CPU, but device is {device}; set device to cpu or engine to torch'
        )
    if name == 'openvino' or (name == 'auto' and installed and device.type == 'cpu'):
        from moving_object_detector.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(generator, size, threads)
    if threads and device.type == 'cpu':
        torch.set_num_threads(threads)
    return TorchEngine(generator, device)
