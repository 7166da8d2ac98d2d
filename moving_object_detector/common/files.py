"""Atomic writes, locks between processes, safe reads, and the paths of the package's files."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Literal

from moving_object_detector.common.errors import ModelError, UserError, foreign

PACKAGE: Final = 'moving_object_detector'
LEFTOVER_SECONDS: Final = 60.0
"""Age from which an unlocked temporary file is taken to be left by a killed process."""

_held: dict[Path, int] = {}  # locks of this process by its id: a forked child holds none of them


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing; readers see the old or the new content, even with several writers or after a kill.

    Creates the folder if missing. If the context ends by an error, the file stays unchanged. ``durable`` waits until
    the data is on disk, to survive a power failure. Raises OSError if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f'.{path.name[:200]}.{secrets.token_hex(8)}.tmp')
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, 'wb') as file:
            with suppress(OSError):  # a file system without locks: leftovers stay
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            if durable:
                os.fsync(descriptor)
            temporary.replace(path)
        if durable:
            _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` whose writer was killed: old and unlocked."""
    name = re.compile(rf'\.{re.escape(path.name[:200])}\.[0-9a-f]{{16}}\.tmp')
    for entry in [entry.path for entry in os.scandir(path.parent) if name.fullmatch(entry.name)]:
        with suppress(OSError), Path(entry).open('rb') as file:
            if time.time() - os.fstat(file.fileno()).st_mtime > LEFTOVER_SECONDS:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry).unlink()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not supported by every file system
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file by :func:`atomic_file`; raises UserError if it cannot be written."""
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}; give a path in a folder you own') from error


@contextmanager
def lock(path: Path, thing: str, *, wait: bool = False) -> Iterator[None]:
    """Lock ``thing`` against other processes (and this one) for the duration of the context; the lock file remains.

    The kernel releases the lock when the process ends, even by a kill. If another process holds it, ``wait`` logs this
    and waits; otherwise raises UserError with the holder and since when. UserError also if ``path`` cannot be opened.
    """
    key = path.absolute()
    if _held.get(key) == os.getpid():
        raise UserError(f'{thing} is already in use by this process')
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UserError(f'{path} cannot be opened as a lock: {error.strerror}; give a folder you own') from error
    with os.fdopen(descriptor, 'r+b', 0) as file:
        try:
            # Not flock: workers forked by a killed process would keep holding it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = foreign(os.pread(descriptor, 200, 0).decode(errors='replace')) or 'another process'
            if not wait:
                raise UserError(
                    f'{thing} is in use by {holder}; wait for that process, stop it, or give another path'
                ) from error
            logging.getLogger(__name__).info('%s is in use by %s; waiting', thing, holder)
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            logging.getLogger(__name__).warning('%s: no lock (%s); use it in one process only', path, error.strerror)
        _held[key] = os.getpid()
        try:
            about = f'process {os.getpid()} ({foreign(Path(sys.argv[0]).name)}, since {time.strftime("%F %T")})'
            file.truncate(0)
            file.write(about.encode())
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            del _held[key]


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, without blocking as a pipe would; raises OSError with the reason."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'it is not a file')
    return os.fdopen(descriptor, 'rb')


def read_file(path: Path, most_bytes: int) -> bytes:
    """Return the content of a regular file; raises OSError as :func:`open_file`, or if it is larger than allowed."""
    with open_file(path) as file:
        # A file that is too large is not read; one without size, or that grows, up to one byte above the limit.
        stated = os.fstat(file.fileno()).st_size
        content = file.read(most_bytes + 1) if stated <= most_bytes else b''
    if max(stated, len(content)) > most_bytes:
        raise OSError(errno.EFBIG, f'it is larger than {most_bytes} bytes')
    return content


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a regular file's content in hexadecimal; raises OSError as :func:`open_file`."""
    total = sha256()
    with open_file(path) as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def check_apart(output: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise UserError if writing the output would destroy an input."""
    written = Path(output).resolve()
    for path in inputs:
        read = Path(path).expanduser().resolve()
        if written in (read, *read.parents):
            raise UserError(f'{output}: is or holds the input {path}, which would be lost; give another name')


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raises UserError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path} cannot be made a folder: {error.strerror}; give another path') from error


def share_folder() -> Path:
    """Return the folder with ``config/``, ``launch/`` and ``models/``: of the source tree, else the installed one."""
    package = Path(__file__).resolve().parents[1]
    # <prefix>/lib/pythonX.Y/site-packages/moving_object_detector -> <prefix>/share/moving_object_detector
    for folder in (package.parent, *(parent / 'share' / PACKAGE for parent in package.parents[:6])):
        if (folder / 'models').is_dir() and (folder / 'package.xml').is_file():
            return folder
    raise ModelError(f'the folder share/{PACKAGE} with models/ is missing beside {package}; install the package again')


def user_folder(kind: Literal['cache', 'data']) -> Path:
    """Return the package's folder in the user's XDG cache or data folder; it need not exist."""
    variable, usual = {'cache': ('XDG_CACHE_HOME', '~/.cache'), 'data': ('XDG_DATA_HOME', '~/.local/share')}[kind]
    base = Path(os.environ.get(variable, ''))
    # The XDG specification says to ignore relative paths.
    return (base if base.is_absolute() else Path(usual).expanduser()) / PACKAGE


def fetched_weights(network: str) -> Path:
    """Return the path at which ``get_weights`` stores the weights of a network; it need not exist."""
    return user_folder('data') / 'weights' / f'{network}.safetensors'


def generator_path(model: str = '', flow: str = 'dis') -> Path:
    """Return the file ``model``; empty: the package's generator for a flow backend, small: half-width, for DIS."""
    if model not in ('', 'small'):
        return Path(model).expanduser()
    width = '-small' if model == 'small' and flow == 'dis' else ''
    return share_folder() / 'models' / f'generator{"-raft" if flow == "raft_small" else width}.safetensors'
