"""Checkpoints that a killed run goes on from, each with a checksum, the last two kept."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import Any, Final

import torch

from moving_object_detector.common.errors import UserError, foreign, shown
from moving_object_detector.common.files import atomic_file, open_file
from moving_object_detector.common.options import flatten

MARK: Final = b'checkpoint 1 '
CHECKSUM_BYTES: Final = 32
NAMED_OPTIONS: Final = 8
_DAMAGES: Final = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError)
_log = logging.getLogger(__name__)


def earlier(path: Path) -> Path:
    """Return where the checkpoint before the one in ``path`` is kept."""
    return path.with_name(f'{path.stem}-before{path.suffix}')


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state, which has ``options`` by which it is known; the one before is kept. Raises UserError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        with atomic_file(path) as file:
            file.write(content)
            file.write(MARK + hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest())
            file.flush()
            if path.is_file():
                with atomic_file(earlier(path), durable=False) as before:
                    before.write(path.read_bytes())
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror}; free some space, or give a path in a folder you own'
        ) from error


def load_checkpoint(path: Path, options: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run with the same options, or None where there is none yet.

    Where the last checkpoint is damaged, the one before it is read, with a warning. Raises UserError where both are,
    or the run had other options.
    """
    if not path.exists():
        return None
    for file in filter(Path.exists, (path, earlier(path))):
        try:
            state = _read(file)
        except _DAMAGES as error:
            _log.warning('%s is damaged (%s); it is not used', foreign(file, 300), foreign(repr(error)))
            continue
        if file != path:
            _log.warning('the run goes on from the checkpoint before, %s', foreign(file, 300))
        _compare(file, state['options'], options)
        return state
    raise UserError(f'{path} is no checkpoint that can be read; remove it to start anew')


def _read(path: Path) -> dict[str, Any]:
    """Read a state; raises one of ``_DAMAGES``."""
    with open_file(path) as file:
        whole = file.read()
    content, tail = memoryview(whole)[: -CHECKSUM_BYTES - len(MARK)], whole[-CHECKSUM_BYTES - len(MARK) :]
    if not tail.startswith(MARK):
        raise ValueError('cut short, or of another version')
    if MARK + hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest() != tail:
        raise ValueError('its checksum is wrong')
    # Onto the CPU: each process brings it to a device of its own, and a GPU's run may go on without one.
    state = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    return {**state, 'options': dict(state['options'])}


def _compare(path: Path, found: dict[str, Any], options: dict[str, Any]) -> None:
    there, here = dict(flatten(found)), dict(flatten(options))
    changed = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if changed:
        named = ', '.join(f'{name} {shown(there.get(name))} there and {shown(here.get(name))} now'
                          for name in changed[:NAMED_OPTIONS])  # fmt: skip
        raise UserError(f'{path} is of a run with other options ({named}); match them, or remove it to start anew')
