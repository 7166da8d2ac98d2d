"""Batches that are a function of the step, however often a run was killed and however many processes share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.distributed import Processes


class _Steps:
    """Yields for each step the numbers of this process's items: step x batch + its share."""

    def __init__(self, first: int, steps: int, batch: int, group: Processes) -> None:
        self._steps = range(first, steps)
        self._batch = batch
        self._share = group.share(batch)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            yield [step * self._batch + place for place in self._share]


class _Guarded(Dataset[Any]):
    """Gives a user's error in place of an item, which would come out of a worker as a trace in a text."""

    def __init__(self, items: Dataset[Any]) -> None:
        self._items = items

    def __getitem__(self, index: int) -> Any:
        try:
            return self._items[index]
        except UserError as error:
            return error


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UserError)), None) or default_collate(items)


def _one_thread(worker: int) -> None:
    import cv2

    # Workers are as many as there are cores to spare; each using all cores would be slower.
    cv2.setNumThreads(1)


def batches(
    items: Dataset[Any], first: int, steps: int, batch: int, group: Processes, workers: int = 0, *, pin: bool = False
) -> Iterator[Any]:
    """Return the batches of steps ``first`` to ``steps`` - 1.

    Args:
        items: Item k is a function of k alone, for any k.
        first: First step.
        steps: Step before which to end.
        batch: Items a step, all processes together.
        group: The processes that train together.
        workers: Processes that prepare items; 0: the caller's.
        pin: Put the batches where a GPU copies them from fastest.

    Raises:
        UserError: The batch cannot be divided evenly, or an item raises it.

    """
    loader = DataLoader(
        _Guarded(items),
        batch_sampler=_Steps(first, steps, batch, group),
        collate_fn=_collate,
        num_workers=workers,
        worker_init_fn=_one_thread,
        # A forked worker would hang in OpenCV, whose threads do not survive the fork.
        multiprocessing_context='spawn' if workers else None,
        pin_memory=pin and torch.cuda.is_available(),
    )
    return _raised(loader)


def _raised(loader: Iterable[Any]) -> Iterator[Any]:
    for found in loader:
        if isinstance(found, UserError):
            raise found
        yield found
