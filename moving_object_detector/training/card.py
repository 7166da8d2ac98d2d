"""Model cards: what a model is, what it was trained on, by which command."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from moving_object_detector.common.options import options_of, value_of
from moving_object_detector.training.command_text import changed_options, command_lines
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.prepare import flow_fingerprint
from moving_object_detector.training.selection import Judgement


def write_card(
    config: TrainConfig,
    command: Sequence[str],
    clips: Mapping[str, int],
    judgements: Mapping[str, Judgement],
    chosen: str,
    *,
    ideal: bool = False,
) -> str:
    """Return the card of a generator as Markdown.

    Args:
        config: All options of the run.
        command: The arguments of the command that started it.
        clips: Names of the clips it was trained on, and their frames.
        judgements: Of each candidate.
        chosen: Which candidate became the model.
        ideal: Whether the truth entered the training.

    """
    import torch

    size = f'{config.network.height}x{config.network.width}'
    flow = f'{config.flow.backend} at {config.flow.height}x{config.flow.width}'
    rows = [
        ('network', 'mask generator of the CVPR 2019 paper, 1,451,062 parameters, float32'),
        ('input', f'{size} RGB in [-0.5, 0.5]; `{config.network.flow_input}` flow by {flow}'),
        ('rendered scenes', f'{config.rendered.steps} steps of {config.rendered.batch} pairs, exact masks'),
    ]
    if clips:
        frames = sum(clips.values())
        rows += [
            (
                'annotated video' if ideal else 'unlabelled video',
                f'{len(clips)} clips, {frames} frames: {", ".join(clips)}',
            ),
            ('inpainter on boxes', f'{config.inpainter.steps} steps of {config.inpainter.batch} pairs'),
            ('adversarial game', f'{config.game.steps} steps of {config.game.batch} pairs, seed {config.run.seed}'),
        ]
    if judgements:
        rows.append(('chosen', f'candidate {chosen}, by {config.run.select}'))
    if config.start.model:
        rows.insert(2, ('started from', config.start.model))
    rows.append(('made with', f'PyTorch {torch.__version__}, Python {platform.python_version()}'))
    lines = [f'# {config.name}.safetensors', '', '| | |', '|---|---|']
    lines += [f'| {name} | {text} |' for name, text in rows]
    if ideal:
        lines += ['', '**The truth entered this training** (ideal conditions, table 1 of the paper). Not for use.']
    elif config.run.select == 'truth' and clips:
        lines += ['', '**Annotations chose this model** among its candidates (run.select=truth).']
    else:
        lines += ['', 'No annotated frame was used.']
    if judgements:
        lines += ['', '| candidate | agreement between gaps | empty masks | J of the average |', '|---|---|---|---|']
        for name, judged in judgements.items():
            overlap = 'not looked at' if judged.jaccard is None else f'{judged.jaccard:.3f}'
            lines.append(f'| {name} | {judged.agreement:.3f} | {judged.empty:.3f} | {overlap} |')
    return '\n'.join([*lines, *command_lines('train', command, _told(config))])


def write_inpainter_card(config: TrainConfig, command: Sequence[str], clips: Mapping[str, int]) -> str:
    """Return the card of an inpainter that was trained alone, as Markdown.

    Args:
        config: All options of the run.
        command: The arguments of the command that started it.
        clips: Names of the clips it was trained on, and their frames; none: rendered scenes.

    """
    import torch

    stage, flow = config.inpainter, f'{config.flow.backend} at {config.flow.height}x{config.flow.width}'
    target = "flow without the camera's motion" if config.game.target == 'residual' else 'flow'
    footage = f'unlabelled video, {len(clips)} clips, {sum(clips.values())} frames: {", ".join(clips)}'
    rows = [
        ('network', 'flow inpainter of the CVPR 2019 paper, 3,388,610 parameters'),
        ('input', f'{config.network.height}x{config.network.width} RGB in [-0.5, 0.5]; {target} by {flow}'),
        ('trained on', footage if clips else 'scenes rendered by this package (`synthetic/`), nothing else'),
        ('objective', 'Charbonnier error of the flow under random boxes'),
        ('steps', f'{stage.steps} of {stage.batch} pairs, Adam {stage.learning_rate:g}, seed {config.run.seed}'),
        ('made with', f'PyTorch {torch.__version__}, Python {platform.python_version()}'),
    ]
    lines = [f'# {config.name}-inpainter.safetensors', '', '| | |', '|---|---|']
    lines += [f'| {name} | {text} |' for name, text in rows]
    lines += ['', 'No annotated frame was used.']
    return '\n'.join([*lines, *command_lines('train', command, _told(config))])


def _told(config: TrainConfig) -> dict[str, Any]:
    return {name: value for name, value in changed_options(config).items() if not _is_path(name)}


def _is_path(name: str) -> bool:
    return name in {'data.root', 'data.cache', 'flow.model', 'start.model', 'start.inpainter'}


def as_text(config: TrainConfig) -> dict[str, str]:
    """Return the options as text, for a model file's metadata."""
    flat = {option.name: str(value_of(config, option.name)) for option in options_of(type(config))}
    return {name: value for name, value in flat.items() if not _is_path(name)}


def identity(config: TrainConfig, clips: Sequence[str] = ()) -> dict[str, Any]:
    """Return what decides the weights, by which a checkpoint knows its run; not how the run is shown or shared out.

    Args:
        config: All options.
        clips: Keys of the clips' content and flow, which say more than where the footage lies.

    """
    plain = dataclasses.asdict(config)
    plain['data'] = {key: plain['data'][key] for key in ('height', 'width', 'largest_gap')} | {'clips': list(clips)}
    # Footage says by its keys what its flow is; rendered pairs have no key.
    plain['flow'] = flow_fingerprint(config.flow) if config.rendered.steps else ''
    plain['run'] = {key: plain['run'][key] for key in ('seed', 'precision', 'candidates')}
    plain.pop('name')
    return plain
