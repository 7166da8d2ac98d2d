"""Where and how a training computes: processes under ``torchrun``, device, precision, batches.

Every process computes its share of each batch, gradients are averaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, Dataset, default_collate

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


@dataclass(frozen=True)
class Setup:
    """Where and how all stages of a training compute."""

    group: Processes = field(default_factory=Processes)
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    workers: int = 0
    """Processes that prepare batches; 0: this one."""
    precision: str = 'float32'
    """float32, or bfloat16 for mixed precision."""
    seed: int = 1
    """Of all that is random besides the pairs."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bfloat16')

    def place(self, *networks: nn.Module) -> None:
        """Put networks on the device, channels last, with the leading process's weights in all."""
        for network in networks:
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.group.share_weights(network.parameters())

    def sent(self, items: Iterable[Tensor]) -> list[Tensor]:
        """Return a batch on the device."""
        return [item.to(self.device, non_blocking=True) for item in items]

    def batches(self, items: Dataset[Any], first: int, steps: int, batch: int, workers: int | None = None) -> Any:
        """Return an iterator over the batches of steps ``first`` to ``steps`` - 1; that of step s depends on s alone.

        Item k is a function of k alone, for any k; ``batch`` counts those of all processes. Raises UserError where it
        cannot be divided evenly, and while iterating what an item raises.
        """
        workers = self.workers if workers is None else workers
        loader: DataLoader[Any] = DataLoader(
            _Batches(items, batch, self.group.share(batch)),
            batch_size=None,
            sampler=range(first, steps),
            num_workers=workers,
            worker_init_fn=_one_thread,
            # A forked worker would hang in OpenCV, whose threads do not survive the fork.
            multiprocessing_context='spawn' if workers else None,
            pin_memory=self.device.type == 'cuda' and torch.cuda.is_available(),
        )
        return _raised(loader)


class _Batches(Dataset[Any]):
    """Step by step this process's share of a batch; in its place a user's error, which would be a trace in a text."""

    def __init__(self, items: Dataset[Any], batch: int, share: range) -> None:
        self._items, self._batch, self._share = items, batch, share

    def __getitem__(self, step: int) -> Any:
        try:
            return default_collate([self._items[step * self._batch + place] for place in self._share])
        except UserError as error:
            return error


def _raised(loader: Iterable[Any]) -> Iterator[Any]:
    for found in loader:
        if isinstance(found, UserError):
            raise found
        yield found


def _one_thread(worker: int) -> None:
    # Workers are as many as there are cores to spare; each using all cores would be slower.
    cv2.setNumThreads(1)
