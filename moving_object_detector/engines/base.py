"""The interface of engines, which run networks, and the generator on any of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor, nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.networks.generator import Generator

Runner = Callable[..., tuple[Tensor, ...]]
"""A loaded network: takes its inputs, of any batch length, and returns all its outputs in newly allocated memory.

Inputs and outputs are float32 on the engine's device. Not thread-safe.
"""

TOPOLOGY: Final = '/sys/devices/system/cpu/cpu{}/topology'
QUOTA: Final = Path('/sys/fs/cgroup/cpu.max')


class Engine(Protocol):
    """Runs networks with fixed input sizes and any batch length, the first dimension."""

    name: str
    """As in the options."""
    device: torch.device
    """Where inputs and outputs live."""
    precision: str
    """The precision of its networks, as the engine's library reports it once one is loaded."""

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Prepare a network; raises UserError if this engine cannot run it.

        ``module`` takes tensors and returns one or a tuple of them, each with the batch first; it may be moved to the
        device. ``examples`` are one input each, float32, of the network's sizes and the usual batch; ``label`` is for
        messages.
        """


class MaskEngine:
    """Runs a generator on batches of any length, usually of ``batch`` pairs, at one ``size`` (height, width)."""

    def __init__(self, engine: Engine, generator: Generator, size: tuple[int, int], batch: int = 1) -> None:
        examples = torch.zeros(batch, 3, *size), torch.zeros(batch, generator.flow_channels, *size)
        self._run = load_checked(engine, generator, examples, 'generator')
        self.device = engine.device
        """Where its inputs and outputs live."""
        self.name = describe(engine)
        """For logs: engine, precision and device."""

    def __call__(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return masks (B, 1, h, w) in [0, 1] of images and prepared flows, as :class:`Generator` takes them."""
        return self._run(image, flow)[0]


def load_checked(engine: Engine, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
    """Load a network as :meth:`Engine.load`; UserError also if noise in [-0.5, 0.5] gives a non-finite output."""
    run = engine.load(module, examples, label)
    noise = torch.Generator().manual_seed(0)
    inputs = (torch.rand(example.shape, generator=noise) - 0.5 for example in examples)
    outputs = run(*(tensor.to(engine.device) for tensor in inputs))
    if not all(bool(output.isfinite().all()) for output in outputs):
        raise UserError(
            f'{label}: the output is not finite on {describe(engine)}; set precision to float32, or model (flow.model) '
            'to other weights'
        )
    return run


def describe(engine: Engine) -> str:
    """Return an engine's name, precision and device, for logs."""
    return f'{engine.name} {engine.precision} on {engine.device}'


def usable_cores(topology: str = TOPOLOGY, quota: Path = QUOTA) -> int:
    """Return the number of physical cores that this process may use, at least 1.

    Hyper-threads share the multipliers of their core, and the kernel throttles threads beyond a container's quota.
    ``topology`` has ``{}`` for a CPU's number; ``quota`` is cpu.max of cgroup 2.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count() or 1)
    cores = {_core(Path(topology.format(number)), number) for number in allowed}
    try:
        used, period = quota.read_text().split()
        most = math.ceil(int(used) / int(period))
    except (OSError, ValueError):  # no cgroup 2, or no limit
        most = len(cores)
    return max(min(len(cores), most), 1)


def _core(folder: Path, number: int) -> tuple[str, str]:
    try:
        package, core = ((folder / name).read_text().strip() for name in ('physical_package_id', 'core_id'))
    except OSError:
        return 'cpu', str(number)
    return package, core
