"""CUDA graphs: what a network launches, recorded once for each batch size and launched as one."""

from __future__ import annotations

import logging
from collections import Counter
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from moving_object_detector.engines.base import Runner

SEEN_BEFORE_CAPTURE = 3
"""Calls with a batch size that run eagerly; they are the warm-up that a capture needs."""
MOST_GRAPHS = 4
"""Each holds the memory of its batch."""
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
                    logging.getLogger(__name__).warning('no CUDA graph, the network runs eagerly: %s', error)
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
