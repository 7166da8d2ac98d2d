"""A disk cache of computed arrays: chunks in .npy files with checksums, where an existing chunk is never recomputed."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import atomic_file, lock, open_file

HALF_MAX: Final = 65504.0
"""The largest finite number of half precision."""
DIGEST_BYTES: Final = 16
REPAIRS: Final = 3
"""Restarts of a training with a damaged cache before it fails."""

Trained = TypeVar('Trained')
Chunks: TypeAlias = Iterator[tuple[int, Sequence[NDArray[Any]]]]
"""The number of each chunk and its arrays."""

_checked: set[Path] = set()  # files whose checksum this process has verified
_damage = threading.Event()
"""Set once a part of a cache was found missing or damaged."""
_log = logging.getLogger(__name__)


class CacheError(UserError):
    """A file of the cache is missing or damaged; the owner of the cache recomputes it."""


def repaired(body: Callable[[], Trained], times: int = REPAIRS) -> Trained:
    """Run a training; if part of the cache is missing or damaged, run it again, which recomputes that part."""
    try:
        return body()
    except CacheError as error:
        if not times:
            raise
        _damage.set()
        _log.warning('%s. Restarting now from the last checkpoint', error)
    return repaired(body, times - 1)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy with a checksum after it; raises OSError."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getbuffer()
    # Not durable: the checksum detects a file cut short by a power failure.
    with atomic_file(path, durable=False) as file:
        file.write(content)
        file.write(hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest())


def map_array(path: Path) -> NDArray[Any]:
    """Memory-map an array of :func:`write_array`; a process verifies its checksum at the first access.

    Raises CacheError if the file is missing or damaged; a damaged one is removed.
    """
    state = 'gone'
    try:
        if path not in _checked and not _is_whole(path):
            path.unlink(missing_ok=True)
            state = 'damaged'
        else:
            _checked.add(path)
        return np.asarray(np.load(path, mmap_mode='r', allow_pickle=False))
    except (OSError, ValueError) as error:
        _checked.discard(path)
        raise CacheError(f'{path}: {state}, a part of the flow cache; computed again at the next start') from error


def _is_whole(path: Path) -> bool:
    with open_file(path) as file:
        whole = memoryview(file.read())
    return hashlib.blake2b(whole[:-DIGEST_BYTES], digest_size=DIGEST_BYTES).digest() == whole[-DIGEST_BYTES:]


def chunk_path(folder: Path, number: int, kind: str) -> Path:
    """Return the file of a chunk's array of one kind."""
    return folder / f'{number:05d}-{kind}.npy'


def read_item(folder: Path, index: int, chunk: int, kind: str) -> NDArray[Any]:
    """Memory-map item ``index`` of a folder with ``chunk`` items per file; raises CacheError."""
    number, place = divmod(index, chunk)
    return np.asarray(map_array(chunk_path(folder, number, kind))[place])


def done_chunks(folder: Path, kinds: Sequence[str]) -> set[int]:
    """Return the numbers of the complete chunks, which have an array of each kind."""
    found = Counter(path.name[:5] for path in folder.glob('*.npy') if path.name[6:-4] in kinds)
    return {int(number) for number, count in found.items() if number.isdecimal() and count == len(kinds)}


def fill(folder: Path, thing: str, kinds: Sequence[str], total: int, make: Callable[[set[int]], Chunks]) -> None:
    """Compute the missing chunks of a folder; a killed run resumes at its next chunk.

    The folder is locked: another process waits, then finds the chunks. Do not call it for complete folders, which may
    be read-only. ``thing`` names the chunks in messages, ``total`` is their approximate number; ``make`` takes numbers
    of existing chunks and yields number and arrays, by ``kinds``, of the others. Raises UserError if writing fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / 'lock', thing, wait=True):
            if _damage.is_set():
                # It rarely comes alone; a damaged file is removed.
                for path in folder.glob('*.npy'):
                    with suppress(CacheError):
                        map_array(path)
            done = done_chunks(folder, kinds)
            for number, arrays in tqdm(make(done), foreign(thing), total, initial=len(done), unit='chunk'):
                for kind, array in zip(kinds, arrays, strict=True):
                    write_array(chunk_path(folder, number, kind), array)
    except OSError as error:
        raise UserError(
            f'{folder}: {thing} cannot be written: {error.strerror}; free some space, or give another folder, and '
            'start again: finished chunks are kept'
        ) from error


def to_half(flow: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round flow (pixels, any shape) to half precision, clipped to its range; NaN becomes 0, with a warning."""
    finite = np.isfinite(flow)
    if not finite.all():
        text = '%s: %d values of its flow are not finite; replaced by 0 or the largest half-precision number'
        _log.warning(text, foreign(name), (~finite).sum())
        flow = np.nan_to_num(flow, nan=0.0)
    return np.clip(flow, -HALF_MAX, HALF_MAX).astype(np.float16)
