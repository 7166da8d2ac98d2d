"""Second stage: the inpainter alone, filling random boxes of real flow; the game converges much faster after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.training.batches import batches
from moving_object_detector.training.boxes import random_boxes
from moving_object_detector.training.config import InpainterConfig
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.losses import box_loss, motion_units
from moving_object_detector.training.parts import Precision, update
from moving_object_detector.training.pictures import game_picture

LARGEST_GRADIENT = 1.0
"""Norm to which gradients are clipped."""


class InpainterStage:
    """A training task (see ``loop.Task``).

    Args:
        inpainter: Changed in place.
        pairs: Items of :class:`~moving_object_detector.training.cached_pairs.CachedPairs`.
        config: Steps, batch, rate.
        target: ``raw`` or ``residual``, what is inpainted.
        seed: Of the boxes.
        group: The processes that train together.
        device: Of the network.
        workers: Processes that prepare pairs.
        autocast: Makes the context for mixed precision.

    """

    name = 'inpainter'

    def __init__(
        self,
        inpainter: Inpainter,
        pairs: Dataset[Any],
        config: InpainterConfig,
        *,
        target: str,
        seed: int,
        group: Processes,
        device: torch.device,
        workers: int,
        autocast: Precision,
    ) -> None:
        self.steps = config.steps
        self._inpainter = inpainter
        self._pairs = pairs
        self._config = config
        self._target = target
        self._seed = seed
        self._group = group
        self._device = device
        self._workers = workers
        self._autocast = autocast
        self._optimiser = torch.optim.Adam(inpainter.parameters(), config.learning_rate)
        self._seen: dict[str, Tensor] = {}

    def batches(self, first_step: int) -> Iterable[Any]:
        """Yield batches of pairs."""
        pin = self._device.type == 'cuda'
        return batches(self._pairs, first_step, self.steps, self._config.batch, self._group, self._workers, pin=pin)

    def _boxes(self, step: int, size: tuple[int, int]) -> Tensor:
        """Return the boxes of this process's share of a step."""
        share = self._group.share(self._config.batch)
        return torch.cat([random_boxes(np.random.default_rng((self._seed, step, place)), 1, size) for place in share])

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the inpainter."""
        image, flow = (item.to(self._device, non_blocking=True) for item in batch[:2])
        target = motion_units(flow - fit_camera_motion(flow) if self._target == 'residual' else flow)
        mask = self._boxes(step, (flow.shape[2], flow.shape[3])).to(self._device)
        with self._autocast():
            guess = self._inpainter(image, target * (1.0 - mask), mask)
        loss = box_loss(target, mask, guess.float())
        update(loss, self._inpainter, self._optimiser, self._group, LARGEST_GRADIENT)
        filled = torch.lerp(target, guess.detach().float(), mask)
        self._seen = {'image': image, 'flow': target, 'mask': mask, 'guessed': filled}
        return {'loss': loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {'inpainter': self._inpainter.state_dict(), 'optimiser': self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._inpainter.load_state_dict(state['inpainter'])
        self._optimiser.load_state_dict(state['optimiser'])

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return image, flow, boxes, filled flow and error of the last batch's first samples."""
        return {'boxes': game_picture(**self._seen)} if self._seen else {}

    def finish(self) -> None:
        """Leave everything where it is."""
