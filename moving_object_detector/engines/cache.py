"""Built engines on disk: a cache that can be deleted, damaged, read-only or full without harm.

Trust: the reader of OpenVINO is not made for hostile files. So only what this user has written is loaded: the file and
its folder must belong to the user and be writable by nobody else, and the file begins with the hash of its key and its
content. It is read into memory once, checked there and loaded from there. Never copy such files from somebody else;
models are exchanged as safetensors.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from moving_object_detector.common.files import PACKAGE, atomic_file, user_folder

MOST_FILES: Final = 16
"""The ones not used for longest are removed beyond this."""
INTERVAL: Final = 15.0
"""Seconds from one sign of life of a build to the next."""
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

Key = Mapping[str, str]
"""What was asked for (label, engine, weights, shapes, precision, device) and what builds it (versions, code)."""
_log = logging.getLogger(__name__)


class _UnusableError(Exception):
    """Why a cached engine is not loaded or not written."""


class EngineCache:
    """Keeps built engines as files; whatever goes wrong is a line in the log and means building in memory.

    The folder is ``engines`` in the user's cache folder unless given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_folder('cache') / 'engines'

    def path(self, key: Key) -> Path:
        """Return the file of an engine."""
        return self.folder / f'{key["label"].replace(" ", "_")}-{key["engine"]}-{_digest(key).hex()[:16]}.engine'

    def load(self, key: Key) -> bytes | None:
        """Return an engine, or None where it has to be built."""
        path = self.path(key)
        try:
            payload = _read(path, key)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning('%s cannot be read (%s); the engine is built anew', path, error.strerror)
            return None
        except _UnusableError as reason:
            _log.warning('%s is not used: %s; the engine is built anew', path, reason)
            return None
        _log.info('%s: loaded from %s', key['label'], path)
        with suppress(OSError):
            os.utime(path)  # it is in use: the last to be removed
        return payload

    def store(self, key: Key, payload: bytes) -> bool:
        """Keep an engine for the next start; return whether it is kept."""
        path = self.path(key)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(self.folder.stat(), 'its folder')
            with atomic_file(path) as file:
                # Else a umask by which the group may write would make it a file that is not loaded.
                os.fchmod(file.fileno(), 0o600)
                file.write(_digest(key, payload) + payload)
        except OSError as error:
            _log.warning('%s cannot be written (%s); the engine is built again at the next start', path, error.strerror)
            return False
        except _UnusableError as reason:
            _log.warning('%s is not written: %s; the engine is built again at the next start', path, reason)
            return False
        with suppress(OSError):  # another process may remove them at the same time
            self._remove_oldest()
        return True

    def _remove_oldest(self) -> None:
        files = sorted(self.folder.glob('*.engine'), key=lambda file: file.stat().st_mtime)
        for file in files[:-MOST_FILES]:
            file.unlink(missing_ok=True)


def _digest(key: Key, payload: bytes = b'') -> bytes:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode() + payload).digest()


def _check_owner(status: os.stat_result, what: str) -> None:
    if status.st_uid != os.getuid():
        raise _UnusableError(f'{what} belongs to another user')
    if status.st_mode & OTHERS_WRITE:
        raise _UnusableError(f'{what} can be written by other users (chmod go-w)')


def _read(path: Path, key: Key) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        raise _UnusableError('it is not a file')
    with path.open('rb') as file:
        _check_owner(os.fstat(file.fileno()), 'it')
        _check_owner(path.parent.stat(), 'its folder')
        digest, payload = file.read(hashlib.sha256().digest_size), file.read()
    if digest != _digest(key, payload):
        raise _UnusableError('it is damaged, or was made for something else')
    return payload


def code_hash(module: nn.Module, *others: object) -> str:
    """Return the SHA-256 of this project's source files that a module, its parts and other objects are written in."""
    files = set()
    for kind in {type(each) for each in (*module.modules(), *others)}:
        source = inspect.getsourcefile(kind) if kind.__module__.startswith(PACKAGE) else None
        files.add(Path(source) if source else None)
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file is not None):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def shapes_text(examples: Iterable[Tensor]) -> str:
    """Return the sizes of inputs of any batch as text."""
    return ' '.join('x'.join(map(str, ('n', *each.shape[1:]))) for each in examples)


@contextmanager
def building(what: str, library: str, interval: float = INTERVAL) -> Iterator[None]:
    """Log that an engine is built, that it still is, and how long it took; that last only if it succeeded.

    What takes longer than ``interval`` is a warning, so that it shows where nobody has set up logging.
    """
    started = time.monotonic()
    over = threading.Event()

    def report() -> None:
        while not over.wait(interval):
            _log.warning('%s: %s is still building, %.0f s so far', what, library, time.monotonic() - started)

    reporter = threading.Thread(target=report, name='progress', daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()
    took = time.monotonic() - started
    _log.log(logging.WARNING if took > interval else logging.INFO, '%s: built in %.1f s', what, took)
