"""TensorRT as an engine, as a compiler of PyTorch's (torch_tensorrt): for NVIDIA GPUs.

Written against the documented interface of torch_tensorrt 2.13; it has not run where this project is tested.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import Runner
from moving_object_detector.engines.cache import EngineCache, building
from moving_object_detector.engines.torch_engine import FixedBatch, TorchEngine, placed, runner

_log = logging.getLogger(__name__)


class TensorRtEngine(TorchEngine):
    """Runs networks as TensorRT engines of static shapes, which torch_tensorrt keeps, since building takes minutes.

    Explicit typing: what a layer computes in is the type of its weights, so precision is chosen by converting the
    network, and the warp of PWC-Net stays in float32. Engines are kept in the folder of ``cache``, if any. Raises
    UserError where torch_tensorrt is not installed or the device is no GPU.
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
        super().__init__(device, precision)
        self._cache = cache

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready, as every engine; UserError where TensorRT cannot build it.

        Batches of at most half the examples' are run by PyTorch in the same precision.
        """
        import torch_tensorrt  # noqa: F401 - makes itself known to torch.compile

        module = placed(module, self.device, self._dtype)
        options: dict[str, Any] = {'use_explicit_typing': True}
        if self._cache:
            folder = self._cache.folder / 'tensorrt'
            options |= {
                # What is kept can be filled with other weights.
                'immutable_weights': False,
                'cache_built_engines': True,
                'reuse_cached_engines': True,
                'engine_cache_dir': str(folder),
                'timing_cache_path': str(folder / 'timing_cache.bin'),
            }
        built = torch.compile(module, backend='torch_tensorrt', dynamic=False, options=options)
        run = runner(built, self.device, self._dtype, copied=True)
        _log.warning('%s: TensorRT builds an engine where it has kept none, which takes minutes', label)
        try:
            with building(label, 'TensorRT'):
                run(*examples)
        except Exception as error:  # whatever its many parts raise
            raise UserError(
                f'TensorRT cannot build an engine of the {label} ({type(error).__name__}: {error}); set engine to torch'
            ) from error
        return FixedBatch(run, len(examples[0]), runner(module, self.device, self._dtype))
