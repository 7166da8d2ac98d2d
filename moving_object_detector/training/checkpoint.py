"""Checkpoints that a killed run goes on from."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import atomic_file
from moving_object_detector.common.options import flatten


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state; a reader sees the old file or the new one, never half of it.

    Args:
        path: The file; its folder is made where missing.
        state: Has ``options``, by which :func:`load_checkpoint` knows the run.

    Raises:
        UserError: The file cannot be written.

    """
    try:
        with atomic_file(path) as file:
            torch.save(state, file)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}; give a path in a folder you own') from error
    except RuntimeError as error:
        # What torch.save makes of a full disk.
        raise UserError(f'{path} cannot be written: {error}; is the disk full?') from error


def load_checkpoint(path: Path, options: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run with the same options, or None where there is none yet.

    Raises:
        UserError: The file is damaged, or of a run with other options.

    """
    if not path.exists():
        return None
    try:
        # Onto the CPU: each process brings it to a device of its own, and a GPU's run may go on without one.
        state: dict[str, Any] = torch.load(path, map_location='cpu', weights_only=True)
        found = dict(state['options'])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f'{path} is no checkpoint that can be read; remove it to start anew') from error
    there, here = dict(flatten(found)), dict(flatten(options))
    changed = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if changed:
        named = ', '.join(f'{name} {there.get(name)} there and {here.get(name)} now' for name in changed)
        raise UserError(f'{path} is of a run with other options ({named}); match them, or remove it to start anew')
    return state
