"""OpenVINO as an engine: for a bare CPU."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import Runner, usable_cores

# Else OpenVINO numbers the user in a file in the home folder and tells Google Analytics of each import and conversion;
# without this package it does not, by its own design. No other module imports OpenVINO.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
import openvino  # noqa: E402 - after that line

HINTS: Final = {'float32': 'f32', 'bfloat16': 'bf16', 'float16': 'f16'}
"""What OpenVINO calls the floating precisions."""


class OpenVinoEngine:
    """Runs networks compiled for this CPU, at any batch length.

    ``precision`` is ``auto`` (float32), ``float32``, ``bfloat16`` or ``float16`` on a CPU that computes in it, or
    ``int8``: a quantised network's layers in 8-bit integers, all else as :func:`mask_precision` says. ``threads`` 0:
    one for each physical core.
    """

    name = 'openvino'

    def __init__(self, precision: str = 'auto', threads: int = 0) -> None:
        self.device = torch.device('cpu')
        self.precision = 'float32' if precision == 'auto' else precision
        # What is int8 is so in the network itself.
        self._floating = mask_precision() if precision == 'int8' else self.precision
        # Precision is always asked for: OpenVINO chooses bfloat16 by itself where the CPU has it. Threads are not
        # pinned: what else runs on a pinned core would hold all the others up.
        self._properties: dict[str, object] = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': HINTS[self._floating],
            'INFERENCE_NUM_THREADS': threads or usable_cores(),
            'ENABLE_CPU_PINNING': False,
        }

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready, as every engine; UserError where the CPU does not compute in the precision."""
        module = module.eval().cpu()
        compiled = _aside(lambda: openvino.Core().compile_model(_converted(module, examples), 'CPU', self._properties))
        found = compiled.get_property('INFERENCE_PRECISION_HINT').to_string()
        if found != HINTS[self._floating]:
            real = next((name for name, hint in HINTS.items() if hint == found), found)
            raise UserError(
                f'precision is {self.precision}, but OpenVINO computes in {real} on this CPU; set precision to auto'
            )
        return _runner(compiled)


def _runner(compiled: Any) -> Runner:
    """Return what runs a network without copying: inputs are shared, outputs written to the memory that is returned."""
    request = compiled.create_infer_request()
    shapes = [[size.get_length() for size in list(port.partial_shape)[1:]] for port in compiled.outputs]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = [np.empty((inputs[0].shape[0], *shape), np.float32) for shape in shapes]
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        for index, array in enumerate(arrays):
            request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        for index, array in enumerate(outputs):
            request.set_output_tensor(index, openvino.Tensor(array, shared_memory=True))
        request.infer()
        return tuple(torch.from_numpy(array) for array in outputs)

    return run


def _aside(action: Callable[[], Any]) -> Any:
    """Do something in a thread of its own.

    OpenVINO gives the thread that loads its CPU plugin a signal stack, and frees it with the plugin although the
    thread may live on; the next Ctrl-C or end of a child would crash the process.
    """
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(action).result()


def _converted(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """Return OpenVINO's model of a network, of any batch length."""
    # One row: the network is run once at its full size.
    rows = tuple(example[:1].cpu() for example in examples)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing fixes the sizes, which is what is wanted: the engine has one.
        warnings.simplefilter('ignore', TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        traced = torch.jit.trace(module, rows, check_trace=False)  # type: ignore[no-untyped-call]
    return openvino.convert_model(traced, input=[[-1, *row.shape[1:]] for row in rows])


def mask_precision() -> str:
    """Return in what this CPU computes masks fastest: bfloat16 where it has instructions for that, else float32."""
    # Unasked, OpenVINO hints at what the hardware is fastest with.
    hint = _aside(lambda: openvino.Core().get_property('CPU', 'INFERENCE_PRECISION_HINT'))
    return 'bfloat16' if hint.to_string() == 'bf16' else 'float32'
