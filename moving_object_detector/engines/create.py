"""Choosing the device and the engine."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import torch

from moving_object_detector.common.errors import UserError, shown
from moving_object_detector.common.files import user_folder
from moving_object_detector.engines.base import Engine
from moving_object_detector.engines.torch_engine import TorchEngine


def choose_device(name: str, option: str = 'device') -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; UserError, about ``option``, for others."""
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    known = re.fullmatch(r'cpu|cuda(?::([0-9]+))?', name)
    if known is None:
        raise UserError(f'{option} is {shown(name)}, but takes auto, cpu, cuda or cuda:N')
    if name != 'cpu' and (not torch.cuda.is_available() or int(known[1] or 0) >= torch.cuda.device_count()):
        raise UserError(
            f'{option} is {name!r}, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; '
            f'set {option} to cpu, or install a PyTorch built for CUDA and its driver'
        )
    return torch.device(name)


def choose_engine(name: str, device: torch.device) -> str:
    """Return the engine that a name stands for; ``auto``: OpenVINO on a CPU where it is installed, else PyTorch."""
    if name != 'auto':
        return name
    return 'openvino' if device.type == 'cpu' and find_spec('openvino') is not None else 'torch'


def mask_precision(name: str, device: torch.device) -> str:
    """Return the precision in which an engine computes masks fastest without changing them (docs/performance.md)."""
    if choose_engine(name, device) != 'openvino' or find_spec('openvino') is None:
        return 'float32'
    from moving_object_detector.engines import openvino_engine

    return openvino_engine.mask_precision()


def create_engine(
    name: str,
    device: torch.device,
    *,
    precision: str = 'auto',
    threads: int = 0,
    experimental_gpu: bool = False,
) -> Engine:
    """Make the engine that the options of these names say; UserError where it is not here, or not for the device.

    ``auto`` precision is float32.
    """
    chosen = choose_engine(name, device)
    if precision == 'int8' and chosen != 'openvino':
        raise UserError(
            f'precision is int8, which engine openvino alone computes in, but the engine is {chosen}; '
            'set precision to auto, or engine to openvino and device to cpu'
        )
    if chosen == 'openvino':
        if device.type != 'cpu':
            raise UserError(
                f'engine openvino runs on the CPU, but device is {device}; set device to cpu or engine to torch'
            )
        if find_spec('openvino') is None:
            raise UserError(
                'engine is openvino, but OpenVINO is not installed; pip install openvino, or set engine to torch'
            )
        from moving_object_detector.engines.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(precision, threads)
    if chosen == 'torch_tensorrt':
        return TorchEngine(device, precision, chosen, _tensorrt(device))
    if chosen != 'torch':
        raise UserError(f'engine is {shown(name)}, which there is not; set engine to auto')
    if threads and device.type == 'cpu':
        torch.set_num_threads(threads)
    compiler = {'mode': 'reduce-overhead'} if experimental_gpu and device.type == 'cuda' else None
    return TorchEngine(device, precision, compiler=compiler)


def _tensorrt(device: torch.device) -> dict[str, Any]:
    """Return what makes ``torch.compile`` build TensorRT engines (torch_tensorrt 2.13), which has not run on a GPU.

    Explicit typing: what a layer computes in is the type of its weights, so precision is chosen by converting the
    network, and the warp of PWC-Net stays in float32. torch_tensorrt keeps the engines, since building takes minutes.
    """
    if device.type != 'cuda':
        raise UserError(
            f'engine torch_tensorrt runs on NVIDIA GPUs, but device is {device}; set device to cuda, or engine to auto'
        )
    if find_spec('torch_tensorrt') is None:
        raise UserError(
            f'engine is torch_tensorrt, but it is not installed; pip install torch_tensorrt of the version of '
            f'PyTorch ({torch.__version__}), or set engine to torch'
        )
    import torch_tensorrt  # noqa: F401 - makes itself known to torch.compile

    folder = user_folder('cache') / 'tensorrt'
    options = {
        'use_explicit_typing': True,
        'cache_built_engines': True,
        'reuse_cached_engines': True,
        'engine_cache_dir': str(folder),
        'timing_cache_path': str(folder / 'timing_cache.bin'),
        # What is kept can be filled with other weights.
        'immutable_weights': False,
    }
    return {'backend': 'torch_tensorrt', 'options': options}
