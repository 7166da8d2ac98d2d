"""Files that are there whole or not at all; files that come with the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from moving_object_detector.common.errors import ModelError, UserError

PACKAGE = 'moving_object_detector'
DEFAULT_MODEL = 'generator.safetensors'
DEFAULT_INPAINTER = 'inpainter.safetensors'


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write: a reader sees the old one or the new one, also after a kill or a power failure.

    Args:
        path: The file; its folder is made where missing. When the context is left by an error it stays as it was.

    Raises:
        OSError: The file cannot be written.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file as :func:`atomic_file` does.

    Raises:
        UserError: The file cannot be written.

    """
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}; give a path in a folder you own') from error


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits; raises OSError."""
    return sha256(path.read_bytes()).hexdigest()


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: It cannot be made.

    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path} cannot be made a folder: {error.strerror}; give another path') from error


def share_folder() -> Path:
    """Return the folder with ``config/``, ``launch/`` and ``models/``: the source tree's, else the installed one.

    Both hold the package's ``package.xml``, by which they are told from any other folder with a ``models/``.

    Raises:
        ModelError: Neither is there.

    """
    package = Path(__file__).resolve().parents[1]
    candidates = [package.parent]
    # <prefix>/lib/pythonX.Y/site-packages/moving_object_detector -> <prefix>/share/moving_object_detector
    candidates += [parent / 'share' / PACKAGE for parent in package.parents[:6]]
    for folder in candidates:
        if (folder / 'models').is_dir() and (folder / 'package.xml').is_file():
            return folder
    raise ModelError(f'the folder share/{PACKAGE} with models/ is missing beside {package}; install the package again')


def generator_path(model: str) -> Path:
    """Return the generator's file that the option ``model`` names; empty: the one that comes with the package."""
    return Path(model).expanduser() if model else default_model()


def default_inpainter() -> Path:
    """Return the inpainter that comes with the package."""
    return share_folder() / 'models' / DEFAULT_INPAINTER


def default_model() -> Path:
    """Return the generator that comes with the package."""
    return share_folder() / 'models' / DEFAULT_MODEL
