"""PyTorch as an engine: the reference, on a CPU or a GPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import PRECISIONS, Runner, outputs_of
from moving_object_detector.engines.experimental_gpu import CudaGraphs


class TorchEngine:
    """Runs networks eagerly, channels last.

    Args:
        device: Where it runs.
        precision: ``auto`` (float32), ``float32``, or on a GPU ``float16`` or ``bfloat16``. On a GPU convolutions in
            float32 are computed in TF32 where PyTorch allows it, and then ``precision`` says so.
        graphs: Whether to capture CUDA graphs of the batch sizes that keep coming, on a GPU; that has not run on one.

    Raises:
        UserError: Half precision on a CPU.

    """

    name = 'torch'

    def __init__(self, device: torch.device, precision: str = 'auto', *, graphs: bool = False) -> None:
        self.device = device
        wanted = 'float32' if precision == 'auto' else precision
        if device.type == 'cpu' and wanted != 'float32':
            raise UserError(
                f'precision is {precision}, but engine torch computes in float32 on a CPU; '
                'set precision to auto, or engine to openvino, which can use bfloat16'
            )
        self._dtype = PRECISIONS[wanted]
        self.capturable = graphs and device.type == 'cuda'
        self.precision = real_precision(device, wanted)

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready; see :class:`~moving_object_detector.engines.base.Engine`."""
        module = placed(module, self.device, self._dtype)

        @torch.inference_mode()
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return outputs_of(module(*(tensor.to(self._dtype) for tensor in inputs)))

        return CudaGraphs(run, self.device) if self.capturable else run


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
