"""From the flows of pairs to their masks, with the object inside: the border rule decides its polarity."""

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
"""Gives the context in which a stage of that name runs; for measuring."""
Evidence = Callable[[Sequence[int]], Tensor]
"""Computes the evidence (n, 5, h, w) of some of a batch's pairs, by their numbers."""
Join = Callable[[Sequence[int], Tensor, Tensor], tuple[list[int], Tensor]]
"""Takes some pairs, by their numbers, what is seen of their neighbours, (n, 8, h, w), and whether anything moves, (n,).

Returns of which of these a mask is wanted, by their places, and what a generator of both sides sees, (m, 16, h, w).
"""

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


def object_masks(engine: MaskEngine, images: Tensor, prepared: Tensor, moving: Tensor) -> Tensor:
    """Return masks (B, h, w) in [0, 1] with the object inside; zeros where nothing is ``moving``, bool (B,)."""
    return resolve_polarity(engine(images, prepared))[:, 0] * moving[:, None, None]


class GatedMasks(NamedTuple):
    """The masks of a batch of pairs."""

    masks: Tensor
    """(B, h, w) in [0, 1], with the object inside; zeros where nothing moves."""
    motion: Tensor
    """(B,), how much moves on its own, thousandths of the image width."""
    computed: int
    """How many of the pairs came to the generator."""


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
    """Compute the masks of a batch of pairs; on a CPU without those in which nothing moves, on a GPU without waiting.

    ``images`` (B, 3, h, w), RGB in [-0.5, 0.5], are of the frames that are voted on, ``flows`` (B, 2, h, w), pixels,
    from these to their neighbours; ``least`` is the motion below which nothing moves. ``stage`` is called around
    ``generator input`` and ``generator``, ``evidence`` and ``join`` for a generator that takes them, on a CPU for the
    pairs alone that reach it.
    """
    masks = images.new_zeros(len(images), *images.shape[2:])
    with stage('generator input'):
        split = split_flow(flows)
        # Not >=: motion that is not a number must not pass for none.
        moving = ~(split.motion < least)
        on_cpu = engine.device.type == 'cpu'
        chosen = torch.arange(len(flows), device=flows.device)[moving if on_cpu else slice(None)]
        if not len(chosen):
            return GatedMasks(masks, split.motion, 0)
        numbers = chosen.tolist()
        known = None if evidence is None else evidence(numbers)
        prepared = generator_flow(split.of(chosen), flow_input, known)
        wanted = chosen
        if join is not None:
            places, prepared = join(numbers, prepared, moving[chosen])
            wanted = chosen[places]
    with stage('generator'):
        if len(wanted):
            masks[wanted] = object_masks(engine, images[wanted], prepared, moving[wanted])
    return GatedMasks(masks, split.motion, len(chosen))
