"""Masks of frame pairs from their flows: the motion gate, the generator, and the border rule for polarity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple

import torch
from torch import Tensor

from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.flow.generator_input import generator_flow, split_flow
from moving_object_detector.networks.weights import FlowInput

Watch = Callable[[str], AbstractContextManager[None]]
"""Returns the context manager around the stage of that name, for measuring."""
Evidence = Callable[[Sequence[int]], Tensor]
"""Computes the evidence (n, 5, h, w) of the pairs with these numbers in the batch."""
Join = Callable[[Sequence[int], Tensor, Tensor], tuple[list[int], Tensor]]
"""Takes pair numbers, the inputs of one side, (n, 8, h, w), and whether anything moves in them, (n,).

Returns the places of the m pairs whose mask is wanted now, and their two-sided inputs, (m, 16, h, w).
"""

# As in the paper's released code; not tuned on the benchmarks.
BORDER_WIDTH: Final = 2
BORDER_LEVEL: Final = 0.1
BORDER_SHARE: Final = 0.6


def unwatched(_: str) -> AbstractContextManager[None]:
    """Run a stage without measuring it."""
    return nullcontext()


def resolve_polarity(masks: Tensor) -> Tensor:
    """Replace each mask (B, 1, H, W) above 0.1 on more than 0.6 of its two-pixel border by 1 - mask.

    The loss is symmetric in a mask and its complement, so the polarity is arbitrary; background touches the border
    more than an object does. Must precede averaging, since masks of opposite polarity would cancel.
    """
    border = torch.ones(masks.shape[-2:], device=masks.device)
    border[BORDER_WIDTH:-BORDER_WIDTH, BORDER_WIDTH:-BORDER_WIDTH] = 0
    # Weights in place of an index, whose length would make a GPU synchronise.
    covered = ((masks[:, 0] > BORDER_LEVEL) * border).sum((1, 2)) / border.sum()
    return torch.where((covered > BORDER_SHARE)[:, None, None, None], 1 - masks, masks)


def object_masks(engine: MaskEngine, images: Tensor, prepared: Tensor, moving: Tensor) -> Tensor:
    """Return masks (B, h, w) in [0, 1] with the object inside; zeros for pairs not ``moving``, bool (B,)."""
    return resolve_polarity(engine(images, prepared))[:, 0] * moving[:, None, None]


class GatedMasks(NamedTuple):
    """The masks of a batch of pairs."""

    masks: Tensor
    """(B, h, w) in [0, 1], with the object inside; zeros where nothing moves."""
    motion: Tensor
    """(B,), coherent motion, thousandths of the image width."""
    computed: int
    """Number of pairs that passed the gate; on a GPU all."""


def gated_masks(
    engine: MaskEngine,
    flow_input: FlowInput,
    images: Tensor,
    flows: Tensor,
    least: float,
    stage: Watch = unwatched,
    evidence: Evidence | None = None,
    join: Join | None = None,
) -> GatedMasks:
    """Compute the masks of a batch of pairs; a CPU skips static pairs, a GPU computes all to avoid synchronising.

    ``images`` (B, 3, h, w), RGB in [-0.5, 0.5], are the frames voted on, ``flows`` (B, 2, h, w), pixels, lead from them
    to their neighbours, and ``least`` is the gate's threshold on motion. ``stage`` wraps ``generator input`` and
    ``generator``. ``evidence`` and ``join`` serve generators that need them; on a CPU they get moving pairs only.
    """
    masks = images.new_zeros(len(images), *images.shape[2:])
    with stage('generator input'):
        split = split_flow(flows)
        # Not >=: NaN must not count as static.
        moving = ~(split.motion < least)
        on_cpu = engine.device.type == 'cpu'
        chosen = torch.arange(len(flows), device=flows.device)[moving if on_cpu else slice(None)]
        if not len(chosen):
            return GatedMasks(masks, split.motion, 0)
        numbers = chosen.tolist()
        extra = None if evidence is None else evidence(numbers)
        prepared = generator_flow(split.of(chosen), flow_input, extra)
        wanted = chosen
        if join is not None:
            places, prepared = join(numbers, prepared, moving[chosen])
            wanted = chosen[places]
    with stage('generator'):
        if len(wanted):
            masks[wanted] = object_masks(engine, images[wanted], prepared, moving[wanted])
    return GatedMasks(masks, split.motion, len(chosen))
