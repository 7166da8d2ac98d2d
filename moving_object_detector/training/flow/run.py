"""A run of ``train flow`` from its options to the model file and its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.collection import find_clips, roots_of
from moving_object_detector.detection.build import create_flow
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.weights import save_network
from moving_object_detector.training.distributed import Processes, session
from moving_object_detector.training.flow.card import write_card
from moving_object_detector.training.flow.config import FlowTrainConfig
from moving_object_detector.training.flow.network import TrainedPWCNet
from moving_object_detector.training.flow.pairs import FlowPairOptions, RenderedFlowPairs
from moving_object_detector.training.flow.task import FlowData, FlowTask, network_input
from moving_object_detector.training.flow.validate import Sample, average, compare, folder_samples, held_out_samples
from moving_object_detector.training.flow.video_pairs import VideoFlowPairs, VideoPairOptions
from moving_object_detector.training.flow_cache import CachedClip, cached_clips, repaired
from moving_object_detector.training.loop import LoopOptions, fit
from moving_object_detector.training.prepare import flow_fingerprint

START_SCENES = 8
"""Whose first pairs set the scale of new weights."""


def identity(config: FlowTrainConfig) -> dict[str, Any]:
    """Return what decides the weights, by which a checkpoint knows its run; not how the run is shown or shared out."""
    plain = dataclasses.asdict(config)
    plain['run'] = {key: plain['run'][key] for key in ('seed', 'precision')}
    plain['video'].pop('cache')
    for name in ('name', 'validation'):
        plain.pop(name)
    return plain


def pair_options(config: FlowTrainConfig) -> FlowPairOptions:
    """Return how rendered pairs are made."""
    training = config.training
    return FlowPairOptions((training.height, training.width), training.largest_gap, training.pairs_per_scene)


def open_video(config: FlowTrainConfig, out: Path, device: torch.device) -> list[CachedClip]:
    """Find the footage and compute the teacher's flow, or what is missing of it; none where no footage is given.

    Raises:
        UserError: Something about the footage, the teacher or the cache is wrong.

    """
    video = config.video
    if not video.root:
        return []
    if not video.distillation and not video.census:
        raise UserError('video.root is given, but video.distillation and video.census are both 0; set one of them')
    if video.distillation and video.teacher == 'raft_small' and not video.teacher_model:
        raise UserError(
            "video.teacher_model names no weights; give the authors' raft-small.pth, or set video.teacher=dis, "
            'or video.distillation=0 to learn from the images alone'
        )
    # Without distillation nobody reads the flow of the cache; the fastest will do.
    preset = 'medium' if video.distillation else 'ultrafast'
    backend = video.teacher if video.distillation else 'dis'
    teacher = FlowConfig(backend, preset, video.height, video.width, video.teacher_model)
    return cached_clips(
        find_clips(roots_of(video.root), video.split, video.topic or None),
        Path(video.cache).expanduser() if video.cache else out / 'flow_cache',
        create_flow(teacher, device),
        flow_fingerprint(teacher),
        (video.height, video.width),
        video.largest_gap,
    )


def make_network(config: FlowTrainConfig, pairs: RenderedFlowPairs) -> TrainedPWCNet:
    """Return the network, from the file that the options name or with random weights from the seed.

    Args:
        config: All options.
        pairs: What new weights are fitted to before they learn.

    Raises:
        ModelError: The file is missing or of another kind.

    """
    torch.manual_seed(config.run.seed)
    network = TrainedPWCNet()
    if config.start.model:
        network.load_state_dict(load_flow_network(config.start.model, 'pwcnet').state_dict())
    else:
        batch = [pairs[number * config.training.pairs_per_scene] for number in range(START_SCENES)]
        network.start(network_input(torch.stack([image for pair in batch for image in pair[:2]])))
    return network


def make_task(config: FlowTrainConfig, clips: Sequence[CachedClip], group: Processes, device: torch.device) -> FlowTask:
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
    return FlowTask(network, data, config, group, device)


def _metadata(config: FlowTrainConfig, clips: Sequence[CachedClip]) -> dict[str, str]:
    training = config.training
    return {
        'training': 'rendered scenes and video' if clips else 'rendered scenes',
        'steps': str(training.steps),
        'batch': str(training.batch),
        'height': str(training.height),
        'width': str(training.width),
        'seed': str(config.run.seed),
    }


def run_flow_training(config: FlowTrainConfig, out: Path, command: Sequence[str]) -> Path | None:
    """Train, or go on with the run that lies in ``out``.

    Args:
        config: All options.
        out: Folder of the run.
        command: The arguments of the program, for the card.

    Returns:
        The model file; None in a process that does not lead.

    Raises:
        UserError: Options, footage, files or the folder are wrong, or the training diverged.

    """
    # Read now, so that a mistake in them is not found after the training.
    pairs = folder_samples(Path(config.validation.folder).expanduser()) if config.validation.folder else []
    with session(out, config.run.device, config.run.threads) as (group, device):
        # All batches have one size, for which cuDNN may choose its fastest kernels.
        torch.backends.cudnn.benchmark = device.type == 'cuda'
        return repaired(lambda: _train(config, out, command, pairs, group, device), alone=group.count == 1)


def _train(
    config: FlowTrainConfig,
    out: Path,
    command: Sequence[str],
    pairs: Sequence[Sample],
    group: Processes,
    device: torch.device,
) -> Path | None:
    clips = open_video(config, out, device)
    task = make_task(config, clips, group, device)
    fit([task], out, identity(config), LoopOptions(config.run.checkpoint_every, config.run.picture_every), group)
    if not group.leads:
        return None
    network = task.model()
    scenes = compare(network, task.held_out, device)
    measured = [average(scenes, f'{len(scenes)} rendered pairs, held out'), *compare(network, pairs, device)]
    model = out / f'{config.name}.safetensors'
    frames = {clip.name: clip.frame_count for clip in clips}
    card = write_card(config, command, frames, measured)
    save_network(network.cpu(), model, _metadata(config, clips))
    model.with_suffix('.md').write_text(card, encoding='utf-8')
    return model
