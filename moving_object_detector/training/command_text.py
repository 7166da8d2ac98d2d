"""The command of a run and what it changed, as the cards say them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from moving_object_detector.common.options import options_of, value_of


def changed_options(config: object) -> dict[str, Any]:
    """Return the options that differ from their defaults, by their dotted names."""
    return {
        option.name: value_of(config, option.name)
        for option in options_of(type(config))
        if value_of(config, option.name) != option.default
    }


def command_lines(program: str, command: Sequence[str], changed: Mapping[str, Any]) -> list[str]:
    """Return the end of a card, lines of Markdown.

    Args:
        program: ``train`` or ``train flow``.
        command: Its arguments.
        changed: Options to list, by name.

    """
    lines = ['', 'Command:', '', f'    ros2 run moving_object_detector {program} {shlex.join(command)}', '']
    if changed:
        lines += [
            'Options other than the defaults:',
            '',
            *(f'    {name}: {value}' for name, value in changed.items()),
            '',
        ]
    return lines
