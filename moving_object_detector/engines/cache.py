"""Built engines on disk: a cache that can be deleted, damaged, read-only or full without harm.

The reader of OpenVINO is not made for damaged files: a file begins with the hash of its key and its content, is read
into memory once, checked there and loaded from there. Never copy such files from somebody else; models are exchanged
as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from moving_object_detector.common.files import atomic_file, open_file, user_folder

MOST_FILES: Final = 16
"""The ones not used for longest are removed beyond this."""

Key = Mapping[str, str]
"""What was asked for (label, engine, weights, shapes, precision, device) and what builds it (versions, code)."""
_log = logging.getLogger(__name__)


class EngineCache:
    """Keeps built engines in a folder (the user's cache); whatever goes wrong is logged, and builds in memory."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or user_folder('cache') / 'engines'

    def path(self, key: Key) -> Path:
        """Return the file of an engine."""
        return self.folder / f'{key["label"].replace(" ", "_")}-{key["engine"]}-{_digest(key).hex()[:16]}.engine'

    def load(self, key: Key) -> bytes | None:
        """Return an engine, or None where it has to be built."""
        path = self.path(key)
        try:
            with open_file(path) as file:
                digest, payload = file.read(hashlib.sha256().digest_size), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning('%s cannot be read (%s); the engine is built anew', path, error.strerror)
            return None
        if digest != _digest(key, payload):
            _log.warning('%s is damaged, or was made for something else; the engine is built anew', path)
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
            with atomic_file(path) as file:
                file.write(_digest(key, payload) + payload)
        except OSError as error:
            _log.warning('%s cannot be written (%s); the engine is built again at the next start', path, error.strerror)
            return False
        with suppress(OSError):  # another process may remove them at the same time
            for old in sorted(self.folder.glob('*.engine'), key=lambda one: one.stat().st_mtime)[:-MOST_FILES]:
                old.unlink(missing_ok=True)
        return True


def _digest(key: Key, payload: bytes = b'') -> bytes:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode() + payload).digest()


def code_hash() -> str:
    """Return the SHA-256 of the source files that networks and engines are written in."""
    digest = hashlib.sha256()
    for room in ('engines', 'networks'):
        for file in sorted((Path(__file__).parents[1] / room).glob('*.py')):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@contextmanager
def building(what: str, library: str) -> Iterator[None]:
    """Log that an engine is built, and how long it took; that only if it succeeded."""
    started = time.monotonic()
    _log.info('%s: %s builds an engine, which may take a while', what, library)
    yield
    _log.info('%s: built in %.1f s', what, time.monotonic() - started)
