"""What every training does alike: networks put in place, gradients applied, precision chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from moving_object_detector.training.distributed import Processes

Precision = Callable[[], AbstractContextManager[None]]


def mixed_precision(device: torch.device, precision: str) -> Precision:
    """Return what makes the context in which networks run, ``float32`` or ``bfloat16``."""
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == 'bfloat16')


def place(networks: Iterable[nn.Module], device: torch.device, group: Processes) -> None:
    """Put networks on their device, channels last, with the leading process's weights in all."""
    for network in networks:
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        group.share_weights(network.parameters())


def update(
    loss: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer, group: Processes, largest_norm: float
) -> Tensor:
    """Apply a loss's gradient, averaged over the processes and clipped by its norm.

    Returns:
        The norm before clipping.

    """
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(network.parameters())
    group.average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, largest_norm)
    optimiser.step()
    return norm
