"""OpenVINO as an engine, for CPUs."""

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

# Otherwise OpenVINO stores a user id in the home folder and reports each import and conversion to Google Analytics;
# without this package it does not, by design. No other module imports OpenVINO.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
import openvino  # noqa: E402 - after that line

HINTS: Final = {'float32': 'f32', 'bfloat16': 'bf16', 'float16': 'f16'}
"""OpenVINO's names of the floating-point precisions."""


class OpenVinoEngine:
    """Runs networks compiled for this CPU, at any batch length.

    ``precision`` is ``auto`` (float32), ``float32``, ``bfloat16`` or ``float16`` on a CPU that computes in it, or
    ``int8``: quantised layers in 8-bit integers, the others as :func:`mask_precision` says. ``threads`` 0: one per
    physical core.
    """

    name = 'openvino'

    def __init__(self, precision: str = 'auto', threads: int = 0) -> None:
        self.device = torch.device('cpu')
        self.precision = 'float32' if precision == 'auto' else precision
        # The layers in int8 are quantised in the network itself.
        self._floating = mask_precision() if precision == 'int8' else self.precision
        # Precision is always set: by default OpenVINO takes bfloat16 where the CPU has it. Threads are not pinned:
        # another process on a pinned core would hold up all of them.
        self._properties: dict[str, object] = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': HINTS[self._floating],
            'INFERENCE_NUM_THREADS': threads or usable_cores(),
            'ENABLE_CPU_PINNING': False,
        }

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Prepare a network, see :meth:`Engine.load`; UserError if the CPU does not compute in the precision."""
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
    """Return a zero-copy runner: inputs are shared, outputs are written to the memory that is returned."""
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
    """Run an action in its own thread.

    OpenVINO gives the thread that loads its CPU plugin a signal stack and frees it with the plugin, although the
    thread may live on; the next SIGINT or SIGCHLD would then crash the process.
    """
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(action).result()


def _converted(module: nn.Module, examples: tuple[Tensor, ...]) -> Any:
    """Convert a network to an OpenVINO model for any batch length."""
    # One row: tracing runs the network at full size.
    rows = tuple(example[:1].cpu() for example in examples)
    with warnings.catch_warnings(), torch.no_grad():
        # Tracing fixes the sizes, as intended: the engine has only one.
        warnings.simplefilter('ignore', TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        traced = torch.jit.trace(module, rows, check_trace=False)  # type: ignore[no-untyped-call]
    return openvino.convert_model(traced, input=[[-1, *row.shape[1:]] for row in rows])


def mask_precision() -> str:
    """Return this CPU's fastest precision for masks: bfloat16 if it has instructions for it, else float32."""
    # By default OpenVINO hints at the precision that is fastest on the hardware.
    hint = _aside(lambda: openvino.Core().get_property('CPU', 'INFERENCE_PRECISION_HINT'))
    return 'bfloat16' if hint.to_string() == 'bf16' else 'float32'
