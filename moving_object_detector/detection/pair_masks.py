"""From the flows of pairs to their masks, with the object inside: the border rule decides its polarity."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor

from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.experimental_gpu import CudaGraphs
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.weights import FlowInput

Watch = Callable[[str], AbstractContextManager[None]]
"""Gives the context in which a stage of that name runs; for measuring."""

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

    def __call__(self, images: Tensor, flows: Tensor, least: float, stage: Watch) -> GatedMasks:
        """Compute masks; on a CPU without those of pairs in which nothing moves, on a GPU without waiting for it.

        Args:
            images: (B, 3, h, w), of the frames that are voted on, RGB in [-0.5, 0.5].
            flows: (B, C, h, w), from these frames to their neighbours, pixels, and evidence where the weights take it.
            least: Motion below which nothing moves.
            stage: Called around ``generator input`` and ``generator``; around the latter alone where all is one graph.

        """
        if self._graphs is None:
            masks, motion = self._compute(images, flows, least, stage)
        else:
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
) -> tuple[Tensor, Tensor]:
    with stage('generator input'):
        prepared = prepare_flow(flows, flow_input)
    with stage('generator'):
        still = prepared.motion < least
        if engine.device.type != 'cpu' or not still.any():
            return resolve_polarity(engine(images, prepared.flow))[:, 0], prepared.motion
        masks = images.new_zeros(len(images), *images.shape[2:])
        if not still.all():
            masks[~still] = resolve_polarity(engine(images[~still], prepared.flow[~still]))[:, 0]
        return masks, prepared.motion
