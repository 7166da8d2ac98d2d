"""Stages of a training: what all have, the generator on rendered scenes and as a student, the inpainter on boxes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from moving_object_detector.flow.base import motion_units
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training.config import InpainterConfig, RenderedConfig, TeacherConfig
from moving_object_detector.training.losses import box_loss, mask_loss
from moving_object_detector.training.pictures import draw_batch
from moving_object_detector.training.setup import Setup

WEIGHT_DECAY: Final = 1e-4
LARGEST_NORM: Final = 1.0
"""To which gradients are clipped."""
MOST_BOXES: Final = 3
SIDES: Final = (0.1, 0.6)
"""Least and greatest side of a box, as a share of the image's."""


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network that follows it as a moving average at each ``update_parameters``."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class Stage(ABC):
    """One stage of a training run; it names its networks (averages among them) and optimisers, which are its state."""

    name: str
    picture: str
    """What the picture of ``seen`` is called."""
    candidate: nn.Module | None = None
    """What is offered as the model, from the beginning on and evenly spread over the stage; None: nothing."""

    def __init__(self, setup: Setup, steps: int, batch: int, pairs: Dataset[Any]) -> None:
        self.setup = setup
        self.steps = steps
        self.batch = batch
        self.pairs = pairs
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.seen: dict[str, Tensor] = {}
        """Of the last batch what is to be drawn."""

    def begin(self) -> None:
        """Take what the stage before has left; called before the first step, and not by the dry run."""
        return

    def batches(self, first_step: int) -> Iterator[Any]:
        """Return an iterator over the batches from a step on."""
        found: Iterator[Any] = self.setup.batches(self.pairs, first_step, self.steps, self.batch)
        return found

    @abstractmethod
    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Make one update; return what to log."""

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return a picture of what the stage does on its last batch."""
        return {self.picture: draw_batch(self.seen)} if self.seen else {}

    def finish(self) -> None:
        """Hand on what the next stage needs; called once, after the last step."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            'networks': {name: network.state_dict() for name, network in self.networks.items()},
            'optimisers': {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for name, network in self.networks.items():
            network.load_state_dict(state['networks'][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state['optimisers'][name])

    def gradients(self, loss: Tensor, player: str) -> list[nn.Parameter]:
        """Leave in a network's parameters the loss's gradient, averaged over the processes; return them."""
        self.optimisers[player].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.networks[player].parameters())
        self.setup.group.average_gradients(parameters)
        return parameters

    def update(self, loss: Tensor, player: str, largest_norm: float) -> Tensor:
        """Apply a loss's gradient, clipped by its norm; return the norm before."""
        norm = nn.utils.clip_grad_norm_(self.gradients(loss, player), largest_norm)
        self.optimisers[player].step()
        return norm


def learning_rate(step: int, config: RenderedConfig | TeacherConfig) -> float:
    """Return the rate of a step: linear rise over 5 % of the stage, then a half cosine down to 1 %."""
    rise = max(config.steps // 20, 1)
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    share = (step - rise) / max(config.steps - rise, 1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class MaskStage(Stage):
    """The generator on items that go on with a mask, exact or a teacher's, and end with its certainty if it has one.

    It is ``rendered``, or ``teacher`` where the options are a student's, which is offered as a candidate. The masks of
    a ``teacher``, a frozen generator that sees the same, count as much as the items'.
    The generator has the averaged weights when the stage has finished.
    """

    picture = 'masks'

    def __init__(
        self,
        setup: Setup,
        generator: Generator,
        pairs: Dataset[Any],
        config: RenderedConfig | TeacherConfig,
        flow_input: FlowInput,
        teacher: Generator | None = None,
    ) -> None:
        super().__init__(setup, config.steps, config.batch, pairs)
        self._config = config
        self._teacher = teacher
        self._flow_input = flow_input
        self._average = averaged(generator, config.average)
        self.name = 'rendered'
        if isinstance(config, TeacherConfig):
            self.name, self.candidate = 'teacher', self._average.module
        self.networks = {'generator': generator, 'averaged': self._average}
        self.optimisers = {
            'generator': torch.optim.AdamW(generator.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)
        }

    def begin(self) -> None:
        """Take the generator as the stage before has left it."""
        self._average.module.load_state_dict(self.networks['generator'].state_dict())

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the generator."""
        image, flow, truth, *certain = self.setup.sent(batch)
        for options in self.optimisers['generator'].param_groups:
            options['lr'] = learning_rate(step, self._config)
        prepared = prepare_flow(flow, self._flow_input).flow
        with self.setup.autocast():
            mask = self.networks['generator'](image, prepared)
        loss = mask_loss(mask.float(), truth, *certain)
        if self._teacher is not None:
            with torch.no_grad(), self.setup.autocast():
                wise = self._teacher(image, prepared)
            loss = (loss + mask_loss(mask.float(), wise.float())) / 2
        self.update(loss, 'generator', LARGEST_NORM)
        self._average.update_parameters(self.networks['generator'])
        self.seen = {'image': image, 'flow': prepared[:, :2], 'mask': mask.detach(), 'truth': truth}
        return {'loss': loss.detach()}

    def finish(self) -> None:
        """Take the averaged weights over."""
        self.networks['generator'].load_state_dict(self._average.module.state_dict())


def random_boxes(rng: np.random.Generator, batch: int, size: tuple[int, int]) -> Tensor:
    """Draw masks (B, 1, H, W) that are 1 in one to three boxes; sides and places are uniform, boxes may overlap."""
    masks = torch.zeros(batch, 1, *size)
    for mask in masks:
        for _ in range(int(rng.integers(1, MOST_BOXES + 1))):
            height, width = (max(round(side * float(rng.uniform(*SIDES))), 1) for side in size)
            top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
            mask[0, top : top + height, left : left + width] = 1.0
    return masks


class InpainterStage(Stage):
    """The inpainter alone, filling random boxes of flow: the game is much faster after it."""

    name = 'inpainter'
    picture = 'boxes'

    def __init__(self, setup: Setup, inpainter: Inpainter, pairs: Dataset[Any], config: InpainterConfig) -> None:
        super().__init__(setup, config.steps, config.batch, pairs)
        self.networks = {'inpainter': inpainter}
        self.optimisers = {'inpainter': torch.optim.Adam(inpainter.parameters(), config.learning_rate)}

    def boxes(self, step: int, size: tuple[int, int]) -> Tensor:
        """Return the boxes of this process's share of a step."""
        share, seed = self.setup.group.share(self.batch), self.setup.seed
        return torch.cat([random_boxes(np.random.default_rng((seed, step, place)), 1, size) for place in share])

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the inpainter."""
        image, flow = self.setup.sent(batch[:2])
        target = motion_units(flow[:, :2])
        mask = self.boxes(step, (flow.shape[2], flow.shape[3])).to(self.setup.device)
        with self.setup.autocast():
            guess = self.networks['inpainter'](image, target * (1.0 - mask), mask)
        loss = box_loss(target, mask, guess.float())
        self.update(loss, 'inpainter', LARGEST_NORM)
        filled = torch.lerp(target, guess.detach().float(), mask)
        self.seen = {'image': image, 'flow': target, 'mask': mask, 'guessed': filled}
        return {'loss': loss.detach()}
