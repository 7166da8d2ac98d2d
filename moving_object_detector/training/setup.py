"""Setup of a training: one process on one device, precision, and loading of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import lock, make_folder
from moving_object_detector.engines.create import choose_device
from moving_object_detector.training.config import RunConfig


@dataclass(frozen=True)
class Setup:
    """Device, precision, batch loading and seed of all stages of a training."""

    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    workers: int = 0
    """Processes that prepare batches; 0: this one."""
    precision: str = 'float32'
    """float32, or bfloat16 for mixed precision."""
    seed: int = 1
    """Seed of all random draws other than the pairs."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the autocast context of the precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bfloat16')

    def run(self, network: Callable[..., Any], *inputs: Tensor) -> Tensor:
        """Run a network in this precision; return its output as float32."""
        with self.autocast():
            return cast('Tensor', network(*inputs)).float()

    def place(self, *networks: nn.Module) -> None:
        """Put networks on the device, channels last."""
        for network in networks:
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sent(self, items: Iterable[Tensor]) -> list[Tensor]:
        """Move a batch to the device, images and maps channels last, which speeds up bfloat16 on CPUs."""
        return [
            item.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            if item.ndim == 4
            else item.to(self.device, non_blocking=True)
            for item in items
        ]

    def batches(self, item: Callable[[int], Any], steps: Sequence[int], batch: int) -> Iterator[Any]:
        """Yield the batches of ``steps``, each of items ``batch * step`` to ``batch * (step + 1) - 1``.

        ``item`` computes an item from its number alone. Its errors are raised here.
        """
        loader: DataLoader[Any] = DataLoader(
            _Batches(item, batch),
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            worker_init_fn=_one_thread,
            # Forked workers would hang in OpenCV, whose threads do not survive a fork.
            multiprocessing_context='spawn' if self.workers else None,
            pin_memory=self.device.type == 'cuda',
        )
        for found in loader:
            if isinstance(found, UserError):
                raise found
            yield found


@contextmanager
def session(out: Path, run: RunConfig) -> Iterator[Setup]:
    """Set up a training: threads, device, and its folder, locked against other trainings.

    Raises UserError if the folder cannot be created or is in use, or the device does not exist.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) > 1:
        raise UserError('a training runs in one process on one device; start it without torchrun')
    make_folder(out)
    with lock(out / 'lock', f'the training folder {out}'):
        if run.threads:
            torch.set_num_threads(run.threads)
        yield Setup(choose_device(run.device, 'run.device'), run.workers, run.precision, run.seed)


class _Batches(Dataset[Any]):
    """Batches by step; UserErrors are returned, since a worker's exception would reach the user as a traceback."""

    def __init__(self, item: Callable[[int], Any], batch: int) -> None:
        self._item, self._batch = item, batch

    def __getitem__(self, step: int) -> Any:
        try:
            return default_collate([self._item(step * self._batch + place) for place in range(self._batch)])
        except UserError as error:
            return error


def _one_thread(worker: int) -> None:
    # There is a worker per spare core; with more threads each they would slow each other down.
    cv2.setNumThreads(1)
