"""Something that is done over and over, timed from outside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from moving_object_detector.bench.cases import NAIVE, Case
from moving_object_detector.bench.stopwatch import Stopwatch


class Task(ABC):
    """What a case's process does.

    Args:
        device: Where.

    """

    fill = 0
    """Calls until each is like the next."""
    product: Callable[[], object] | None = None
    """Multiplies two matrices by the same engine, once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_gpu = device.type == 'cuda'
        self.watch = Stopwatch(self.on_gpu)
        """Collects the times of the stages."""
        self.facts: dict[str, Any] = {}
        """What it is, for the report."""
        self.warm_up = 8 if self.on_gpu else 2
        """Calls after ``fill`` that do not count either: algorithms are chosen, CUDA graphs captured."""

    @abstractmethod
    def call(self) -> None:
        """Do it once; a GPU may still be at it."""


def make_task(case: Case, images: Path) -> Task:
    """Prepare a case.

    Args:
        case: What to do.
        images: File of frames, for cases that look at some: numpy, uint8 (N, H, W, 3) RGB.

    Raises:
        UserError: It cannot run here; the message says why.

    """
    if case.group.kind == 'frame':
        import numpy as np

        from moving_object_detector.bench.frames import FrameTask, NaiveTask

        return (NaiveTask if case.variant == NAIVE else FrameTask)(case.config, np.load(images, mmap_mode='r'))
    from moving_object_detector.bench.networks import GeneratorTask, PwcTask

    return (GeneratorTask if case.group.kind == 'generator' else PwcTask)(case)
