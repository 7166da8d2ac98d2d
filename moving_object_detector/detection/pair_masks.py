"""From the flows of pairs to their masks, with the object inside: the border rule decides its polarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.experimental_gpu import CudaGraphs
from moving_object_detector.flow.generator_input import generator_flow, split_flow
from moving_object_detector.networks.weights import FlowInput

Watch = Callable[[str], AbstractContextManager[None]]
"""Gives the context in which a stage of that name runs; for measuring."""
Evidence = Callable[[Sequence[int]], Tensor]
"""Computes the evidence (n, 5, h, w) of some of a batch's pairs, by their numbers."""

# The released code's values, kept: they were never tuned on what we score.
BORDER_WIDTH: Final = 2
BORDER_LEVEL: Final = 0.1
BORDER_SHARE: Final = 0.6


def unwatched(_: str) -> AbstractContextManager[None]:
    """Let a stage run without anything around it."""
    return nullcontext()


def resolve_polarity(masks: Tensor) -> Tensor:
    """Replace each mask (B, 1, H, W) above 0.1 on more than 0.6 of its two-pixel border by 1 - mask.

    The loss is symmetric in the mask and its complement, so its polarity is arbitrary; background touches
    the border more than an object does. Before averaging, since masks of opposite polarity would cancel.
    """
    border = torch.ones(masks.shape[-2:], device=masks.device)
    border[BORDER_WIDTH:-BORDER_WIDTH, BORDER_WIDTH:-BORDER_WIDTH] = 0
    # Weighted, not chosen: how many pixels there are to choose a GPU would have to be asked.
    covered = ((masks[:, 0] > BORDER_LEVEL) * border).sum((1, 2)) / border.sum()
    return torch.where((covered > BORDER_SHARE)[:, None, None, None], 1 - masks, masks)


class GatedMasks(NamedTuple):
    """The masks of a batch of pairs."""

    masks: Tensor
    """(B, h, w) in [0, 1], with the object inside; zeros where nothing moves."""
    motion: Tensor
    """(B,), how much moves on its own, thousandths of the image width."""
    computed: int
    """How many of them the generator computed."""


class PairMasks:
    """Computes the masks of a batch of pairs; as one CUDA graph where the engine allows it."""

    def __init__(self, engine: MaskEngine, flow_input: FlowInput) -> None:
        self.engine = engine
        # No method of this object, which would keep itself, and the GPU's memory with it, alive.
        self._compute = partial(_compute, engine, flow_input)
        self._graphs = CudaGraphs(self._compute, engine.device) if engine.capturable else None

    def __call__(
        self, images: Tensor, flows: Tensor, least: float, stage: Watch, evidence: Evidence | None = None
    ) -> GatedMasks:
        """Compute masks; on a CPU without those of pairs in which nothing moves, on a GPU without waiting for it.

        Args:
            images: (B, 3, h, w), of the frames that are voted on, RGB in [-0.5, 0.5].
            flows: (B, 2, h, w), from these frames to their neighbours, pixels.
            least: Motion below which nothing moves.
            stage: Called around ``generator input`` and ``generator``; around the latter alone where all is one graph.
            evidence: For a generator that takes it; on a CPU asked only for the pairs that reach the generator.

        """
        if self._graphs is None:
            masks, motion = self._compute(images, flows, least, stage, evidence)
        else:
            if evidence is not None:
                flows = torch.cat((flows, evidence(range(len(flows)))), 1)
            with stage('generator'):
                masks, motion = self._graphs(images, flows)
        # Not >=: motion that is not a number must not pass for none.
        moving = ~(motion < least)
        computed = int(moving.sum()) if masks.device.type == 'cpu' else len(masks)
        return GatedMasks(masks * moving[:, None, None], motion, computed)


def _compute(
    engine: MaskEngine,
    flow_input: FlowInput,
    images: Tensor,
    flows: Tensor,
    least: float = 0.0,
    stage: Watch = unwatched,
    evidence: Evidence | None = None,
) -> tuple[Tensor, Tensor]:
    """Return masks (B, h, w) and motion (B,); without ``evidence`` it stands behind the flow, (B, 7, h, w)."""
    with stage('generator input'):
        split = split_flow(flows[:, :2])
        chosen = torch.arange(len(flows), device=flows.device)
        if engine.device.type == 'cpu':
            chosen = chosen[~(split.motion < least)]
        if not len(chosen):
            return images.new_zeros(len(images), *images.shape[2:]), split.motion
        known = flows[chosen, 2:] if evidence is None else evidence(chosen.tolist())
        prepared = generator_flow(split.of(chosen), flow_input, known)
    with stage('generator'):
        found = resolve_polarity(engine(images[chosen], prepared))[:, 0]
    if len(chosen) == len(images):
        return found, split.motion
    masks = images.new_zeros(len(images), *images.shape[2:])
    masks[chosen] = found
    return masks, split.motion
