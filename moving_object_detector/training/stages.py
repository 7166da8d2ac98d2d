"""Training stages: base classes, the generator on masks (exact or a teacher's), the inpainter on boxes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from moving_object_detector.flow.base import motion_units
from moving_object_detector.flow.generator_input import one_sided, prepare_flow
from moving_object_detector.media.pictures import flow_colours
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training.config import (
    GameConfig,
    InpainterConfig,
    RenderedConfig,
    TeacherConfig,
    TrainingConfig,
)
from moving_object_detector.training.losses import box_loss, mask_loss, object_weights
from moving_object_detector.training.setup import Setup

ROWS: Final = 4
OUTLINE_COLOUR: Final = (255, 40, 40)

Picture = NDArray[np.uint8]


def draw_batch(batch: Mapping[str, Tensor]) -> Picture:
    """Draw each tensor (B, C, H, W) of a batch as a column of a picture (H', W', 3) RGB.

    Three channels are an image, uint8 or in [-0.5, 0.5], drawn with the outline of ``mask``; two are flow, in colours
    that saturate at the 99th percentile of the first flow's speed; one is a map in [0, 1]. With two flows, a last
    column shows their difference, white at that speed.
    """
    rows = range(min(ROWS, len(next(iter(batch.values())))))
    samples = ({name: values[k].cpu() for name, values in batch.items()} for k in rows)
    return np.asarray(np.vstack([np.hstack([*_columns(sample)]) for sample in samples]), np.uint8)


def _columns(sample: Mapping[str, Tensor]) -> Iterator[Picture]:
    flows = [value.float() for value in sample.values() if len(value) == 2]
    full = max(float(flows[0].norm(dim=0).quantile(0.99)), 1e-6)
    for value in sample.values():
        if len(value) == 2:
            yield flow_colours(np.ascontiguousarray(value.float().permute(1, 2, 0).numpy()), full)
            continue
        picture = _pixels(value)
        if len(value) == 3 and 'mask' in sample:
            found = (sample['mask'][0] > 0.5).numpy().astype(np.uint8)
            outlines = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(picture, outlines, -1, OUTLINE_COLOUR, 1)
        yield picture
    if len(flows) == 2:
        yield _pixels((flows[0] - flows[1]).norm(dim=0, keepdim=True) / full)


def _pixels(value: Tensor) -> Picture:
    """Return an image (3, H, W) or grey levels (1, H, W) as (H, W, 3)."""
    if value.dtype != torch.uint8:
        darkest = -0.5 if len(value) == 3 else 0.0
        value = ((value.float() - darkest).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(value.expand(3, -1, -1).permute(1, 2, 0).numpy())


WEIGHT_DECAY: Final = 1e-4
LARGEST_NORM: Final = 1.0
"""Limit of the gradient's norm."""
MOST_BOXES: Final = 3
SIDES: Final = (0.1, 0.6)
"""Range of a box's sides, as a share of the image's."""


