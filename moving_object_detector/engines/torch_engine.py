"""PyTorch as an engine: the reference, on a CPU or a GPU."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.engines.base import PRECISIONS, Runner, outputs_of

_log = logging.getLogger(__name__)


class TorchEngine:
    """Runs networks eagerly, channels last; or compiled by ``torch.compile``, whose arguments ``compiler`` are.

    On a GPU convolutions in float32 are computed in TF32 where PyTorch allows it, and then ``precision`` says so.
    Raises UserError for half precision on a CPU.
    """

    def __init__(
        self,
        device: torch.device,
        precision: str = 'auto',
        name: str = 'torch',
        compiler: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = device
        self.name = name
        wanted = 'float32' if precision == 'auto' else precision
        if device.type == 'cpu' and wanted != 'float32':
            raise UserError(
                f'precision is {precision}, but engine torch computes in float32 on a CPU; '
                'set precision to auto, or engine to openvino, which can use bfloat16'
            )
        self._dtype = PRECISIONS[wanted]
        self._compiler = compiler
        self.precision = real_precision(device, wanted)

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready, as every engine; UserError where it cannot be compiled.

        Compiled for the examples' batch alone; at most half of it is run as it is, in the same precision.
        """
        module = placed(module, self.device, self._dtype)
        plain = runner(module, self.device, self._dtype)
        if self._compiler is None:
            return plain
        run = runner(torch.compile(module, dynamic=False, **self._compiler), self.device, self._dtype, copied=True)
        try:
            _log.info('%s: %s builds an engine, which may take minutes', label, self.name)
            started = time.monotonic()
            run(*examples)
            _log.info('%s: built in %.0f s', label, time.monotonic() - started)
        except Exception as error:  # whatever the many parts of a compiler raise
            raise UserError(
                f'{label} cannot be compiled for engine {self.name} ({type(error).__name__}: {foreign(error, 200)}); '
                'set engine to torch and experimental_gpu to false'
            ) from error
        return FixedBatch(run, len(examples[0]), plain)


def runner(module: Callable[..., Any], device: torch.device, dtype: torch.dtype, *, copied: bool = False) -> Runner:
    """Return what runs a module on a device; its outputs ``copied`` where the next run writes to the same memory."""

    @torch.inference_mode()
    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = outputs_of(module(*(tensor.to(device, dtype) for tensor in inputs)))
        # In half precision outputs_of has copied them.
        return tuple(output.clone() for output in outputs) if copied and dtype is torch.float32 else outputs

    return run


class FixedBatch:
    """Splits longer batches than ``batch`` rows and fills up shorter ones with copies of the last row.

    ``small`` runs up to half as many rows, for which a full batch would be waste.
    """

    def __init__(self, run: Runner, batch: int, small: Runner | None = None) -> None:
        self._run = run
        self._batch = batch
        self._small = small

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs for all rows."""
        parts = [
            self._part(*(tensor[start : start + self._batch] for tensor in inputs))
            for start in range(0, inputs[0].shape[0], self._batch)
        ]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(rows) for rows in zip(*parts, strict=True))

    def _part(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        rows = inputs[0].shape[0]
        if self._small is not None and 2 * rows <= self._batch:
            return self._small(*inputs)
        missing = self._batch - rows
        if missing:
            inputs = tuple(torch.cat((tensor, tensor[-1:].expand(missing, *tensor.shape[1:]))) for tensor in inputs)
        return tuple(output[:rows] for output in self._run(*inputs))


def placed(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a module for inference on a device: itself, moved, in float32, or a copy in half precision."""
    if dtype is not torch.float32:
        module = copy.deepcopy(module)
    return module.eval().to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def real_precision(device: torch.device, wanted: str) -> str:
    """Return what convolutions on the device are computed in when ``wanted`` is asked for."""
    if wanted != 'float32' or device.type != 'cuda' or torch.version.hip is not None:
        return wanted
    ampere = torch.cuda.get_device_capability(device) >= (8, 0)
    return 'tf32' if ampere and torch.backends.cudnn.allow_tf32 else 'float32'
