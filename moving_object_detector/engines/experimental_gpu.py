"""What has been written for GPUs and has not run on one; on by the option ``experimental_gpu`` alone.

CUDA graphs: what a network launches, recorded once for each batch size and launched as one. And PWC-Net's warp and
cost volume by one Triton kernel (``correlation_kernel.py``).
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from contextvars import ContextVar
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from moving_object_detector.engines.base import Engine, Runner
from moving_object_detector.networks.pwcnet import PWCNet, padded

SEEN_BEFORE_CAPTURE = 3
"""Calls with a batch size that run eagerly; they are the warm-up that a capture needs."""
MOST_GRAPHS = 4
"""Each holds the memory of its batch."""
_log = logging.getLogger(__name__)
_within: ContextVar[bool] = ContextVar('within', default=False)
"""Whether what runs belongs to a greater graph, of which its launches will be a part."""


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class CudaGraphs:
    """Replays what it is given for the batch sizes that keep coming, and runs it eagerly for the others.

    One in another is part of the other's graphs and captures none of its own.

    Args:
        run: A network, or several steps, without synchronisation in them.
        device: The GPU.

    """

    def __init__(self, run: Runner, device: torch.device) -> None:
        self._run = run
        self._device = device
        self._calls: Counter[int] = Counter()
        self._graphs: dict[int, _Graph] = {}
        self._gave_up = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs, in memory of their own."""
        if _within.get() or self._gave_up:
            # Where the whole cannot be captured, its parts still may.
            return self._run(*inputs)
        batch = inputs[0].shape[0]
        if batch not in self._graphs and not self._to_capture(batch):
            return self._as_a_whole(inputs)
        with torch.cuda.device(self._device), torch.inference_mode():
            if batch not in self._graphs:
                try:
                    self._graphs[batch] = self._capture(inputs)
                except RuntimeError as error:
                    self._gave_up = True
                    _log.warning('no CUDA graph, the network runs eagerly: %s', error)
                    return self._run(*inputs)
            graph = self._graphs[batch]
            for kept, tensor in zip(graph.inputs, inputs, strict=True):
                kept.copy_(tensor, non_blocking=True)
            graph.graph.replay()
            # Copied, since the next replay writes to the same memory.
            return tuple(tensor.clone() for tensor in graph.outputs)

    def _as_a_whole(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        token = _within.set(True)
        try:
            return self._run(*inputs)
        finally:
            _within.reset(token)

    def _to_capture(self, batch: int) -> bool:
        self._calls[batch] += 1
        return self._calls[batch] > SEEN_BEFORE_CAPTURE and len(self._graphs) < MOST_GRAPHS

    def _capture(self, inputs: tuple[Tensor, ...]) -> _Graph:
        kept = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Once more on the stream of the capture: libraries make their handles per stream.
            self._as_a_whole(kept)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode='thread_local'):
            outputs = self._as_a_whole(kept)
        return _Graph(graph, kept, outputs)


def fuse_correlation(network: PWCNet, engine: Engine, size: tuple[int, int]) -> PWCNet:
    """Return the network as the engine is fastest with it; the log says which that is.

    The kernel is compiled here, which takes some seconds the first time and is kept in Triton's cache. Triton needs a C
    compiler for that.

    Args:
        network: With its weights loaded; stays as it is.
        engine: Runs modules as they are, that is ``torch``.
        size: (height, width) of the images, rounded up to multiples of 64.

    Returns:
        A copy that uses the kernel, for inference alone; the network itself where Triton is not installed or fails.

    """
    if find_spec('triton') is None:
        _log.info('PWC-Net: warp and cost volume by PyTorch; Triton, which is faster, is not installed')
        return network
    fused = copy.deepcopy(network)
    try:
        from moving_object_detector.engines.correlation_kernel import correlate

        fused.correlate = correlate
        image = torch.zeros(1, 3, *padded(size))
        run = engine.load(fused, (image, image), 'PWC-Net')
        image = image.to(engine.device)
        # Fetched, since a GPU says only then what went wrong.
        run(image, image)[0].cpu()
    except Exception as error:  # noqa: BLE001 - a compiler and a driver fail in any way, and PyTorch does as well
        reason = str(error).strip().partition('\n')[0]
        _log.warning('PWC-Net: warp and cost volume by PyTorch; Triton fails: %s: %s', type(error).__name__, reason)
        return network
    _log.info('PWC-Net: warp and cost volume by one Triton kernel')
    return fused
