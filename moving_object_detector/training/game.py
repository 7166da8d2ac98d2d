"""The adversarial game of the paper: the generator hides flow, the inpainter guesses it (``min_I max_G L``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
from moving_object_detector.training.stages import Stage, averaged

BETAS: Final = (0.9, 0.999)
CRF_ITERATIONS: Final = 5
LEAST_GRADIENT: Final = 1e-5


def guess(inpainter: nn.Module, image: Tensor, flow: Tensor, mask: Tensor, *, alone: bool) -> Guesses:
    """Let the inpainter guess each side of a mask (B, 1, H, W) from the other, flow (B, 2, H, W) in motion units.

    With ``alone`` it guesses from the image alone too.
    """
    hidden = [mask, 1.0 - mask]
    if alone:
        hidden.append(torch.ones_like(mask))
    together = torch.cat(hidden)
    shown = torch.cat([flow] * len(hidden)) * (1.0 - together)
    parts = inpainter(torch.cat([image] * len(hidden)), shown, together).float().chunk(len(hidden))
    return Guesses(parts[0], parts[1], parts[2] if alone else None)


def agreed_masks(image: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return the mean of a frame's masks from different gaps, fitted to the image by the paper's CRF, without gradient.

    Images are (B, 3, H, W) in [-0.5, 0.5], masks (B, 1, H, W) of one polarity.
    """
    mean = torch.stack([mask.detach() for mask in masks]).mean(0)[:, 0].cpu().numpy()
    pixels = ((image.detach().cpu().float().permute(0, 2, 3, 1) + 0.5) * 255).round().clamp(0, 255).byte().numpy()
    fitted = [dense_crf(one, frame, CRF_ITERATIONS) for one, frame in zip(mean, pixels, strict=True)]
    return torch.from_numpy(np.stack(fitted)[:, None]).to(image.device)


def revive(parameters: Sequence[nn.Parameter], largest: float, seed: tuple[int, int]) -> bool:
    """Replace vanished gradients by positive noise up to ``largest``; return whether their mean was under 1e-5.

    The released code's guard against a collapse to all or nothing; the seed makes it the same in all processes.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    count = sum(gradient.numel() for gradient in gradients)
    total = torch.stack([gradient.abs().sum() for gradient in gradients]).sum()
    # A gradient that is not a number has not vanished: noise would hide that the training diverged.
    if not float(total) / count < LEAST_GRADIENT:
        return False
    noise = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    for gradient in gradients:
        gradient.copy_(torch.rand(gradient.shape, generator=noise) * largest)
    return True


class Game(Stage):
    """One inpainter update, then some generator updates, and again; the generator ends with the averaged weights."""

    name = 'game'
    picture = 'players'

    def __init__(
        self,
        setup: Setup,
        players: tuple[Generator, Inpainter],
        pairs: Dataset[Any],
        config: GameConfig,
        form: FlowInput,
    ) -> None:
        super().__init__(setup, config.steps, config.batch, pairs)
        generator, self._inpainter = players
        self._config = config
        self._flow_input = form
        self._average = averaged(generator, config.average)
        self.candidate = self._average.module
        self._generator = generator
        # As the generator was before the game: one that follows it lets masks shrink step by step.
        self._teacher = copy.deepcopy(generator) if config.consistency else None
        self.networks = {'generator': generator, 'inpainter': self._inpainter, 'averaged': self._average}
        if self._teacher is not None:
            self.networks['teacher'] = self._teacher
        self.optimisers = {
            player: torch.optim.Adam(self.networks[player].parameters(), config.learning_rate, BETAS)
            for player in ('generator', 'inpainter')
        }

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update one of the players."""
        image, flow, *others = self.setup.sent(batch)
        if step % (1 + self._config.generator_steps) == 0:
            return self._improve_inpainter(image, flow)
        return self._improve_generator(step, image, flow, others[-1] if len(others) > 1 else None)

    def begin(self) -> None:
        """Take the generator as the stage before has left it."""
        for network in (self._average.module, self._teacher):
            if network is not None:
                network.load_state_dict(self._generator.state_dict())

    def _mask(self, network: nn.Module, image: Tensor, flow: Tensor) -> Tensor:
        prepared = prepare_flow(flow, self._flow_input).flow
        with self.setup.autocast():
            return cast('Tensor', network(image, prepared)).float()

    def _guess(self, image: Tensor, flow: Tensor, mask: Tensor) -> Guesses:
        with self.setup.autocast():
            return guess(self._inpainter, image, flow, mask, alone=self._config.loss == 'code')

    def _improve_inpainter(self, image: Tensor, flow: Tensor) -> Mapping[str, float | Tensor]:
        target = motion_units(flow[:, :2])
        with torch.no_grad():
            mask = self._mask(self._generator, image, flow)
        loss = losses.inpainter_loss(target, mask, self._guess(image, target, mask), self._config.loss)
        self._clipped(loss, 'inpainter')
        self.optimisers['inpainter'].step()
        return {'inpainter': loss.detach()}

    def _improve_generator(
        self, step: int, image: Tensor, flow: Tensor, other_flow: Tensor | None
    ) -> Mapping[str, float | Tensor]:
        config = self._config
        target = motion_units(flow[:, :2])
        mask = self._mask(self._generator, image, flow)
        values: dict[str, Tensor] = {}
        total = mask.new_zeros(())
        if config.adversarial:
            self._inpainter.requires_grad_(False)
            guesses = self._guess(image, target, mask)
            self._inpainter.requires_grad_(True)
            values['generator'] = losses.generator_loss(target, mask, guesses, config.loss)
            total = total + config.adversarial * values['generator']
            filled = torch.lerp(target, guesses.inside, mask).detach()
            self.seen = {'image': image, 'flow': target, 'mask': mask.detach(), 'guessed': filled}
        if self._teacher is not None and other_flow is not None:
            views = [resolve_polarity(self._mask(self._teacher, image, one)) for one in (flow, other_flow)]
            values['consistency'] = losses.mask_loss(mask, agreed_masks(image, views))
            total = total + config.consistency * values['consistency']
        parameters = self._clipped(total, 'generator')
        revived = revive(parameters, config.clip, (self.setup.seed, step))
        self.optimisers['generator'].step()
        self._average.update_parameters(self._generator)
        share = (mask.detach() > 0.5).float().mean()
        return {**{key: value.detach() for key, value in values.items()}, 'area': share, 'revived': float(revived)}

    def _clipped(self, loss: Tensor, player: str) -> list[nn.Parameter]:
        parameters = self.gradients(loss, player)
        nn.utils.clip_grad_value_(parameters, self._config.clip)
        return parameters

    def finish(self) -> None:
        """Take the averaged weights over."""
        self._generator.load_state_dict(self._average.module.state_dict())
