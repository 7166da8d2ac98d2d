"""A training run from its options to the model file and its card."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import FlowInput, load_network, save_network
from moving_object_detector.training.card import as_text, identity, write_card, write_inpainter_card
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.distributed import Processes, session
from moving_object_detector.training.flow_cache import CachedClip, repaired
from moving_object_detector.training.game import candidate_steps
from moving_object_detector.training.loop import LoopOptions, fit
from moving_object_detector.training.prepare import make_networks, make_stages, open_clips
from moving_object_detector.training.selection import Judgement, judge, spread_frames

JUDGED_FRAMES = 60


def flow_name(config: TrainConfig) -> str:
    """Return what the detector calls the flow that a model was trained on."""
    return f'dis-{config.flow.preset}' if config.flow.backend == 'dis' else config.flow.backend


def _metadata(config: TrainConfig) -> dict[str, str]:
    return {
        **as_text(config),
        'flow_input': config.network.flow_input,
        'flow_backend': flow_name(config),
        'height': str(config.network.height),
        'width': str(config.network.width),
    }


def run_training(config: TrainConfig, out: Path, command: Sequence[str]) -> Path | None:
    """Train, or go on with the run that lies in ``out``.

    Args:
        config: All options.
        out: Folder of the run.
        command: The arguments of the program, for the card.

    Returns:
        The model file, the inpainter's where nothing else is trained; None in a process that does not lead.

    Raises:
        UserError: Options, footage, files or the folder are wrong, or the training diverged.

    """
    if not config.data.root and not config.rendered.steps and not config.inpainter_alone:
        raise UserError('there is nothing to train on: set data.root to your footage, or rendered.steps above 0')
    if not config.rendered.steps + config.inpainter.steps + config.game.steps:
        raise UserError('rendered.steps, inpainter.steps and game.steps are all 0; set one of them above 0')
    with session(out, config.run.device, config.run.threads) as (group, device):
        return repaired(lambda: _train(config, out, command, group, device), alone=group.count == 1)


def _train(
    config: TrainConfig, out: Path, command: Sequence[str], group: Processes, device: torch.device
) -> Path | None:
    clips = open_clips(config, out, device, progress=group.leads)
    frames = _judged_frames(config, clips)
    networks = make_networks(config)
    candidates = out / 'candidates'

    def candidate(step: int, network: nn.Module) -> None:
        save_network(copy.deepcopy(network).cpu(), candidates / _candidate_name(step), _metadata(config))

    stages = make_stages(config, networks, clips, group, device, candidate)
    loop = LoopOptions(config.run.checkpoint_every, config.run.picture_every)
    fit(stages, out, identity(config, [clip.folder.name for clip in clips]), loop, group)
    if not group.leads:
        return None
    generator, inpainter = networks
    judged: dict[str, Judgement] = {}
    chosen = 'last'
    if clips and config.game.steps:
        # By their names: the folder may hold those of an earlier run.
        steps = candidate_steps(config.game.steps, config.run.candidates)
        judged = _judge_all(config, clips, frames, [candidates / _candidate_name(step) for step in steps], device)
        chosen = choose(judged, config.run.select)
        generator.load_state_dict(load_network(candidates / f'{chosen}.safetensors')[0].state_dict())
    lengths = {clip.name: clip.frame_count for clip in clips}
    if clips or config.inpainter_alone:
        model = out / f'{config.name}-inpainter.safetensors'
        save_network(inpainter.cpu(), model, _metadata(config))
    if config.inpainter_alone:
        model.with_suffix('.md').write_text(write_inpainter_card(config, command, lengths), encoding='utf-8')
        return model
    model = out / f'{config.name}.safetensors'
    save_network(generator.cpu(), model, _metadata(config))
    model.with_suffix('.md').write_text(write_card(config, command, lengths, judged, chosen), encoding='utf-8')
    return model


def _candidate_name(step: int) -> str:
    return f'{step:06d}.safetensors'


def _judged_frames(config: TrainConfig, clips: Sequence[CachedClip]) -> list[tuple[int, int]]:
    """Return the frames that candidates are judged on; asked for before the training, since it may be a mistake.

    Raises:
        UserError: The truth is to choose, and no frame has an annotation.

    """
    if not clips or not config.game.steps:
        return []
    if config.run.select != 'truth':
        return spread_frames(clips, JUDGED_FRAMES)
    annotated = [
        (number, frame)
        for number, clip in enumerate(clips)
        for frame, annotation in enumerate(clip.annotations[: clip.frame_count])
        if annotation is not None
    ]
    if not annotated:
        raise UserError('run.select is truth, but the footage has no annotations; use agreement')
    places = np.unique(np.linspace(0, len(annotated) - 1, JUDGED_FRAMES).round().astype(int))
    return [annotated[place] for place in places]


def choose(judged: dict[str, Judgement], by: str) -> str:
    """Return which candidate is the model.

    Args:
        judged: Candidates in order.
        by: ``last``, ``agreement`` or ``truth``.

    Raises:
        UserError: ``truth`` where no frame has an annotation.

    """
    if by == 'last':
        return list(judged)[-1]
    if by == 'agreement':
        return max(judged, key=lambda name: judged[name].agreement)
    if any(judgement.jaccard is None for judgement in judged.values()):
        raise UserError('run.select is truth, but the footage has no annotations; use agreement')
    return max(judged, key=lambda name: cast('float', judged[name].jaccard))


def _judge_all(
    config: TrainConfig,
    clips: Sequence[CachedClip],
    frames: Sequence[tuple[int, int]],
    files: Sequence[Path],
    device: torch.device,
) -> dict[str, Judgement]:
    size = (config.network.height, config.network.width)
    judged = {}
    for file in files:
        network = cast('Generator', load_network(file)[0]).to(device)
        judged[file.stem] = judge(
            network,
            clips,
            frames,
            size,
            cast('FlowInput', config.network.flow_input),
            truth=config.run.select == 'truth',
        )
    return judged
