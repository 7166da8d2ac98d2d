"""From a flow field to what the generator sees, and to how much moves on its own in it."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.flow.base import SIDE_CHANNELS
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.flow.evidence import EVIDENCE_CHANNELS
from moving_object_detector.networks.weights import FLOW_INPUTS, FlowInput, sees_both_sides

# Pixels: a flow field flatter than this is divided by this instead of by its own spread.
SPREAD_FLOOR: Final = 1e-3
WINSOR: Final = 3.0
"""What is faster than this many times the spread counts as that fast in it: else one fast thing hides slow ones."""
SPREAD_ROUNDS: Final = 4
LARGEST_RESIDUAL: Final = 9.0
"""What is faster than this many times the spread is shown as that fast."""
# Thousandths of the width, added so that the logarithm of no motion stays small.
LEAST_AMOUNT: Final = 0.1
COHERENCE_GRID: Final = (12, 24)
STRONGEST_CELL: Final = 3


class SplitFlow(NamedTuple):
    """A batch of flow fields and what is not the camera's motion in them."""

    flow: Tensor
    """(B, 2, H, W), pixels."""
    residual: Tensor
    """(B, 2, H, W), flow without a robust fit of the camera's motion, pixels."""
    motion: Tensor
    """(B,), see :func:`coherent_motion`."""

    def of(self, chosen: Tensor) -> SplitFlow:
        """Return some of the fields, by their numbers."""
        return SplitFlow(*(part[chosen] for part in self))


class PreparedFlow(NamedTuple):
    """A batch of flow fields, ready for the generator."""

    flow: Tensor
    """(B, 2, H, W), about unit variance; (B, 8, H, W) where it is ``geometric``, (B, 16, H, W) for both sides."""
    motion: Tensor
    """(B,), see :func:`coherent_motion`; of the first side."""


def stays_in_view(flow: Tensor) -> Tensor:
    """Return where a flow (B, 2, H, W) leads to a pixel of the other frame, (B, 1, H, W) of 0 and 1."""
    height, width = flow.shape[-2:]
    x = flow[:, :1] + torch.arange(width, device=flow.device)
    y = flow[:, 1:] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return torch.where(inside, 1.0, 0.0)


def coherent_motion(residual: Tensor, camera: Tensor) -> Tensor:
    """Measure how much moves on its own: the third strongest of 12 x 24 cell means of the residual motion.

    The mean over a cell keeps what moves together and averages noise out, which a root mean square over
    the image does not; the third strongest is an object of about one per cent of the image. What the
    camera's motion takes out of view is left out: nothing is known of its flow.

    Args:
        residual: (B, 2, H, W), flow without the camera's motion, pixels.
        camera: (B, 2, H, W), the camera's motion, pixels.

    Returns:
        (B,), thousandths of the image width.

    """
    grid = (min(COHERENCE_GRID[0], residual.shape[-2]), min(COHERENCE_GRID[1], residual.shape[-1]))
    known = stays_in_view(camera)
    means = functional.adaptive_avg_pool2d(residual * known, grid)
    cells = torch.hypot(means[:, 0], means[:, 1]).flatten(1)
    strongest: Tensor = cells.topk(min(STRONGEST_CELL, cells.shape[1]), dim=1).values[:, -1]
    return strongest * (1000.0 / residual.shape[-1])


def split_flow(flow: Tensor) -> SplitFlow:
    """Remove the camera's motion from flow (B, 2, H, W), pixels, and measure what moves on its own."""
    camera = fit_camera_motion(flow)
    residual = flow - camera
    return SplitFlow(flow, residual, coherent_motion(residual, camera))


