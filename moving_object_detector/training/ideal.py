"""Ideal conditions (table 1 of the paper): does the objective find the object when nothing else is in the way?

The adversarial game from scratch on flow that is one constant inside and another outside of the annotated mask. This
is the only place where the truth enters a training; what comes out is no model for use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.collection import find_clips, roots_of
from moving_object_detector.detection.overlay import draw_overlay
from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import FlowInput, save_network
from moving_object_detector.training.card import as_text, identity, write_card
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.distributed import session
from moving_object_detector.training.game import Game
from moving_object_detector.training.ideal_pairs import (
    AnnotatedFrame,
    IdealPairs,
    annotated_frames,
    as_input,
    constant_flows,
)
from moving_object_detector.training.inpainter_stage import InpainterStage
from moving_object_detector.training.loop import LoopOptions, Task, fit
from moving_object_detector.training.parts import mixed_precision, place
from moving_object_detector.training.prepare import SUPERVISED_GAIN, make_networks

WARNING: Final = (
    'IDEAL CONDITIONS: the annotations enter this training. It checks the objective; its model is not for use.'
)
SCORING: Final = 2**31
"""Added to the seed of the flows that a generator is scored with, which training never draws."""
SHEET: Final = (3, 4)
"""Rows and columns of the picture of masks."""


def run_ideal(config: TrainConfig, out: Path, command: Sequence[str]) -> Path | None:
    """Train under ideal conditions, or go on with the run that lies in ``out``, and score the outcome.

    Args:
        config: All options; those of rendered scenes, flow, its cache and the choice among candidates have no meaning.
        out: Folder of the run.
        command: The arguments of the program, for the card.

    Returns:
        The model file; None in a process that does not lead.

    Raises:
        UserError: Options, footage or the folder are wrong, nothing is annotated, or the training diverged.

    """
    config = replace(config, rendered=replace(config.rendered, steps=0), game=replace(config.game, consistency=0.0))
    if not config.data.root:
        raise UserError('--ideal needs annotated footage; give data.root=PATH of a data set')
    with session(out, config.run.device, config.run.threads) as (group, device):
        if group.leads:
            sys.stderr.write(f'{WARNING}\n')
        clips = find_clips(roots_of(config.data.root), config.data.split, config.data.topic or None)
        frames = annotated_frames(clips, (config.network.height, config.network.width))
        generator, inpainter = make_networks(config)
        if not config.start.model:
            with torch.no_grad():
                generator.conv17.gamma.fill_(SUPERVISED_GAIN)
        place((generator, inpainter), device, group)
        flow_input = cast('FlowInput', config.network.flow_input)
        seed = config.run.seed
        shared: dict[str, Any] = {
            'group': group,
            'device': device,
            'workers': config.data.workers,
            'autocast': mixed_precision(device, config.run.precision),
        }
        stages: list[Task] = [
            InpainterStage(
                inpainter,
                IdealPairs(frames, 2 * seed, config.game.least_crop),
                config.inpainter,
                target=config.game.target,
                seed=seed,
                **shared,
            ),
            Game(
                generator,
                inpainter,
                IdealPairs(frames, 2 * seed + 1, config.game.least_crop),
                config.game,
                flow_input=flow_input,
                seed=seed,
                candidate=lambda *_: None,
                candidates=1,
                **shared,
            ),
        ]
        options = {**identity(config, [clip.name for clip in clips]), 'ideal': len(frames)}
        fit(stages, out, options, LoopOptions(config.run.checkpoint_every, config.run.picture_every), group)
        if not group.leads:
            return None
        masks = ideal_masks(generator, frames, flow_input, seed)
        scores = {clips[number].name: score for number, score in ideal_scores(frames, masks).items()}
        mean = float(np.mean(list(scores.values())))
        model = out / f'{config.name}-ideal.safetensors'
        details = {
            **as_text(config),
            'flow_input': flow_input,
            'flow_backend': 'none, constant flow from annotations',
            'height': str(config.network.height),
            'width': str(config.network.width),
        }
        save_network(generator.cpu(), model, details)
        lengths = {clip.name: sum(frame.clip == number for frame in frames) for number, clip in enumerate(clips)}
        card = write_card(config, command, lengths, {}, 'last', ideal=True)
        rows = ''.join(f'| {name} | {score:.3f} |\n' for name, score in scores.items())
        card += f'\nMean J under ideal conditions: {mean:.3f}\n\n| clip | J |\n|---|---|\n{rows}'
        model.with_suffix('.md').write_text(card, encoding='utf-8')
        cv2.imwrite(str(out / 'ideal.png'), cv2.cvtColor(draw_masks(frames, masks), cv2.COLOR_RGB2BGR))
        for name, score in scores.items():
            sys.stdout.write(f'{name:20s} J {score:.3f}\n')
        sys.stdout.write(f'{WARNING}\nJ {mean:.3f} frames {len(frames)}\n')
        return model


@torch.inference_mode()
def ideal_masks(
    generator: Generator, frames: Sequence[AnnotatedFrame], flow_input: FlowInput, seed: int
) -> list[NDArray[np.float32]]:
    """Return what a generator makes of each frame with flows that training never drew, (H, W) in [0, 1] each."""
    device = next(generator.parameters()).device
    masks = []
    for number, frame in enumerate(frames):
        rng = np.random.default_rng((SCORING + seed, number))
        flow = constant_flows(rng, torch.from_numpy(frame.mask)[None].float())[None].to(device)
        mask = generator(as_input(frame.image)[None].to(device), prepare_flow(flow, flow_input).flow)
        masks.append(np.asarray(resolve_sign(mask.float())[0, 0].cpu().numpy(), np.float32))
    return masks


def ideal_scores(frames: Sequence[AnnotatedFrame], masks: Sequence[NDArray[np.float32]]) -> dict[int, float]:
    """Return the mean J of each clip, at the annotations' own size."""
    scores: dict[int, list[float]] = {}
    for frame, mask in zip(frames, masks, strict=True):
        truth = frame.annotation.read()
        whole = cv2.resize(mask, (truth.shape[1], truth.shape[0]), interpolation=cv2.INTER_LINEAR)
        scores.setdefault(frame.clip, []).append(jaccard(np.asarray(whole > 0.5), truth))
    return {clip: float(np.mean(values)) for clip, values in scores.items()}


def draw_masks(frames: Sequence[AnnotatedFrame], masks: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Draw the masks of evenly spread frames as overlays, in a grid; (H, W, 3) RGB."""
    rows, columns = SHEET
    places = np.linspace(0, len(frames) - 1, rows * columns).round().astype(int)
    tiles = [draw_overlay(frames[k].image, np.where(masks[k] > 0.5, 255, 0).astype(np.uint8)) for k in places]
    return np.asarray(np.vstack([np.hstack(tiles[row * columns :][:columns]) for row in range(rows)]), np.uint8)
