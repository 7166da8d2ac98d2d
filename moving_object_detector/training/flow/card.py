"""The card of a flow network: what it was trained on, by which command, how good it is."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

from moving_object_detector.training.command_text import changed_options, command_lines
from moving_object_detector.training.flow.config import FlowTrainConfig
from moving_object_detector.training.flow.validate import Errors

_PATHS = frozenset({'video.root', 'video.cache', 'video.teacher_model', 'validation.folder', 'start.model'})


def write_card(
    config: FlowTrainConfig, command: Sequence[str], clips: Mapping[str, int], measured: Sequence[Errors]
) -> str:
    """Return the card as Markdown.

    Args:
        config: All options of the run.
        command: The arguments of the command that started it.
        clips: Names of the real clips it was trained on, and their frames.
        measured: End-point errors of the model.

    """
    import torch

    training, video = config.training, config.video
    size = f'{training.height}x{training.width}'
    rows = [
        ('network', 'PWC-Net (DenseNet decoder, context network), 9,374,340 parameters, float32'),
        ('input', 'BGR in [0, 1], height and width multiples of 64'),
        (
            'rendered pairs',
            f'{training.steps} steps of {training.batch} at {size}, seed {config.run.seed}; exact flow, no real image',
        ),
    ]
    if config.start.model:
        rows.append(('started from', config.start.model.rsplit('/', 1)[-1]))
    if clips:
        frames = sum(clips.values())
        rows.append(
            (
                'unlabelled video',
                f'{video.batch} pairs a step of {len(clips)} clips, {frames} frames: {", ".join(clips)}',
            )
        )
        if video.distillation:
            rows.append(('teacher', f'{video.teacher} at {video.height}x{video.width}, weight {video.distillation:g}'))
        if video.census:
            rows.append(('census', f'weight {video.census:g}, smoothness {video.smoothness:g} of it'))
    rows.append(
        ('made with', f'PyTorch {torch.__version__}, Python {platform.python_version()}, {config.run.precision}')
    )
    lines = [f'# {config.name}.safetensors', '', '| | |', '|---|---|']
    lines += [f'| {name} | {text} |' for name, text in rows]
    changed = {name: value for name, value in changed_options(config).items() if name not in _PATHS}
    lines += ['', *error_table(measured), *command_lines('train flow', command, changed)]
    return '\n'.join(lines)


def error_table(measured: Sequence[Errors]) -> list[str]:
    """Return the end-point errors as the lines of a Markdown table."""
    lines = ['| end-point error, pixels | this network | DIS medium | nothing moves |', '|---|---|---|---|']
    lines += [f'| {row.name} | {row.network:.2f} | {row.dis:.2f} | {row.still:.2f} |' for row in measured]
    return lines
