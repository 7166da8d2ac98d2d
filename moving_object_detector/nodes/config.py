"""The parameters of the node ``detect``: the detector's options and its own; their table."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from moving_object_detector.common.options import Option, option, options_of
from moving_object_detector.detection.config import DetectorConfig, LoadConfig
from moving_object_detector.media.arguments import BLACK, WHITE
from moving_object_detector.media.pixels import LARGEST_SIDE, SMALLEST_SIDE

_TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string'}
_HEAD = '| name | type | default | takes | at run time | description |\n|---|---|---|---|---|---|'


@dataclass(frozen=True)
class InputConfig:
    """How images come in."""

    timeout: float = option(
        3.0, 'Seconds without an image after which the node says why and finishes what waits.', low=0.1, high=3600.0
    )
    reliability: str = option(
        'auto',
        'auto: reliable where all publishers of the images offer it, else best effort, followed as they change.',
        choices=('auto', 'reliable', 'best_effort'),
    )
    queue: int = option(30, 'Images that may wait; the oldest is dropped and counted.', low=1, high=1000)
    max_side: int = option(
        LARGEST_SIDE, 'Longest side of an image that is accepted, pixels.', low=SMALLEST_SIDE, high=65536
    )
    black: int = option(0, BLACK, low=0, high=65535)
    white: int = option(0, WHITE, low=0, high=65535)


@dataclass(frozen=True)
class NodeConfig(DetectorConfig):
    """All parameters of the node."""

    transport: str = option(
        'auto',
        'raw: sensor_msgs/Image on `image`; compressed: CompressedImage on `image`/compressed; auto: what is '
        'published, raw first.',
        choices=('auto', 'raw', 'compressed'),
    )
    estimate: str = option(
        'refined',
        'refined: the whole window, late by window.future x window.stride frames; zero_lag: at once, from earlier '
        'frames only.',
        choices=('refined', 'zero_lag'),
        runtime=True,
    )
    load: LoadConfig = field(default_factory=LoadConfig)
    autostart: bool = option(True, 'Configure and activate at the start.')
    input: InputConfig = field(default_factory=InputConfig)


def _takes(declared: Option) -> str:
    if declared.choices:
        return ', '.join(f'`{choice}`' for choice in declared.choices)
    if declared.low is None or declared.high is None:
        return ''
    return f'{declared.low:g} to {declared.high:g}'


def _default(declared: Option) -> str:
    # As it is written in YAML.
    return json.dumps(declared.default) if declared.kind is bool or declared.default == '' else str(declared.default)


def _row(declared: Option) -> str:
    cells = (
        f'`{declared.name}`',
        _TYPES[declared.kind],
        f'`{_default(declared)}`',
        _takes(declared),
        'yes' if declared.runtime else '',
        declared.description.replace('|', '\\|'),
    )
    return '| ' + ' | '.join(cells) + ' |'


def parameter_table() -> str:
    """Return all parameters of the node as a Markdown table, in the order of their declaration."""
    return '\n'.join([_HEAD, *(_row(declared) for declared in options_of(NodeConfig))])
