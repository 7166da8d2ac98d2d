"""PyTorch as an engine: the reference, on a CPU or a GPU."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.engines.base import Runner

_log = logging.getLogger(__name__)


PRECISIONS: Final = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


class TorchEngine:
    """Runs networks eagerly, in channels-last layout, or compiled by ``torch.compile`` with arguments ``compiler``.

    On a GPU float32 convolutions use TF32 where PyTorch allows it; ``precision`` then says so. Raises UserError for
    half precision on a CPU.
    """

    def __init__(
        self,
        device: torch.device,
        precision: str = 'auto',
        name: str = 'torch',
        compiler: Mapping[str, Any] | None = None,
    ) -> None:
        self.device, self.name, self._compiler = device, name, compiler
        self.precision = 'float32' if precision == 'auto' else precision
        if device.type == 'cpu' and self.precision != 'float32':
            raise UserError(
                f'precision is {precision}, but engine torch computes in float32 on a CPU; '
                'set precision to auto, or engine to openvino, which can use bfloat16'
            )
        self._dtype = PRECISIONS[self.precision]
        # TF32 came with NVIDIA's Ampere; AMD has none.
        if self._dtype is torch.float32 and device.type == 'cuda' and torch.version.hip is None:
            ampere = torch.cuda.get_device_capability(device) >= (8, 0)
            self.precision = 'tf32' if ampere and torch.backends.cudnn.allow_tf32 else 'float32'

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Prepare a network, see :meth:`Engine.load`; UserError if it cannot be compiled.

        Compiled for the examples' batch length; up to half as many rows run uncompiled, in the same precision.
        """
        if self._dtype is not torch.float32:
            module = copy.deepcopy(module)
        module = module.eval().to(self.device, self._dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        plain = self._runner(module)
        if self._compiler is None:
            return plain
        run = self._runner(torch.compile(module, dynamic=False, **self._compiler), copied=True)
        try:
            _log.info('%s: %s builds an engine, which may take minutes', label, self.name)
            started = time.monotonic()
            run(*examples)
            _log.info('%s: built in %.0f s', label, time.monotonic() - started)
        except Exception as error:  # compilers raise anything
            raise UserError(
                f'{label} cannot be compiled for engine {self.name} ({type(error).__name__}: {foreign(error, 200)}); '
                'set engine to torch and experimental_gpu to false'
            ) from error
        return fixed_batch(run, len(examples[0]), plain)

    def _runner(self, module: Callable[..., Any], *, copied: bool = False) -> Runner:
        """Return a runner of a module; its outputs are ``copied`` if the next run would overwrite them."""

        @torch.inference_mode()
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            result = module(*(tensor.to(self.device, self._dtype) for tensor in inputs))
            tensors = (result,) if isinstance(result, Tensor) else result
            return tuple(tensor.to(torch.float32, copy=copied) for tensor in tensors)

        return run


def fixed_batch(run: Runner, batch: int, small: Runner | None = None) -> Runner:
    """Return a runner that splits batches longer than ``batch`` and pads shorter ones with copies of their last row.

    ``small`` runs batches of up to half that length, where padding would be wasteful.
    """

    def run_part(*inputs: Tensor) -> tuple[Tensor, ...]:
        rows = inputs[0].shape[0]
        if small is not None and 2 * rows <= batch:
            return small(*inputs)
        missing = batch - rows
        if missing:
            inputs = tuple(torch.cat((tensor, tensor[-1:].expand(missing, *tensor.shape[1:]))) for tensor in inputs)
        return tuple(output[:rows] for output in run(*inputs))

    def run_all(*inputs: Tensor) -> tuple[Tensor, ...]:
        starts = range(0, inputs[0].shape[0], batch)
        parts = [run_part(*(tensor[start : start + batch] for tensor in inputs)) for start in starts]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    return run_all
