"""The adversarial game of the paper: the generator hides flow, the inpainter guesses it (``min_I max_G L``)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from moving_object_detector.detection.refinement import dense_crf
from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training import losses
from moving_object_detector.training.average import averaged
from moving_object_detector.training.batches import batches
from moving_object_detector.training.collapse import revive
from moving_object_detector.training.config import GameConfig
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.losses import Guesses, motion_units
from moving_object_detector.training.parts import Precision
from moving_object_detector.training.pictures import game_picture

BETAS: Final = (0.9, 0.999)
CRF_ITERATIONS: Final = 5


def candidate_steps(steps: int, candidates: int) -> list[int]:
    """Return after how many steps there is a candidate: evenly from 0, what the game begins with, to the end."""
    return sorted({round(k * steps / candidates) for k in range(candidates + 1)})


def guess(inpainter: nn.Module, image: Tensor, flow: Tensor, mask: Tensor, *, alone: bool) -> Guesses:
    """Let the inpainter guess each side of a mask from the other.

    Args:
        inpainter: phi.
        image: (B, 3, H, W).
        flow: (B, 2, H, W), motion units.
        mask: (B, 1, H, W), chi.
        alone: Guess from the image alone too.

    """
    hidden = [mask, 1.0 - mask]
    if alone:
        hidden.append(torch.ones_like(mask))
    together = torch.cat(hidden)
    shown = torch.cat([flow] * len(hidden)) * (1.0 - together)
    parts = inpainter(torch.cat([image] * len(hidden)), shown, together).float().chunk(len(hidden))
    return Guesses(parts[0], parts[1], parts[2] if alone else None)


def agreed_masks(image: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return what masks of one frame from different gaps agree on, fitted to the image by the paper's CRF.

    Args:
        image: (B, 3, H, W) in [-0.5, 0.5].
        masks: Each (B, 1, H, W), their signs resolved.

    Returns:
        (B, 1, H, W) in [0, 1], without gradient.

    """
    mean = torch.stack([mask.detach() for mask in masks]).mean(0)[:, 0].cpu().numpy()
    pixels = ((image.detach().cpu().float().permute(0, 2, 3, 1) + 0.5) * 255).round().clamp(0, 255).byte().numpy()
    fitted = [dense_crf(one, frame, CRF_ITERATIONS) for one, frame in zip(mean, pixels, strict=True)]
    return torch.from_numpy(np.stack(fitted)[:, None]).to(image.device)


