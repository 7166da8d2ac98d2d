"""TensorRT as an engine, through torch_tensorrt: for NVIDIA GPUs.

Written against the documented interface of torch_tensorrt 2.13; it has not run where this project is tested.
"""

from __future__ import annotations

import ctypes
import io
import logging
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import PRECISIONS, Runner
from moving_object_detector.engines.cache import EngineCache, Key, building, code_hash, shapes_text
from moving_object_detector.engines.torch_engine import FixedBatch, placed, real_precision, runner
from moving_object_detector.networks.weights import weights_hash

_log = logging.getLogger(__name__)


class TensorRtEngine:
    """Runs networks as TensorRT engines of static shapes; always cached, since building takes minutes.

    Explicit typing: what a layer computes in is the type of its weights, so precision is chosen by converting the
    network, and the warp of PWC-Net stays in float32.

    Args:
        device: A CUDA device.
        precision: ``auto`` (float32), ``float32``, ``float16`` or ``bfloat16``.
        cache: Where engines are kept; None: nowhere.

    Raises:
        UserError: torch_tensorrt is not installed, or the device is no GPU.

    """

    name = 'torch_tensorrt'

    def __init__(self, device: torch.device, precision: str = 'auto', cache: EngineCache | None = None) -> None:
        if device.type != 'cuda':
            raise UserError(
                f'engine torch_tensorrt runs on NVIDIA GPUs, but device is {device}; '
                'set device to cuda, or engine to auto'
            )
        if find_spec('torch_tensorrt') is None:
            raise UserError(
                f'engine is torch_tensorrt, but it is not installed; pip install torch_tensorrt of the version of '
                f'PyTorch ({torch.__version__}), or set engine to torch'
            )
        # With its index: engines belong to the GPU they were built on.
        self.device = device if device.index is not None else torch.device('cuda', torch.cuda.current_device())
        wanted = 'float32' if precision == 'auto' else precision
        self._dtype = PRECISIONS[wanted]
        self._cache = cache
        self.precision = real_precision(self.device, wanted)

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready; see :class:`~moving_object_detector.engines.base.Engine`.

        Batches of at most half the examples' are run by PyTorch in the same precision.

        Raises:
            UserError: TensorRT cannot build the network.

        """
        module = placed(module, self.device, self._dtype)
        inputs = tuple(example.to(self.device, self._dtype) for example in examples)
        key = {
            'label': label,
            'engine': self.name,
            'device': f'{torch.cuda.get_device_name(self.device)} {torch.cuda.get_device_capability(self.device)}',
            'precision': self.precision,
            'shapes': shapes_text(inputs, batch=True),
            'weights': weights_hash(module.state_dict()),
            'code': code_hash(module, self),
            **versions(),
        }
        with torch.cuda.device(self.device):
            compiled = self._kept(key) or self._built(module, inputs, key)
        batch = inputs[0].shape[0]
        run = runner(compiled, self.device, self._dtype, copied=True)
        return FixedBatch(run, batch, runner(module, self.device, self._dtype) if batch > 1 else None)

    def _kept(self, key: Key) -> nn.Module | None:
        payload = self._cache.load(key) if self._cache else None
        if payload is None:
            return None
        import torch_tensorrt  # noqa: F401 - registers the operators that are in the file

        try:
            return torch.export.load(io.BytesIO(payload)).module()
        except Exception as error:  # noqa: BLE001 - a file that TensorRT refuses fails in any way, and is built anew
            _log.warning('the cached engine of the %s cannot be loaded and is built anew: %s', key['label'], error)
            return None

    def _built(self, module: nn.Module, inputs: tuple[Tensor, ...], key: Key) -> Any:
        import torch_tensorrt

        label = key['label']
        _log.warning('%s: TensorRT builds an engine, this takes minutes', label)
        timing = {'timing_cache_path': str(self._cache.folder / 'timing_cache.bin')} if self._cache else {}
        try:
            with building(label, 'TensorRT'):
                with torch.no_grad():
                    program = torch.export.export(module, inputs)
                compiled = torch_tensorrt.dynamo.compile(
                    program, arg_inputs=inputs, device=self.device, use_explicit_typing=True, **timing
                )
        except Exception as error:  # whatever its many parts raise
            raise UserError(
                f'TensorRT cannot build an engine of the {label} ({type(error).__name__}: {error}); set engine to torch'
            ) from error
        if self._cache:
            self._store(compiled, inputs, key)
        return compiled

    def _store(self, compiled: Any, inputs: tuple[Tensor, ...], key: Key) -> None:
        import torch_tensorrt

        assert self._cache is not None
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, 'engine.pt2')
                torch_tensorrt.save(compiled, str(path), output_format='exported_program', arg_inputs=list(inputs))
                payload = path.read_bytes()
        except Exception as error:  # noqa: BLE001 - the engine runs in any case
            _log.warning(
                'the engine of the %s cannot be kept and is built again at the next start: %s', key['label'], error
            )
            return
        self._cache.store(key, payload)


def versions() -> dict[str, str]:
    """Return the versions that a TensorRT engine depends on."""
    return {
        'torch': torch.__version__,
        'torch_tensorrt': _version('torch_tensorrt'),
        'tensorrt': _version('tensorrt'),
        'cuda': str(torch.version.cuda),
        'driver': _driver(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return 'unknown'


def _driver() -> str:
    """Return the newest CUDA version that the driver knows, as it numbers it: 12040 is 12.4."""
    number = ctypes.c_int(0)
    try:
        ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(number))
    except OSError:
        return 'unknown'
    return str(number.value)
