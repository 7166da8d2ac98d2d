"""Data-parallel training under ``torchrun``: every process computes its share of each batch, gradients are averaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import lock, make_folder
from moving_object_detector.engines.create import choose_device


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; one alone where ``torchrun`` did not start it."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """Return which items of a batch this process computes; raises UserError where it cannot be divided evenly."""
        if batch % self.count:
            raise UserError(f'a batch of {batch} cannot be shared evenly by {self.count} processes')
        part = batch // self.count
        return range(self.rank * part, (self.rank + 1) * part)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes; all must call this with the same parameters."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def average(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean of each value over the processes."""
        if self.count == 1:
            return values
        device = torch.device('cuda') if distributed.get_backend() == 'nccl' else torch.device('cpu')
        flat = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
        distributed.all_reduce(flat)
        return dict(zip(values, (flat / self.count).tolist(), strict=True))

    def share_weights(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.count > 1:
            distributed.barrier()


def process_device(name: str) -> torch.device:
    """Return the device of this process: ``auto`` and ``cuda`` are a GPU of its own; raises UserError without one."""
    device = choose_device(name, 'run.device')
    if device.type != 'cuda' or name not in {'auto', 'cuda'}:
        return device
    own = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
    if (own.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f'there is no {own} for this process, PyTorch sees {torch.cuda.device_count()} GPUs; start at most one '
            'process for each (torchrun --nproc-per-node), or set run.device=cpu'
        )
    return own


@contextmanager
def session(out: Path, device_name: str, threads: int) -> Iterator[tuple[Processes, torch.device]]:
    """Set up a training: threads, device, the processes of ``torchrun``, and its folder, held against other trainings.

    Raises UserError where the folder cannot be made or is in use, or there is no such device.
    """
    make_folder(out)
    leads = os.environ.get('RANK', '0') == '0'
    with lock(out / 'lock', f'the training folder {out}') if leads else nullcontext():
        if threads:
            torch.set_num_threads(threads)
        device = process_device(device_name)
        with processes(device) as group:
            yield group, device


@contextmanager
def processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started (NCCL between GPUs, gloo between CPUs), and leave them."""
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        yield Processes()
        return
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    distributed.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