class Game:
    """A training task (see ``loop.Task``): one inpainter update, then some generator updates, and again.

    Args:
        generator: Changed in place; has the averaged weights when the task has finished.
        inpainter: Changed in place.
        pairs: Items of :class:`~moving_object_detector.training.cached_pairs.CachedPairs`.
        config: The game's rules.
        flow_input: How the generator sees flow.
        seed: Of all that is random besides the pairs.
        group: The processes that train together.
        device: Of the networks.
        workers: Processes that prepare pairs.
        autocast: Makes the context for the networks' mixed precision.
        candidate: Called with a step and the averaged generator, ``candidates`` times, evenly spread.
        candidates: How often.

    """

    name = 'game'

    def __init__(
        self,
        generator: Generator,
        inpainter: Inpainter,
        pairs: Dataset[Any],
        config: GameConfig,
        *,
        flow_input: FlowInput,
        seed: int,
        group: Processes,
        device: torch.device,
        workers: int,
        autocast: Precision,
        candidate: Callable[[int, nn.Module], object],
        candidates: int,
    ) -> None:
        self.steps = config.steps
        self._generator = generator
        self._inpainter = inpainter
        self._pairs = pairs
        self._config = config
        self._flow_input = flow_input
        self._seed = seed
        self._group = group
        self._device = device
        self._workers = workers
        self._autocast = autocast
        self._candidate = candidate
        self._candidate_steps = candidate_steps(config.steps, candidates)
        self._averaged = averaged(generator, config.average)
        # As the generator was before the game: one that follows it lets masks shrink step by step.
        self._teacher = copy.deepcopy(generator) if config.consistency else None
        self._optimisers = {
            'generator': torch.optim.Adam(generator.parameters(), config.learning_rate, BETAS),
            'inpainter': torch.optim.Adam(inpainter.parameters(), config.learning_rate, BETAS),
        }
        self._seen: dict[str, Tensor] = {}

    def batches(self, first_step: int) -> Iterable[Any]:
        """Yield batches of pairs."""
        pin = self._device.type == 'cuda'
        return batches(self._pairs, first_step, self.steps, self._config.batch, self._group, self._workers, pin=pin)

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Update one of the players."""
        image, flow, *others = (item.to(self._device, non_blocking=True) for item in batch)
        if step == 0:
            self._begin()
        if step == 0:
            # The stages before have changed the generator since the copy was made.
            self._averaged.module.load_state_dict(self._generator.state_dict())
        if step % (1 + self._config.generator_steps) == 0:
            values = self._improve_inpainter(image, flow)
        else:
            values = self._improve_generator(step, image, flow, others[-1] if len(others) > 1 else None)
        if step + 1 in self._candidate_steps and self._group.leads:
            self._candidate(step + 1, self._averaged.module)
        return values

    def _begin(self) -> None:
        """Take the generator as the stage before has left it."""
        for network in (self._averaged.module, self._teacher):
            if network is not None:
                network.load_state_dict(self._generator.state_dict())
        if self._group.leads:
            self._candidate(0, self._generator)

    def _mask(self, network: nn.Module, image: Tensor, flow: Tensor) -> Tensor:
        prepared = prepare_flow(flow, self._flow_input).flow
        with self._autocast():
            return cast('Tensor', network(image, prepared)).float()

    def _target(self, flow: Tensor) -> Tensor:
        return motion_units(flow - fit_camera_motion(flow) if self._config.target == 'residual' else flow)

    def _guess(self, image: Tensor, flow: Tensor, mask: Tensor) -> Guesses:
        with self._autocast():
            return guess(self._inpainter, image, flow, mask, alone=self._config.loss == 'code')

    def _improve_inpainter(self, image: Tensor, flow: Tensor) -> Mapping[str, float | Tensor]:
        target = self._target(flow)
        with torch.no_grad():
            mask = self._mask(self._generator, image, flow)
        loss = losses.inpainter_loss(target, mask, self._guess(image, target, mask), self._config.loss)
        self._update('inpainter', self._inpainter, loss)
        return {'inpainter': loss.detach()}

    def _improve_generator(
        self, step: int, image: Tensor, flow: Tensor, other_flow: Tensor | None
    ) -> Mapping[str, float | Tensor]:
        config = self._config
        target = self._target(flow)
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
            self._seen = {'image': image, 'flow': target, 'mask': mask.detach(), 'guessed': filled}
        if config.parametric:
            values['parametric'] = losses.parametric_loss(target, mask)
            total = total + config.parametric * values['parametric']
        if self._teacher is not None and other_flow is not None:
            taught = agreed_masks(
                image, [resolve_sign(self._mask(self._teacher, image, one)) for one in (flow, other_flow)]
            )
            values['consistency'] = losses.mask_loss(mask, taught)
            total = total + config.consistency * values['consistency']
        revived = self._update('generator', self._generator, total, guard=step)
        self._averaged.update_parameters(self._generator)
        share = (mask.detach() > 0.5).float().mean()
        return {**{key: value.detach() for key, value in values.items()}, 'area': share, 'revived': revived}

    def _update(self, player: str, network: nn.Module, loss: Tensor, guard: int | None = None) -> float:
        optimiser = self._optimisers[player]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(network.parameters())
        self._group.average_gradients(parameters)
        nn.utils.clip_grad_value_(parameters, self._config.clip)
        revived = guard is not None and revive(parameters, self._config.clip, (self._seed, guard))
        optimiser.step()
        return float(revived)

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            'generator': self._generator.state_dict(),
            'inpainter': self._inpainter.state_dict(),
            'averaged': self._averaged.state_dict(),
            **({'teacher': self._teacher.state_dict()} if self._teacher is not None else {}),
            **{f'{player} optimiser': optimiser.state_dict() for player, optimiser in self._optimisers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._generator.load_state_dict(state['generator'])
        self._inpainter.load_state_dict(state['inpainter'])
        self._averaged.load_state_dict(state['averaged'])
        if self._teacher is not None:
            self._teacher.load_state_dict(state['teacher'])
        for player, optimiser in self._optimisers.items():
            optimiser.load_state_dict(state[f'{player} optimiser'])

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return image, flow, mask, inpainted flow and error of the last batch's first samples."""
        return {'players': game_picture(**self._seen)} if self._seen else {}

    def finish(self) -> None:
        """Take the averaged weights over."""
        self._generator.load_state_dict(self._averaged.module.state_dict())