def generator_flow(split: SplitFlow, flow_input: FlowInput, evidence: Tensor | None = None) -> Tensor:
    """Bring flow to the form that the generator's weights were trained on.

    ``normalised`` is the paper's: each component of each field at zero mean and unit variance.
    ``residual`` is the residual divided by its root mean square.
    ``geometric`` is the residual divided by a Winsorised root mean square (Huber, Robust Statistics, 1981), what else
    the pair says of each pixel, and the logarithm of that root mean square.
    ``both_sides`` is ``geometric``, of which :func:`join_sides` then makes one of two neighbours.
    A field without spread (a still camera on a still scene) gives zeros, where the released code
    divides by zero.

    Args:
        split: The fields.
        flow_input: Which of the forms; stored with the weights.
        evidence: (B, 5, H, W), of :func:`~moving_object_detector.flow.evidence.evidence`, for ``geometric``.

    Returns:
        (B, 2, H, W), about unit variance; (B, 8, H, W) where it is ``geometric``.

    Raises:
        ValueError: Unknown ``flow_input``, or ``geometric`` without evidence.

    """
    flow, residual = split.flow, split.residual
    if flow_input == 'normalised':
        mean = flow.mean((2, 3), keepdim=True)
        deviation = torch.sqrt(flow.var((2, 3), unbiased=False, keepdim=True))
        return (flow - mean) / deviation.clamp_min(SPREAD_FLOOR)
    # Of both components, squared; not by a norm: PyTorch's takes a hundred times as long over so short a dimension.
    power = (residual[:, :1].square() + residual[:, 1:].square()) / 2
    spread = power.mean((1, 2, 3), keepdim=True).sqrt()
    if flow_input == 'residual':
        return residual / spread.clamp_min(SPREAD_FLOOR)
    if flow_input not in FLOW_INPUTS:
        raise ValueError(f'unknown flow input {flow_input!r}; choose one of {", ".join(FLOW_INPUTS)}')
    if evidence is None or evidence.shape[1] != EVIDENCE_CHANNELS:
        raise ValueError('the geometric flow input needs evidence')
    for _ in range(SPREAD_ROUNDS):
        spread = power.minimum((WINSOR * spread).square()).mean((1, 2, 3), keepdim=True).sqrt()
    residual = residual / power.sqrt().div(LARGEST_RESIDUAL * spread.clamp_min(SPREAD_FLOOR)).clamp_min(1.0)
    scaled = residual / spread.clamp_min(SPREAD_FLOOR)
    amount = torch.log(spread * (1000.0 / flow.shape[-1]) + LEAST_AMOUNT) / 2
    return torch.cat((scaled, evidence, amount.expand_as(flow[:, :1])), 1)


def reverse_side(side: Tensor) -> Tensor:
    """Return what is seen of a neighbour (..., C, H, W), flow first, as if it were as far away on the other side."""
    return torch.cat((-side[..., :2, :, :], side[..., 2:, :, :]), -3)


def join_sides(side: Tensor, other: Tensor | None = None) -> Tensor:
    """Return what a generator of ``both_sides`` sees, (..., 16, H, W).

    What moves evenly is the same on both sides once one is reversed, as both are shown; errors of flow at occlusions
    are on one alone.

    Args:
        side: (..., 8, H, W), of a neighbour, see :func:`generator_flow`.
        other: The same of the neighbour as far away on the other side; None: there is none, and the first stands for
            it too.

    """
    return torch.cat((side, side if other is None else reverse_side(other)), -3)


def one_sided(flow: Tensor) -> Tensor:
    """Return of which items (B, 14, H, W) the first side stands for the other too, bool (B,)."""
    same: Tensor = flow[:, SIDE_CHANNELS:] == reverse_side(flow[:, :SIDE_CHANNELS])
    return same.flatten(1).all(1)


def prepare_flow(flow: Tensor, flow_input: FlowInput) -> PreparedFlow:
    """Bring flow to the form that the generator's weights were trained on, as :func:`generator_flow` says.

    Args:
        flow: (B, 2, H, W), pixels of the field itself; for ``geometric`` (B, 7, H, W), with the evidence behind it; for
            ``both_sides`` (B, 14, H, W), the same of two neighbours.
        flow_input: Which of the forms.

    """
    # Planes are summed up several times as fast where they are not interleaved.
    flow = flow.contiguous()
    split = split_flow(flow[:, :2])
    evidence = flow[:, 2:SIDE_CHANNELS]
    prepared = generator_flow(split, flow_input, evidence)
    if sees_both_sides(flow_input):
        other = flow[:, SIDE_CHANNELS:]
        prepared = join_sides(prepared, generator_flow(split_flow(other[:, :2]), flow_input, other[:, 2:]))
    return PreparedFlow(prepared, split.motion)
