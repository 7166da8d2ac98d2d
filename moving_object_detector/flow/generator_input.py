"""From a flow field to what the generator sees, and to how much moves on its own in it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from moving_object_detector.flow.egomotion import residual_motion

FlowInput = Literal['normalised', 'residual']
FLOW_INPUTS: Final[tuple[FlowInput, ...]] = get_args(FlowInput)
# Pixels: a flow field flatter than this is divided by this instead of by its own spread.
SPREAD_FLOOR: Final = 1e-3


class PreparedFlow(NamedTuple):
    """A batch of flow fields, ready for the generator."""

    flow: Tensor
    """(B, 2, H, W), about unit variance."""
    motion: Tensor
    """(B,), root mean square of the motion left after the camera's, in thousandths of the image width."""


def prepare_flow(flow: Tensor, flow_input: FlowInput) -> PreparedFlow:
    """Bring flow to the form that the generator's weights were trained on.

    ``normalised`` is the paper's: each component of each field at zero mean and unit variance.
    ``residual`` removes a robust fit of the camera's motion and divides by the root mean square.
    A field without spread (a still camera on a still scene) gives zeros, where the released code
    divides by zero.

    Args:
        flow: (B, 2, H, W), pixels of the field itself.
        flow_input: Which of the two forms; stored with the weights.

    Raises:
        ValueError: Unknown ``flow_input``.

    """
    residual = residual_motion(flow)
    spread = residual.square().mean((1, 2, 3)).sqrt()
    motion = spread * (1000.0 / flow.shape[-1])
    if flow_input == 'residual':
        return PreparedFlow(residual / spread.clamp_min(SPREAD_FLOOR)[:, None, None, None], motion)
    if flow_input == 'normalised':
        mean = flow.mean((2, 3), keepdim=True)
        deviation = torch.sqrt(flow.var((2, 3), unbiased=False, keepdim=True))
        return PreparedFlow((flow - mean) / deviation.clamp_min(SPREAD_FLOOR), motion)
    raise ValueError(f'unknown flow input {flow_input!r}; choose one of {", ".join(FLOW_INPUTS)}')
