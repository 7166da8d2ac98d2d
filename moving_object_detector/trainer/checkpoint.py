"""Checkpoints that a killed run goes on from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from moving_object_detector.errors import UserError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state; a reader sees the old file or the new one, never half of it.

    Args:
        path: The file; its folder is made where missing.
        state: Has ``options``, by which :func:`load_checkpoint` knows the run.

    Raises:
        UserError: The file cannot be written.

    """
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            torch.save(state, file)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}; give a path in a folder you own') from error


def load_checkpoint(path: Path, options: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run with the same options, or None where there is none yet.

    Raises:
        UserError: The file is damaged, or of a run with other options.

    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        found = state['options']
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(f'{path} is no checkpoint that can be read; remove it to start anew') from error
    if found != options:
        raise UserError(f'{path} is of a run with other options ({found}); remove it or match them')
    return state