class Stage(ABC):
    """One stage of a training run; its state is that of its ``networks``, including averages, and ``optimisers``."""

    name: str
    picture: str
    """Name of the picture of ``seen``."""
    candidate: nn.Module | None = None
    """Network to save as candidate model before the stage and at evenly spaced steps; None: no candidates."""

    def __init__(self, setup: Setup, steps: int, batch: int, pairs: Dataset[Any]) -> None:
        self.setup = setup
        self.steps = steps
        self.batch = batch
        self.pairs = pairs
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        self.seen: dict[str, Tensor] = {}
        """Tensors of the last batch to draw."""

    def begin(self) -> None:
        """Take over the networks of the previous stage; called before the first step, but not by the dry run."""
        return

    def batches(self, first_step: int) -> Iterator[Any]:
        """Return an iterator over the batches from ``first_step`` on."""
        return self.setup.batches(self.pairs.__getitem__, range(first_step, self.steps), self.batch)

    @abstractmethod
    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Make one update; return what to log."""

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return a picture of the last batch and the outputs for it."""
        return {self.picture: draw_batch(self.seen)} if self.seen else {}

    def finish(self) -> None:
        """Prepare the networks for the next stage; called once, after the last step."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Return the state of networks and optimisers."""
        return {
            'networks': {name: network.state_dict() for name, network in self.networks.items()},
            'optimisers': {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for name, network in self.networks.items():
            network.load_state_dict(state['networks'][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state['optimisers'][name])

    def gradients(self, loss: Tensor, player: str) -> list[nn.Parameter]:
        """Compute the gradient of a loss in a network's parameters; return them."""
        self.optimisers[player].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return list(self.networks[player].parameters())

    def update(self, loss: Tensor, player: str) -> Tensor:
        """Update a network with a loss's gradient, clipped by norm; return the norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.gradients(loss, player), LARGEST_NORM)
        self.optimisers[player].step()
        return norm


def learning_rate(step: int, config: RenderedConfig | TeacherConfig) -> float:
    """Return a step's learning rate: linear warm-up over 5 % of the stage, then a half cosine down to 1 %."""
    rise = max(config.steps // 20, 1)
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    share = (step - rise) / max(config.steps - rise, 1)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class AveragedStage(Stage):
    """A stage that trains a network, which gets the moving average of its weights at the end."""

    def __init__(
        self,
        setup: Setup,
        network: nn.Module,
        pairs: Dataset[Any],
        config: RenderedConfig | TeacherConfig | GameConfig | TrainingConfig,
    ) -> None:
        super().__init__(setup, config.steps, config.batch, pairs)
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.average))  # type: ignore[no-untyped-call]
        """Exponential moving average, updated by ``update_parameters``."""
        self.networks = {'network': network, 'averaged': self.average}
        optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)
        self.optimisers = {'network': optimiser}

    def learn(self, loss: Tensor, rate: float) -> Tensor:
        """Update network and average with a learning rate; return the gradient's norm before clipping."""
        for options in self.optimisers['network'].param_groups:
            options['lr'] = rate
        norm = self.update(loss, 'network')
        self.average.update_parameters(self.network)
        return norm

    def begin(self) -> None:
        """Start the average from the network of the previous stage."""
        self.average.module.load_state_dict(self.network.state_dict())

    def finish(self) -> None:
        """Copy the averaged weights to the network."""
        self.network.load_state_dict(self.average.module.state_dict())


class MaskStage(AveragedStage):
    """The generator on items of image, flow, mask and, for a detector's masks, certainty.

    The stage is ``rendered``, or with a :class:`TeacherConfig` ``teacher``, which offers candidates. The masks of a
    ``teacher``, a frozen generator, are a second target with equal weight, for items whose whole flow it takes.
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
        super().__init__(setup, generator, pairs, config)
        self._config = config
        self._flow_input = flow_input
        self._teacher = teacher
        self.name = 'rendered'
        if isinstance(config, TeacherConfig):
            self.name, self.candidate = 'teacher', self.average.module

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the generator."""
        image, flow, truth, *certain = self.setup.sent(batch)
        prepared = prepare_flow(flow, self._flow_input).flow
        logits = self.setup.run(cast('Generator', self.network).mask_logits, image, prepared)
        # A teacher's masks come with their certainty.
        loss = mask_loss(logits, truth, *certain or [object_weights(truth)])
        if self._teacher is not None:
            # On two-sided items a one-sided teacher would know less than its student.
            channels = self._teacher.flow_channels
            narrow = channels < prepared.shape[1]
            taught = one_sided(flow) if narrow else torch.ones(len(flow), dtype=torch.bool, device=flow.device)
            if taught.any():
                with torch.no_grad():
                    target = self.setup.run(self._teacher, image[taught], prepared[taught, :channels])
                share = taught.float().mean()
                loss = (loss + share * mask_loss(logits[taught], target)) / (1 + share)
        self.learn(loss, learning_rate(step, self._config))
        self.seen = {'image': image, 'flow': prepared[:, :2], 'mask': logits.detach().sigmoid(), 'truth': truth}
        return {'loss': loss.detach()}


def random_boxes(rng: np.random.Generator, batch: int, size: tuple[int, int]) -> Tensor:
    """Draw masks (B, 1, H, W) that are 1 in one to three boxes with uniform sides and places, maybe overlapping."""
    masks = torch.zeros(batch, 1, *size)
    for mask in masks:
        for _ in range(int(rng.integers(1, MOST_BOXES + 1))):
            height, width = (max(round(side * float(rng.uniform(*SIDES))), 1) for side in size)
            top, left = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
            mask[0, top : top + height, left : left + width] = 1.0
    return masks


class InpainterStage(Stage):
    """Pretraining of the inpainter on random boxes of flow, which makes the game much faster."""

    name = 'inpainter'
    picture = 'boxes'

    def __init__(self, setup: Setup, inpainter: Inpainter, pairs: Dataset[Any], config: InpainterConfig) -> None:
        super().__init__(setup, config.steps, config.batch, pairs)
        self.networks = {'inpainter': inpainter}
        self.optimisers = {'inpainter': torch.optim.Adam(inpainter.parameters(), config.learning_rate)}

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update the inpainter."""
        image, flow = self.setup.sent(batch[:2])
        target = motion_units(flow[:, :2])
        rng = np.random.default_rng((self.setup.seed, step))
        mask = random_boxes(rng, self.batch, (flow.shape[2], flow.shape[3])).to(self.setup.device)
        guess = self.setup.run(self.networks['inpainter'], image, target * (1.0 - mask), mask)
        loss = box_loss(target, mask, guess)
        self.update(loss, 'inpainter')
        filled = torch.lerp(target, guess.detach(), mask)
        self.seen = {'image': image, 'flow': target, 'mask': mask, 'guessed': filled}
        return {'loss': loss.detach()}
