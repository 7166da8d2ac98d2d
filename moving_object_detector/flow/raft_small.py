"""RAFT-small (Teed and Deng, ECCV 2020) as a flow backend with warm start from the previous frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector.flow.base import Load, load_eagerly, resize_flow, upload
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.raft_small import (
    CONTEXT_CHANNELS,
    CORRELATION_LEVELS,
    HIDDEN,
    LOOKUP_RADIUS,
    MATCHING,
    SMALLEST_INPUT,
    STRIDE,
    RaftSmall,
    correlation_pyramid,
    pixel_positions,
    refine_flow,
    upsample,
)

# Finest-level correlations held at once: half a gigabyte of float32.
MOST_CORRELATIONS: Final = 2**27
# A warm start that matches worse than this share of zero flow is dropped, as after a cut.
LEAST_MATCH: Final = 0.7


@dataclass(frozen=True, eq=False)
class RaftFrame:
    """A frame's features, used by all its pairs, and the flows found from it."""

    matching: Tensor
    """(1, 128, h, w) at an eighth of the size, compared with the other frame's."""
    context: Tensor
    """(1, 160, h, w), used as the source of a pair."""
    number: int
    """Index of the frame in its stream."""
    before: dict[int, Tensor]
    """:attr:`flows` of the previous frame; empty at the start of a stream."""
    flows: dict[int, Tensor] = field(default_factory=dict)
    """From this frame to the one ``gap`` frames later, by gap: (2, h, w), in pixels of the features."""


class Encoders(nn.Module):
    """The part of RAFT-small that encodes one frame."""

    def __init__(self, network: RaftSmall) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of an image (B, 3, H, W), RGB in [-1, 1]."""
        return self.network.features(image)


class Correlations(nn.Module):
    """The part that compares two frames; it has no parameters."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Return the levels of :func:`correlation_pyramid`."""
        return tuple(correlation_pyramid(a, b))


class RaftSmallFlow:
    """Flow by RAFT-small, computed at ``size`` (height, width), rounded up to multiples of 8, at least 64.

    A pair starts from the flow of the previous pair (both frames one earlier), warped along itself as the authors do
    for video, and then needs only ``warm_iterations`` (0: no warm start); without one, ``iterations``. ``network`` is
    moved to ``device``, where ``load`` prepares its parts for the usual ``batch`` of pairs; None: PyTorch.
    """

    def __init__(
        self,
        network: RaftSmall,
        size: tuple[int, int],
        device: torch.device,
        iterations: int = 12,
        warm_iterations: int = 0,
        load: Load | None = None,
        batch: int = 1,
    ) -> None:
        self.name = 'raft_small'
        self._device = device
        self._iterations, self._warm_iterations = iterations, warm_iterations
        height, width = (max(-(-length // STRIDE) * STRIDE, SMALLEST_INPUT) for length in size)
        self._size = (height, width)
        load = load or load_eagerly(device)
        h, w = height // STRIDE, width // STRIDE
        self._pairs_at_once = max(MOST_CORRELATIONS // (h * w) ** 2, 1)
        batch = min(batch, self._pairs_at_once)
        self._encode = load(Encoders(network), (torch.zeros(1, 3, height, width),), 'RAFT-small encoders')
        maps = torch.zeros(batch, MATCHING, h, w)
        self._correlate = load(Correlations(), (maps, maps), 'RAFT-small correlations')
        channels = (HIDDEN, CONTEXT_CHANNELS, CORRELATION_LEVELS * (2 * LOOKUP_RADIUS + 1) ** 2, 2)
        examples = tuple(torch.zeros(batch, count, h, w) for count in channels)
        self._update = load(network.update_block, examples, 'RAFT-small update')

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8], before: RaftFrame | None = None) -> RaftFrame:
        """Return the frame's features; ``before`` is the result for the previous frame of the stream."""
        small = resize_image(image, self._size)
        pixels = upload(np.ascontiguousarray(small.transpose(2, 0, 1))[None], self._device)
        matching, context = self._encode(pixels.float() / 127.5 - 1.0)
        number, flows = (before.number + 1, before.flows) if before else (0, {})
        return RaftFrame(matching, context, number, flows)

    @torch.inference_mode()
    def estimate(self, sources: Sequence[RaftFrame], targets: Sequence[RaftFrame], size: tuple[int, int]) -> Tensor:
        """Estimate the flow of each pair, in batches; see :class:`~moving_object_detector.flow.base.FlowBackend`."""
        pairs = list(zip(sources, targets, strict=True))
        flows = torch.empty(len(pairs), 2, *size, device=self._device)
        warm = [self._warm_iterations > 0 and other.number - one.number in one.before for one, other in pairs]
        for warm_start in (False, True):
            chosen = [number for number, is_warm in enumerate(warm) if is_warm is warm_start]
            for start in range(0, len(chosen), self._pairs_at_once):
                batch = chosen[start : start + self._pairs_at_once]
                flow = self._refined([pairs[number] for number in batch], warm=warm_start)
                flows[batch] = resize_flow(upsample(flow), size)
        return flows

    def _refined(self, pairs: Sequence[tuple[RaftFrame, RaftFrame]], *, warm: bool) -> Tensor:
        """Return the flow of each pair at the features' size, and store it for later pairs."""
        matching = [torch.cat([pair[end].matching for pair in pairs]) for end in (0, 1)]
        context = torch.cat([one.context for one, _ in pairs])
        pyramid = self._correlate(*matching)
        gaps = [other.number - one.number for one, other in pairs]
        start, iterations = torch.zeros_like(context[:, :2]), self._iterations
        if warm:
            carried = torch.stack([carry(one.before[gap], gap) for (one, _), gap in zip(pairs, gaps, strict=True)])
            good = match_quality(pyramid[0], carried) >= LEAST_MATCH * match_quality(pyramid[0], start)
            start, iterations = torch.where(good[:, None, None, None], carried, start), self._warm_iterations
        flow = refine_flow(self._update, pyramid, context, start, iterations)
        if self._warm_iterations:
            for (one, _), gap, found in zip(pairs, gaps, flow, strict=True):
                one.flows[gap] = found
        return flow


def carry(flow: Tensor, gap: int) -> Tensor:
    """Warp flow (2, h, w), in its own pixels, along itself by one frame, assuming constant velocity.

    It leads to the frame ``gap``, not 0, frames later. Each pixel of the result, (2, h, w), is the mean of the vectors
    that land on it, or keeps its flow where none does.
    """
    height, width = flow.shape[-2:]
    x, y = (pixel_positions(flow) + flow / gap).round()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = (y[inside] * width + x[inside]).long()
    vectors = torch.cat((flow, torch.ones_like(flow[:1])))[:, inside]
    arrived = torch.zeros_like(flow.new_empty(3, height * width)).index_add(1, cells, vectors).view(3, height, width)
    return torch.where(arrived[2] > 0, arrived[:2] / arrived[2].clamp_min(1), flow)


def match_quality(correlations: Tensor, flow: Tensor) -> Tensor:
    """Return the mean correlation (B,) of each pair along a flow (B, 2, h, w), in pixels of the features.

    Read from the finest ``correlations``, (B, h w, h, w), at the nearest pixels, zero outside.
    """
    height, width = flow.shape[-2:]
    x, y = (pixel_positions(flow) + flow).round().unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = torch.where(inside, y * width + x, 0).long().flatten(1)[..., None]
    return (correlations.flatten(2).gather(2, cells)[..., 0] * inside.flatten(1)).mean(1)
