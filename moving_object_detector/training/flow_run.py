"""A run of ``train flow`` from its options to the model file and its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.weights import save_network
from moving_object_detector.training.cards import flow_identity, write_flow_card
from moving_object_detector.training.config import FlowTrainConfig
from moving_object_detector.training.distributed import session
from moving_object_detector.training.flow_cache import CachedClip, repaired
from moving_object_detector.training.flow_pairs import (
    FlowPairOptions,
    RenderedFlowPairs,
    VideoFlowPairs,
    VideoPairOptions,
)
from moving_object_detector.training.flow_stage import FlowData, FlowStage, TrainedPWCNet, network_input
from moving_object_detector.training.flow_validation import (
    Sample,
    average,
    compare,
    folder_samples,
    held_out_samples,
)
from moving_object_detector.training.loop import LoopOptions, fit
from moving_object_detector.training.run import Outcome, open_clips
from moving_object_detector.training.stage import Setup

START_SCENES: Final = 8
"""Whose first pairs set the scale of new weights."""


def pair_options(config: FlowTrainConfig) -> FlowPairOptions:
    """Return how rendered pairs are made."""
    training = config.training
    return FlowPairOptions((training.height, training.width), training.largest_gap, training.pairs_per_scene)


def open_video(config: FlowTrainConfig, out: Path, setup: Setup) -> list[CachedClip]:
    """Find the footage and compute the teacher's flow, or what is missing of it; none where no footage is given."""
    video = config.video
    if not video.root:
        return []
    if video.teacher == 'raft_small' and not video.teacher_model:
        raise UserError(
            "video.teacher_model names no weights; give the authors' raft-small.pth, or set video.teacher=dis"
        )
    teacher = FlowConfig(video.teacher, 'medium', video.height, video.width, video.teacher_model)
    return open_clips(video, teacher, out, setup)


def make_network(config: FlowTrainConfig, pairs: RenderedFlowPairs) -> TrainedPWCNet:
    """Return the network, from the file that the options name or with random weights from the seed, fitted to pairs."""
    torch.manual_seed(config.run.seed)
    network = TrainedPWCNet()
    if config.start.model:
        network.load_state_dict(load_flow_network(config.start.model, 'pwcnet').state_dict())
    else:
        batch = [pairs[number * config.training.pairs_per_scene] for number in range(START_SCENES)]
        network.start(network_input(torch.stack([image for pair in batch for image in pair[:2]])))
    return network


def make_stage(config: FlowTrainConfig, setup: Setup, clips: Sequence[CachedClip]) -> FlowStage:
    """Return the run's one stage."""
    options = pair_options(config)
    rendered = RenderedFlowPairs(config.run.seed, options)
    network = make_network(config, rendered)
    video = VideoPairOptions(options.size, config.video.least_crop)
    data = FlowData(
        rendered,
        VideoFlowPairs(clips, config.run.seed, video) if clips else None,
        tuple(held_out_samples(config.run.seed, config.validation.scenes, options)),
    )
    return FlowStage(setup, network, data, config)


def _metadata(config: FlowTrainConfig, clips: Sequence[CachedClip]) -> dict[str, str]:
    training = config.training
    about = {name: str(getattr(training, name)) for name in ('steps', 'batch', 'height', 'width')}
    kind = 'rendered scenes and video' if clips else 'rendered scenes'
    return {'training': kind, **about, 'seed': str(config.run.seed)}


def run_flow_training(config: FlowTrainConfig, out: Path, command: Sequence[str]) -> Outcome | None:
    """Train, or go on with the run that lies in ``out``; as ``run.run_training``."""
    # Read now, so that a mistake in them is not found after the training.
    pairs = folder_samples(Path(config.validation.folder).expanduser()) if config.validation.folder else []
    with session(out, config.run.device, config.run.threads) as (group, device):
        # All batches have one size, for which cuDNN may choose its fastest kernels.
        torch.backends.cudnn.benchmark = device.type == 'cuda'
        setup = Setup(group, device, config.run.workers, config.run.precision, config.run.seed)
        return repaired(lambda: _train(config, out, command, pairs, setup), alone=group.count == 1)


def _train(
    config: FlowTrainConfig, out: Path, command: Sequence[str], pairs: Sequence[Sample], setup: Setup
) -> Outcome | None:
    clips = open_video(config, out, setup)
    stage = make_stage(config, setup, clips)
    loop = LoopOptions(config.run.checkpoint_every, config.run.picture_every)
    timings = fit([stage], out, flow_identity(config), loop, setup.group)
    if not setup.group.leads:
        return None
    network = stage.model()
    scenes = compare(network, stage.held_out, setup.device)
    measured = [average(scenes, f'{len(scenes)} rendered pairs, held out'), *compare(network, pairs, setup.device)]
    model = out / f'{config.name}.safetensors'
    card = write_flow_card(config, command, {clip.name: clip.frame_count for clip in clips}, measured)
    save_network(network.cpu(), model, _metadata(config, clips))
    write_atomically(model.with_suffix('.md'), card.encode())
    told = [f'{row.name}: {row.network:.2f} px, DIS {row.dis:.2f}, nothing moves {row.still:.2f}' for row in measured]
    return Outcome(model, (str(model.with_suffix('.md')), *told), timings)
