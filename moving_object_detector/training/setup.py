"""Where and how a training computes: one process, one device; precision, batches."""

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
    """Where and how all stages of a training compute."""

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

    def run(self, network: Callable[..., Any], *inputs: Tensor) -> Tensor:
        """Return what a network makes of its inputs in this precision, as float32."""
        with self.autocast():
            return cast('Tensor', network(*inputs)).float()

    def place(self, *networks: nn.Module) -> None:
        """Put networks on the device, channels last."""
        for network in networks:
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sent(self, items: Iterable[Tensor]) -> list[Tensor]:
        """Return a batch on the device, images and maps channels last: so a CPU computes bfloat16 faster."""
        return [
            item.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            if item.ndim == 4
            else item.to(self.device, non_blocking=True)
            for item in items
        ]

    def batches(self, item: Callable[[int], Any], steps: Sequence[int], batch: int) -> Iterator[Any]:
        """Yield the batches of some steps, each items ``batch * step`` to ``batch * (step + 1) - 1``.

        Item k is a function of k alone, for any k. Raises what an item raises.
        """
        loader: DataLoader[Any] = DataLoader(
            _Batches(item, batch),
            batch_size=None,
            sampler=steps,
            num_workers=self.workers,
            worker_init_fn=_one_thread,
            # A forked worker would hang in OpenCV, whose threads do not survive the fork.
            multiprocessing_context='spawn' if self.workers else None,
            pin_memory=self.device.type == 'cuda',
        )
        for found in loader:
            if isinstance(found, UserError):
                raise found
            yield found


@contextmanager
def session(out: Path, run: RunConfig) -> Iterator[Setup]:
    """Set up a training: threads, device, and its folder, held against other trainings.

    Raises UserError where the folder cannot be made or is in use, or there is no such device.
    """
    if int(os.environ.get('WORLD_SIZE', '1')) > 1:
        raise UserError('a training runs in one process on one device; start it without torchrun')
    make_folder(out)
    with lock(out / 'lock', f'the training folder {out}'):
        if run.threads:
            torch.set_num_threads(run.threads)
        yield Setup(choose_device(run.device, 'run.device'), run.workers, run.precision, run.seed)


class _Batches(Dataset[Any]):
    """Step by step a batch; in its place a user's error, which would be a trace in a text."""

    def __init__(self, item: Callable[[int], Any], batch: int) -> None:
        self._item, self._batch = item, batch

    def __getitem__(self, step: int) -> Any:
        try:
            return default_collate([self._item(step * self._batch + place) for place in range(self._batch)])
        except UserError as error:
            return error


def _one_thread(worker: int) -> None:
    # Workers are as many as there are cores to spare; each using all cores would be slower.
    cv2.setNumThreads(1)
