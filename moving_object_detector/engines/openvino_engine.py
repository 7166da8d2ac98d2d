"""The generator compiled by OpenVINO: the engine for a bare CPU."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from moving_object_detector.networks.generator import Generator


class OpenVinoEngine:
    """Runs a generator compiled for this CPU in float32.

    Args:
        generator: With its weights loaded.
        size: (height, width) of its input.
        threads: CPU threads; 0 leaves the choice to OpenVINO.

    """

    def __init__(self, generator: Generator, size: tuple[int, int], threads: int = 0) -> None:
        import openvino

        height, width = size
        example = torch.zeros(2, 3, height, width), torch.zeros(2, 2, height, width)
        shapes = [[-1, 3, height, width], [-1, 2, height, width]]
        with warnings.catch_warnings():
            # Tracing fixes the sizes, which is what is wanted: the engine has one.
            warnings.simplefilter('ignore', TracerWarning)
            model = openvino.convert_model(generator.eval().cpu(), example_input=example, input=shapes)
        # float32 is asked for, since OpenVINO may choose bfloat16 by itself where the CPU has it.
        properties: dict[str, object] = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            properties['INFERENCE_NUM_THREADS'] = threads
        # In a thread of its own: OpenVINO gives the thread that loads its CPU plugin a signal stack, and frees it with
        # the plugin although the thread may live on; the next Ctrl-C or end of a child would crash the process.
        with ThreadPoolExecutor(1) as loader:
            compiled = loader.submit(openvino.compile_model, model, 'CPU', properties).result()
        self._request = compiled.create_infer_request()
        self.device = torch.device('cpu')
        self.name = 'openvino float32 on cpu'

    def __call__(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return masks; see :class:`~moving_object_detector.engines.base.MaskEngine`."""
        inputs = [image.contiguous().numpy(), flow.contiguous().numpy()]
        outputs = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        # Copied, since the request reuses its output for the next batch.
        return torch.from_numpy(outputs[0].copy())
