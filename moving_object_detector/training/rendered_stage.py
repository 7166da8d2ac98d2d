"""First stage: the generator on rendered scenes, where the mask is exact and free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training.average import averaged
from moving_object_detector.training.batches import batches
from moving_object_detector.training.config import RenderedConfig
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.losses import mask_loss
from moving_object_detector.training.parts import Precision, update
from moving_object_detector.training.pictures import mask_picture

WEIGHT_DECAY = 1e-4
LARGEST_GRADIENT = 1.0
"""Norm to which gradients are clipped."""


def learning_rate(step: int, config: RenderedConfig) -> float:
    """Return the rate of a step: linear rise over 5 % of the stage, then a half cosine down to 1 %."""
    rise = max(config.steps // 20, 1)
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    share = (step - rise) / max(config.steps - rise, 1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class RenderedStage:
    """A training task (see ``loop.Task``).

    Args:
        generator: Changed in place; has the averaged weights when the task has finished.
        pairs: Items of :class:`~moving_object_detector.training.rendered_pairs.RenderedPairs`.
        config: Steps, batch, rate.
        flow_input: How the generator sees flow.
        group: The processes that train together.
        device: Of the network.
        workers: Processes that render.
        autocast: Makes the context for mixed precision.

    """

    name = 'rendered'

    def __init__(
        self,
        generator: Generator,
        pairs: Dataset[Any],
        config: RenderedConfig,
        *,
        flow_input: FlowInput,
        group: Processes,
        device: torch.device,
        workers: int,
        autocast: Precision,
    ) -> None:
        self.steps = config.steps
        self._generator = generator
        self._pairs = pairs
        self._config = config
        self._flow_input = flow_input
        self._group = group
        self._device = device
        self._workers = workers
        self._autocast = autocast
        self._averaged = averaged(generator, config.average)
        self._optimiser = torch.optim.AdamW(generator.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)
        self._seen: dict[str, Tensor] = {}

    def batches(self, first_step: int) -> Iterable[Any]:
        """Yield batches of rendered pairs."""
        pin = self._device.type == 'cuda'
        return batches(self._pairs, first_step, self.steps, self._config.batch, self._group, self._workers, pin=pin)

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the generator."""
        image, flow, truth = (item.to(self._device, non_blocking=True) for item in batch)
        for options in self._optimiser.param_groups:
            options['lr'] = learning_rate(step, self._config)
        prepared = prepare_flow(flow, self._flow_input).flow
        with self._autocast():
            mask = self._generator(image, prepared)
        loss = mask_loss(mask.float(), truth)
        update(loss, self._generator, self._optimiser, self._group, LARGEST_GRADIENT)
        self._averaged.update_parameters(self._generator)
        self._seen = {'image': image, 'flow': prepared, 'mask': mask.detach(), 'truth': truth}
        return {'loss': loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            'generator': self._generator.state_dict(),
            'averaged': self._averaged.state_dict(),
            'optimiser': self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._generator.load_state_dict(state['generator'])
        self._averaged.load_state_dict(state['averaged'])
        self._optimiser.load_state_dict(state['optimiser'])

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return image, flow input, mask and exact mask of the last batch's first samples."""
        return {'masks': mask_picture(**self._seen)} if self._seen else {}

    def finish(self) -> None:
        """Take the averaged weights over."""
        self._generator.load_state_dict(self._averaged.module.state_dict())
