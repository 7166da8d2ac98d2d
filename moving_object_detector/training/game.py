"""The paper's adversarial game: the inpainter predicts the flow that the generator masks (``min_I max_G L``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from moving_object_detector.detection.pair_masks import resolve_polarity
from moving_object_detector.detection.refinement import dense_crf
from moving_object_detector.flow.base import motion_units
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training import losses
from moving_object_detector.training.config import GameConfig
from moving_object_detector.training.losses import Guesses
from moving_object_detector.training.setup import Setup
from moving_object_detector.training.stages import AveragedStage

BETAS: Final = (0.9, 0.999)
CRF_ITERATIONS: Final = 5
LEAST_GRADIENT: Final = 1e-5


def guess(inpainter: Callable[..., Tensor], image: Tensor, flow: Tensor, mask: Tensor) -> Guesses:
    """Inpaint flow (B, 2, H, W), motion units, on each side of a mask from the other, and all from the image alone."""
    hidden = torch.cat((mask, 1.0 - mask, torch.ones_like(mask)))
    shown = flow.repeat(3, 1, 1, 1) * (1.0 - hidden)
    return Guesses(*inpainter(image.repeat(3, 1, 1, 1), shown, hidden).chunk(3))


def agreed_masks(image: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return the mean of a frame's masks over gaps, refined by the paper's CRF, without gradient.

    Images are (B, 3, H, W) in [-0.5, 0.5], masks (B, 1, H, W) with resolved polarity.
    """
    mean = torch.stack([mask.detach() for mask in masks]).mean(0)[:, 0].cpu().numpy()
    pixels = ((image.detach().cpu().float().permute(0, 2, 3, 1) + 0.5) * 255).round().clamp(0, 255).byte().numpy()
    fitted = [dense_crf(one, frame, CRF_ITERATIONS) for one, frame in zip(mean, pixels, strict=True)]
    return torch.from_numpy(np.stack(fitted)[:, None]).to(image.device)


def revive(parameters: Sequence[nn.Parameter], largest: float, seed: tuple[int, int]) -> bool:
    """Replace vanished gradients (mean magnitude below 1e-5) by noise in [0, ``largest``]; return whether it was done.

    The released code's guard against a collapse to full or empty masks.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    count = sum(gradient.numel() for gradient in gradients)
    total = torch.stack([gradient.abs().sum() for gradient in gradients]).sum()
    # NaN gradients are kept: noise would hide that the training diverged.
    if not float(total) / count < LEAST_GRADIENT:
        return False
    noise = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    for gradient in gradients:
        gradient.copy_(torch.rand(gradient.shape, generator=noise) * largest)
    return True


class Game(AveragedStage):
    """Third stage: alternates one inpainter update with several generator updates."""

    name = 'game'
    picture = 'players'

    def __init__(
        self,
        setup: Setup,
        players: tuple[Generator, Inpainter],
        pairs: Dataset[Any],
        config: GameConfig,
        flow_input: FlowInput,
    ) -> None:
        generator, self._inpainter = players
        super().__init__(setup, generator, pairs, config)
        self._config = config
        self._guesses = partial(setup.run, self._inpainter)
        self._flow_input = flow_input
        self.candidate = self.average.module
        # Frozen as it was before the game: a teacher that follows the generator lets masks shrink step by step.
        self._teacher = copy.deepcopy(generator) if config.consistency else None
        self.networks['inpainter'] = self._inpainter
        if self._teacher is not None:
            self.networks['teacher'] = self._teacher
        self.optimisers = {
            player: torch.optim.Adam(self.networks[player].parameters(), config.learning_rate, BETAS)
            for player in ('network', 'inpainter')
        }

    def begin(self) -> None:
        """Start average and teacher from the generator of the previous stage."""
        super().begin()
        if self._teacher is not None:
            self._teacher.load_state_dict(self.network.state_dict())

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update one of the players."""
        image, flow, *others = self.setup.sent(batch)
        target, prepared = motion_units(flow[:, :2]), prepare_flow(flow, self._flow_input).flow
        if step % (1 + self._config.generator_steps) == 0:
            return self._improve_inpainter(image, target, prepared)
        return self._improve_generator(image, target, prepared, others, step)

    def _improve_inpainter(self, image: Tensor, target: Tensor, prepared: Tensor) -> Mapping[str, float | Tensor]:
        with torch.no_grad():
            mask = self.setup.run(self.network, image, prepared)
        loss = losses.inpainter_loss(target, mask, guess(self._guesses, image, target, mask))
        self._clipped(loss, 'inpainter')
        self.optimisers['inpainter'].step()
        return {'inpainter': loss.detach()}

    def _improve_generator(
        self, image: Tensor, target: Tensor, prepared: Tensor, others: Sequence[Tensor], step: int
    ) -> Mapping[str, float | Tensor]:
        config, terms = self._config, dict[str, Tensor]()
        logits = self.setup.run(cast('Generator', self.network).mask_logits, image, prepared)
        mask = logits.sigmoid()
        total = mask.new_zeros(())
        if config.adversarial:
            self._inpainter.requires_grad_(False)
            guesses = guess(self._guesses, image, target, mask)
            self._inpainter.requires_grad_(True)
            terms['generator'] = losses.generator_loss(target, mask, guesses)
            total = total + config.adversarial * terms['generator']
            filled = torch.lerp(target, guesses.inside, mask).detach()
            self.seen = {'image': image, 'flow': target, 'mask': mask.detach(), 'guessed': filled}
        if self._teacher is not None and len(others) > 1:
            both = (prepared, prepare_flow(others[-1], self._flow_input).flow)
            masks = [resolve_polarity(self.setup.run(self._teacher, image, one)) for one in both]
            terms['consistency'] = losses.mask_loss(logits, agreed_masks(image, masks))
            total = total + config.consistency * terms['consistency']
        revived = revive(self._clipped(total, 'network'), config.clip, (self.setup.seed, step))
        self.optimisers['network'].step()
        self.average.update_parameters(self.network)
        area = (mask.detach() > 0.5).float().mean()
        return {**{key: value.detach() for key, value in terms.items()}, 'area': area, 'revived': float(revived)}

    def _clipped(self, loss: Tensor, player: str) -> list[nn.Parameter]:
        parameters = self.gradients(loss, player)
        nn.utils.clip_grad_value_(parameters, self._config.clip)
        return parameters
