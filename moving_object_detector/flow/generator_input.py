"""The generator's flow input from flow fields, and the measure of independent motion in them."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from moving_object_detector.flow.base import SIDE_CHANNELS
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.flow.evidence import EVIDENCE_CHANNELS
from moving_object_detector.networks.weights import FLOW_INPUTS, FlowInput, sees_both_sides

# Lower limit, in pixels, of the spread by which a flow field is divided.
SPREAD_FLOOR: Final = 1e-3
WINSOR: Final = 3.0
"""Limit on residuals in the computation of the spread, in spreads, so that one fast object does not hide slow ones."""
SPREAD_ROUNDS: Final = 4
LARGEST_RESIDUAL: Final = 9.0
"""Limit on the residual in the generator's input, in spreads."""
# Thousandths of the width, added so that the logarithm stays finite without motion.
LEAST_AMOUNT: Final = 0.1
COHERENCE_GRID: Final = (12, 24)
STRONGEST_CELL: Final = 3


class SplitFlow(NamedTuple):
    """A batch of flow fields and their residuals after subtraction of the camera's motion."""

    flow: Tensor
    """(B, 2, H, W), pixels."""
    residual: Tensor
    """(B, 2, H, W), flow minus a robust fit of the camera's motion, pixels."""
    motion: Tensor
    """(B,), see :func:`coherent_motion`."""

    def of(self, chosen: Tensor) -> SplitFlow:
        """Return the fields with these numbers."""
        return SplitFlow(*(part[chosen] for part in self))


class PreparedFlow(NamedTuple):
    """A batch of flow fields as input for the generator."""

    flow: Tensor
    """(B, 2, H, W), about unit variance; (B, 8, H, W) for ``geometric``, (B, 16, H, W) for ``both_sides``."""
    motion: Tensor
    """(B,), of the first side, see :func:`coherent_motion`."""


def stays_in_view(flow: Tensor) -> Tensor:
    """Return 1 where a flow (B, 2, H, W) stays in the image, else 0, as (B, 1, H, W)."""
    height, width = flow.shape[-2:]
    x = flow[:, :1] + torch.arange(width, device=flow.device)
    y = flow[:, 1:] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return torch.where(inside, 1.0, 0.0)


def coherent_motion(residual: Tensor, camera: Tensor) -> Tensor:
    """Measure independent motion as the third strongest of 12 x 24 cell means of the residual flow.

    The mean over a cell keeps coherent motion and averages noise out, unlike a root mean square over the image; the
    third strongest cell corresponds to an object of about one per cent of the image. Pixels that the camera's motion
    moves out of view are left out, since their flow is unknown.

    Args:
        residual: (B, 2, H, W), flow minus the camera's motion, pixels.
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
    """Subtract the camera's motion from flow (B, 2, H, W), pixels, and measure the independent motion."""
    camera = fit_camera_motion(flow)
    residual = flow - camera
    return SplitFlow(flow, residual, coherent_motion(residual, camera))


def generator_flow(split: SplitFlow, flow_input: FlowInput, evidence: Tensor | None = None) -> Tensor:
    """Convert flow to the form that the generator's weights were trained on.

    ``normalised``, the paper's form, has each component of each field at zero mean and unit variance.
    ``residual`` is the residual divided by its root mean square.
    ``geometric`` is the residual divided by a Winsorised root mean square (Huber, Robust Statistics, 1981), the
    evidence, and the logarithm of that root mean square.
    ``both_sides`` is ``geometric``; :func:`join_sides` then combines two neighbours.
    A field without spread (a still camera on a still scene) gives zeros, where the released code divides by zero.

    Args:
        split: The fields.
        flow_input: The form; stored with the weights.
        evidence: (B, 5, H, W), from :func:`~moving_object_detector.flow.evidence.evidence`; for ``geometric`` and
            ``both_sides``.

    Returns:
        (B, 2, H, W), about unit variance; (B, 8, H, W) with evidence.

    Raises:
        ValueError: Unknown ``flow_input``, or missing evidence.

    """
    flow, residual = split.flow, split.residual
    if flow_input == 'normalised':
        mean = flow.mean((2, 3), keepdim=True)
        deviation = torch.sqrt(flow.var((2, 3), unbiased=False, keepdim=True))
        return (flow - mean) / deviation.clamp_min(SPREAD_FLOOR)
    # Not by a norm, which in PyTorch takes a hundred times as long over two channels.
    power = (residual[:, :1].square() + residual[:, 1:].square()) / 2
    spread = power.mean((1, 2, 3), keepdim=True).sqrt()
    if flow_input == 'residual':
        return residual / spread.clamp_min(SPREAD_FLOOR)
    if flow_input not in FLOW_INPUTS:
        raise ValueError(f'unknown flow input {flow_input!r}; choose one of {", ".join(FLOW_INPUTS)}')
    if evidence is None or evidence.shape[1] != EVIDENCE_CHANNELS:
        raise ValueError(f'flow input {flow_input!r} needs evidence of {EVIDENCE_CHANNELS} channels')
    for _ in range(SPREAD_ROUNDS):
        spread = power.minimum((WINSOR * spread).square()).mean((1, 2, 3), keepdim=True).sqrt()
    residual = residual / power.sqrt().div(LARGEST_RESIDUAL * spread.clamp_min(SPREAD_FLOOR)).clamp_min(1.0)
    scaled = residual / spread.clamp_min(SPREAD_FLOOR)
    amount = torch.log(spread * (1000.0 / flow.shape[-1]) + LEAST_AMOUNT) / 2
    return torch.cat((scaled, evidence, amount.expand_as(flow[:, :1])), 1)


def reverse_side(side: Tensor) -> Tensor:
    """Return a neighbour's input (..., C, H, W) with its flow negated, as if it lay on the other side in time."""
    return torch.cat((-side[..., :2, :, :], side[..., 2:, :, :]), -3)


def join_sides(side: Tensor, other: Tensor | None = None) -> Tensor:
    """Return the input of a generator for ``both_sides``, (..., 16, H, W): one side and the other, reversed.

    Even motion then looks the same on both sides, errors of flow at occlusions are on one side only.

    Args:
        side: (..., 8, H, W), of one neighbour, from :func:`generator_flow`.
        other: The same of the neighbour at the same distance on the other side; None: repeat the first.

    """
    return torch.cat((side, side if other is None else reverse_side(other)), -3)


def one_sided(flow: Tensor) -> Tensor:
    """Tell in which items (B, 14, H, W) the first side stands for both, bool (B,)."""
    same: Tensor = flow[:, SIDE_CHANNELS:] == reverse_side(flow[:, :SIDE_CHANNELS])
    return same.flatten(1).all(1)


def prepare_flow(flow: Tensor, flow_input: FlowInput) -> PreparedFlow:
    """Convert flow to the form that the generator's weights were trained on, see :func:`generator_flow`.

    Args:
        flow: (B, 2, H, W), pixels of its own size; for ``geometric`` (B, 7, H, W), followed by the evidence; for
            ``both_sides`` (B, 14, H, W), the same for two neighbours.
        flow_input: The form.

    """
    # Sums over planes are several times as fast on contiguous ones.
    flow = flow.contiguous()
    split = split_flow(flow[:, :2])
    evidence = flow[:, 2:SIDE_CHANNELS]
    prepared = generator_flow(split, flow_input, evidence)
    if sees_both_sides(flow_input):
        other = flow[:, SIDE_CHANNELS:]
        prepared = join_sides(prepared, generator_flow(split_flow(other[:, :2]), flow_input, other[:, 2:]))
    return PreparedFlow(prepared, split.motion)
