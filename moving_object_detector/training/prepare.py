"""From options to the parts of a training run: networks, clips with cached flow, stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from moving_object_detector.common.files import default_model, file_hash
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.detection.build import create_flow
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import FlowInput, load_network
from moving_object_detector.training.cached_pairs import CachedPairs, PairOptions
from moving_object_detector.training.config import GameConfig, InpainterConfig, RenderedConfig, TrainConfig
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.flow_cache import CachedClip, cached_clips
from moving_object_detector.training.game import Game
from moving_object_detector.training.inpainter_stage import InpainterStage
from moving_object_detector.training.loop import Task
from moving_object_detector.training.rendered_pairs import PairOptions as RenderedOptions
from moving_object_detector.training.rendered_pairs import RenderedPairs
from moving_object_detector.training.rendered_stage import RenderedStage

# Undoes the softmax's divisor, which would make supervised learning ten times slower.
SUPERVISED_GAIN = 10.0


def flow_fingerprint(config: FlowConfig) -> str:
    """Return a text that differs between any two backends, settings or weights that give different flow."""
    parts = [config.backend, f'{config.height}x{config.width}']
    if config.backend == 'dis':
        parts.append(config.preset)
    else:
        weights = Path(config.model).expanduser()
        parts += [
            str(config.iterations),
            file_hash(weights) if weights.is_file() else '',
        ]
    return ' '.join(parts)


def open_clips(config: TrainConfig, out: Path, device: torch.device, *, progress: bool = True) -> list[CachedClip]:
    """Find the footage and compute its flow, or what is missing of it; none where no footage is given.

    Raises:
        UserError: Something about the footage, the flow backend or the cache is wrong.

    """
    data = config.data
    if not data.root:
        return []
    roots = [root.strip() for root in data.root.split(',') if root.strip()]
    return cached_clips(
        find_clips(roots, data.split, data.topic or None),
        Path(data.cache).expanduser() if data.cache else out / 'flow_cache',
        create_flow(config.flow, device),
        flow_fingerprint(config.flow),
        (data.height, data.width),
        data.largest_gap,
        progress=progress,
    )


def make_networks(config: TrainConfig) -> tuple[Generator, Inpainter]:
    """Return both players, from the files that the options name or with random weights from the seed.

    Raises:
        ModelError: A file is missing or of another kind.

    """
    torch.manual_seed(config.run.seed)
    generator, inpainter = Generator(), Inpainter()
    if config.start.model:
        path = default_model() if config.start.model == 'default' else Path(config.start.model).expanduser()
        generator.load_state_dict(load_network(path, 'generator')[0].state_dict())
    elif config.rendered.steps:
        with torch.no_grad():
            generator.conv17.gamma.fill_(SUPERVISED_GAIN)
    if config.start.inpainter:
        path = Path(config.start.inpainter).expanduser()
        inpainter.load_state_dict(load_network(path, 'inpainter')[0].state_dict())
    return generator, inpainter


def make_stages(
    config: TrainConfig,
    networks: tuple[Generator, Inpainter],
    clips: Sequence[CachedClip],
    group: Processes,
    device: torch.device,
    candidate: Callable[[int, nn.Module], object],
) -> list[Task]:
    """Return the stages of a run in their order; those on footage only where there is some.

    The inpainter, when it alone is trained, does with rendered scenes.

    Raises:
        UserError: A batch cannot be shared evenly by the processes, or the clips are too short.

    """
    settings: list[RenderedConfig | InpainterConfig | GameConfig] = [config.rendered]
    if clips or config.inpainter_alone:
        settings += [config.inpainter]
    if clips:
        settings += [config.game]
    for one in settings:
        if one.steps:
            # Now, and not when the stage begins: a run may go on with another number of processes.
            group.share(one.batch)
    generator, inpainter = networks
    for network in networks:
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        group.share_weights(network.parameters())
    size = (config.network.height, config.network.width)
    flow_input = cast('FlowInput', config.network.flow_input)
    shared: dict[str, Any] = {
        'group': group,
        'device': device,
        'workers': config.data.workers,
        'autocast': _autocast(device, config.run.precision),
    }
    scenes = RenderedPairs(
        config.run.seed,
        RenderedOptions(
            size=size,
            largest_gap=config.data.largest_gap,
            flights=config.rendered.flights,
            still_flights=config.rendered.still_flights,
        ),
        partial(create_flow, config.flow, torch.device('cpu')),
    )
    stages: list[Task] = [RenderedStage(generator, scenes, config.rendered, flow_input=flow_input, **shared)]
    if clips or config.inpainter_alone:
        options = PairOptions(size, config.data.largest_gap, config.game.least_crop)
        pairs = CachedPairs(clips, 2 * config.run.seed, options) if clips else scenes
        stages.append(
            InpainterStage(
                inpainter, pairs, config.inpainter, target=config.game.target, seed=config.run.seed, **shared
            )
        )
    if clips:
        options = PairOptions(
            size,
            config.data.largest_gap,
            config.game.least_crop,
            global_motion=config.game.global_motion,
            second_gap=config.game.consistency > 0,
        )
        stages.append(
            Game(
                generator,
                inpainter,
                CachedPairs(clips, 2 * config.run.seed + 1, options),
                config.game,
                flow_input=flow_input,
                seed=config.run.seed,
                candidate=candidate,
                candidates=config.run.candidates,
                **shared,
            )
        )
    return stages


def _autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[None]]:
    return partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == 'bfloat16')
