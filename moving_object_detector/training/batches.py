"""Batches that are a function of the step, however often a run was killed and however many processes share it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

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


def _one_thread(worker: int) -> None:
    import cv2

    # Workers are as many as there are cores to spare; each using all cores would be slower.
    cv2.setNumThreads(1)


def batches(
    items: Dataset[Any], first: int, steps: int, batch: int, group: Processes, workers: int = 0, *, pin: bool = False
) -> Iterable[Any]:
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
        UserError: The batch cannot be divided evenly.

    """
    return DataLoader(
        items,
        batch_sampler=_Steps(first, steps, batch, group),
        num_workers=workers,
        worker_init_fn=_one_thread,
        # A forked worker would hang in OpenCV, whose threads do not survive the fork.
        multiprocessing_context='spawn' if workers else None,
        pin_memory=pin and torch.cuda.is_available(),
    )
