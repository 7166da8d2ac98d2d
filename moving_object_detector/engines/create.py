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
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; UserError, naming ``option``, for others."""
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
    """Resolve an engine's name; ``auto`` is OpenVINO on a CPU if it is installed, else PyTorch."""
    if name != 'auto':
        return name
    return 'openvino' if device.type == 'cpu' and find_spec('openvino') is not None else 'torch'


def mask_precision(name: str, device: torch.device) -> str:
    """Return an engine's fastest precision that leaves the masks unchanged (docs/performance.md)."""
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
    """Create the engine of the options; UserError if it is not installed or does not run on the device.

    ``auto`` precision is float32.
    """
    chosen = choose_engine(name, device)
    if precision == 'int8' and chosen != 'openvino':
        raise UserError(
            f'precision is int8, which only engine openvino supports, but the engine is {chosen}; '
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
        raise UserError(f'engine is {shown(name)}, which is unknown; set engine to auto')
    if threads and device.type == 'cpu':
        torch.set_num_threads(threads)
    compiler = {'mode': 'reduce-overhead'} if experimental_gpu and device.type == 'cuda' else None
    return TorchEngine(device, precision, compiler=compiler)


def _tensorrt(device: torch.device) -> dict[str, Any]:
    """Return the arguments that make ``torch.compile`` build TensorRT engines (torch_tensorrt 2.13); untested on a GPU.

    With explicit typing a layer computes in the type of its weights: precision is set by converting the network, and
    PWC-Net's warp stays in float32. torch_tensorrt caches the engines, since building takes minutes.
    """
    if device.type != 'cuda':
        raise UserError(
            f'engine torch_tensorrt runs on NVIDIA GPUs, but device is {device}; set device to cuda, or engine to auto'
        )
    if find_spec('torch_tensorrt') is None:
        raise UserError(
            f'engine is torch_tensorrt, but it is not installed; pip install the torch_tensorrt that fits '
            f'PyTorch {torch.__version__}, or set engine to torch'
        )
    import torch_tensorrt  # noqa: F401 - registers itself with torch.compile

    folder = user_folder('cache') / 'tensorrt'
    options = {
        'use_explicit_typing': True,
        'cache_built_engines': True,
        'reuse_cached_engines': True,
        'engine_cache_dir': str(folder),
        'timing_cache_path': str(folder / 'timing_cache.bin'),
        # So that cached engines can be refitted with other weights.
        'immutable_weights': False,
    }
    return {'backend': 'torch_tensorrt', 'options': options}
