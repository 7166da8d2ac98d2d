"""Model cards: what a model is, what it was trained on, by which command, how good it is."""

from __future__ import annotations

import dataclasses
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from moving_object_detector.common.options import options_of, value_of
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.training.config import FlowTrainConfig, TrainConfig
from moving_object_detector.training.flow_errors import Errors
from moving_object_detector.training.selection import Judgement

PATHS: Final = frozenset(
    {
        'data.root', 'data.cache', 'rendered.teacher', 'flow.model', 'start.model', 'start.inpainter',
        'validation.folder', 'teacher.model', 'teacher.flow.model',
    }
)  # fmt: skip
"""Options that say where files are on this machine, which no model or card tells."""
UNLABELLED: Final = 'No annotated frame was used.'


def as_text(config: TrainConfig) -> dict[str, str]:
    """Return the options as text, for a model file's metadata."""
    names = (option.name for option in options_of(type(config)) if option.name not in PATHS)
    return {name: str(value_of(config, name)) for name in names}


def changed_options(config: object) -> dict[str, Any]:
    """Return the options that differ from their defaults, by their dotted names, less paths."""
    told = [option for option in options_of(type(config)) if option.name not in PATHS]
    values = {option.name: (value_of(config, option.name), option.default) for option in told}
    return {name: value for name, (value, default) in values.items() if value != default}


def identity(config: TrainConfig, fingerprint: str, clips: Sequence[str] = ()) -> dict[str, Any]:
    """Return what decides the weights, by which a checkpoint knows its run.

    Footage says by the ``clips``' keys what content and flow it is; rendered pairs by the ``fingerprint`` of the flow.
    """
    plain = dataclasses.asdict(config)
    data, run = plain['data'], plain['run']
    plain['data'] = {key: data[key] for key in ('height', 'width', 'largest_gap')} | {'clips': list(clips)}
    plain['flow'] = fingerprint if config.rendered.steps else ''
    plain['run'] = {key: run[key] for key in ('seed', 'precision', 'candidates')}
    # The keys of the targets say all of the teacher.
    del plain['teacher']['model'], plain['teacher']['flow'], plain['name']
    return plain


def flow_identity(config: FlowTrainConfig) -> dict[str, Any]:
    """Return the same of a training of PWC-Net."""
    plain = dataclasses.asdict(config)
    plain['run'] = {key: plain['run'][key] for key in ('seed', 'precision')}
    del plain['name'], plain['validation']
    return plain


def _card(
    name: str,
    rows: Sequence[tuple[str, str]],
    text: Sequence[str],
    program: str,
    command: Sequence[str],
    config: object,
) -> str:
    """Return a card as Markdown: a table of rows, some lines, the command, the options that were changed."""
    lines = [f'# {name}.safetensors', '', '| | |', '|---|---|', *(f'| {key} | {value} |' for key, value in rows)]
    lines += ['', *text, '', 'Command:', '', f'    ros2 run moving_object_detector {program} {shlex.join(command)}', '']
    if changed := [f'    {key}: {value}' for key, value in changed_options(config).items()]:
        lines += ['Options other than the defaults:', '', *changed, '']
    return '\n'.join(lines)


def _made_with() -> str:
    return f'PyTorch {torch.__version__}, Python {platform.python_version()}'


def _footage(clips: Mapping[str, int]) -> str:
    return f'{len(clips)} clips, {sum(clips.values())} frames: {", ".join(clips)}'


def _flow(flow: FlowConfig) -> str:
    return f'{flow.backend} at {flow.height}x{flow.width}'


def write_card(
    config: TrainConfig,
    command: Sequence[str],
    clips: Mapping[str, int],
    judgements: Mapping[str, Judgement],
    chosen: str,
) -> str:
    """Return the card of a generator; ``clips`` are names and numbers of frames."""
    network, game, stage = config.network, config.game, config.teacher
    seen = f'{network.height}x{network.width} RGB in [-0.5, 0.5]; `{network.flow_input}` flow by {_flow(config.flow)}'
    channels = f'{network.channels} channels in its first layer'
    rows = [('network', f'mask generator of the CVPR 2019 paper, {channels}, float32'), ('input', seen)]
    if config.start.model:
        rows.append(('started from', config.start.model))
    teacher = config.rendered.teacher
    masks = 'exact masks' + (f' and, as much, those of `{Path(teacher).name}`' if teacher else '')
    rows.append(('rendered scenes', f'{config.rendered.steps} steps of {config.rendered.batch} pairs, {masks}'))
    if clips:
        rows += [
            ('unlabelled video', _footage(clips)),
            ('inpainter on boxes', f'{config.inpainter.steps} steps of {config.inpainter.batch} pairs'),
            ('adversarial game', f'{game.steps} steps of {game.batch} pairs, seed {config.run.seed}'),
        ]
    if clips and stage.steps:
        masks = f'{stage.rendered:.0%} of them rendered; masks by `{Path(stage.model).name}` of {_flow(stage.flow)}'
        rows.append(('teacher', f'{stage.steps} steps of {stage.batch} pairs, {masks}'))
    if judgements:
        rows.append(('chosen', f'candidate {chosen}, by {config.run.select}'))
    rows.append(('made with', _made_with()))
    text = [UNLABELLED]
    if judgements:
        text += ['', '| candidate | agreement between gaps | empty masks |', '|---|---|---|']
        text += [f'| {name} | {judged.agreement:.3f} | {judged.empty:.3f} |' for name, judged in judgements.items()]
    return _card(config.name, rows, text, 'train', command, config)


def write_inpainter_card(config: TrainConfig, command: Sequence[str], clips: Mapping[str, int]) -> str:
    """Return the card of an inpainter that was trained alone, on clips or, without any, on rendered scenes."""
    stage, size = config.inpainter, f'{config.network.height}x{config.network.width}'
    rendered = 'scenes rendered by this package (`synthetic/`), nothing else'
    rows = [
        ('network', 'flow inpainter of the CVPR 2019 paper, 3,388,610 parameters'),
        ('input', f'{size} RGB in [-0.5, 0.5]; flow by {_flow(config.flow)}'),
        ('trained on', f'unlabelled video, {_footage(clips)}' if clips else rendered),
        ('objective', 'Charbonnier error of the flow under random boxes'),
        ('steps', f'{stage.steps} of {stage.batch} pairs, Adam {stage.learning_rate:g}, seed {config.run.seed}'),
        ('made with', _made_with()),
    ]
    return _card(f'{config.name}-inpainter', rows, [UNLABELLED], 'train', command, config)


def write_flow_card(config: FlowTrainConfig, command: Sequence[str], measured: Sequence[Errors]) -> str:
    """Return the card of a flow network with its end-point errors."""
    training = config.training
    pairs = f'{training.steps} steps of {training.batch} at {training.height}x{training.width}, seed {config.run.seed}'
    rows = [
        ('network', 'PWC-Net (DenseNet decoder, context network), 9,374,340 parameters, float32'),
        ('input', 'BGR in [0, 1], height and width multiples of 64'),
        ('rendered pairs', f'{pairs}; exact flow, no real image'),
    ]
    if config.start.model:
        rows.append(('started from', config.start.model.rsplit('/', 1)[-1]))
    rows.append(('made with', f'{_made_with()}, {config.run.precision}'))
    errors = ['| end-point error, pixels | this network | DIS medium | nothing moves |', '|---|---|---|---|']
    errors += [f'| {row.name} | {row.network:.2f} | {row.dis:.2f} | {row.still:.2f} |' for row in measured]
    return _card(config.name, rows, errors, 'train flow', command, config)
