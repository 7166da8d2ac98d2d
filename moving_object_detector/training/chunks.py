"""Arrays that are computed once and kept on disk in chunks, files with their checksums; one that is there is done."""

from __future__ import annotations

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import atomic_file, lock, open_file

HALF_MAX: Final = 65504.0
"""The largest number of half precision."""
DIGEST_BYTES: Final = 16
REPAIRS: Final = 3
"""Of a training, before it is given up."""

Trained = TypeVar('Trained')
Chunks: TypeAlias = Iterator[tuple[int, Sequence[NDArray[Any]]]]
"""Number and arrays."""

_checked: set[Path] = set()  # files whose checksum this process has found right
_log = logging.getLogger(__name__)


class CacheError(UserError):
    """A file is gone or damaged; whoever keeps the arrays computes it again."""


def repaired(body: Callable[[], Trained], times: int = REPAIRS) -> Trained:
    """Run a training; where part of the cache is gone or damaged, run it again, which computes that part."""
    try:
        return body()
    except CacheError as error:
        if not times:
            raise
        _log.warning('%s, which is now: the training goes on from its last checkpoint', error)
    return repaired(body, times - 1)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy with a checksum after it; raises OSError."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getbuffer()
    # What a power failure cuts short the checksum finds.
    with atomic_file(path, durable=False) as file:
        file.write(content)
        file.write(hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest())


def map_array(path: Path) -> NDArray[Any]:
    """Map an array of :func:`write_array`; its checksum is compared when a process first reads it.

    Raises CacheError where the file is gone or damaged; a damaged one is removed.
    """
    what = 'gone'
    try:
        if path not in _checked and not _is_whole(path):
            path.unlink(missing_ok=True)
            what = 'damaged'
        else:
            _checked.add(path)
        return np.asarray(np.load(path, mmap_mode='r', allow_pickle=False))
    except (OSError, ValueError) as error:
        _checked.discard(path)
        raise CacheError(f'{path}: {what}, a part of the flow cache; it is computed again at the next start') from error


def _is_whole(path: Path) -> bool:
    with open_file(path) as file:
        whole = memoryview(file.read())
    return hashlib.blake2b(whole[:-DIGEST_BYTES], digest_size=DIGEST_BYTES).digest() == whole[-DIGEST_BYTES:]


def chunk_path(folder: Path, number: int, kind: str) -> Path:
    """Return where one kind of array of a chunk lies."""
    return folder / f'{number:05d}-{kind}.npy'


def read_item(folder: Path, index: int, chunk: int, kind: str) -> NDArray[Any]:
    """Map one of the items of a folder, of which ``chunk`` are in each file; raises CacheError."""
    number, place = divmod(index, chunk)
    return np.asarray(map_array(chunk_path(folder, number, kind))[place])


def done_chunks(folder: Path, kinds: Sequence[str]) -> set[int]:
    """Return the numbers of the chunks that are there, with an array of each kind."""
    found = Counter(path.name[:5] for path in folder.glob('*.npy') if path.name[6:-4] in kinds)
    return {int(number) for number, count in found.items() if number.isdecimal() and count == len(kinds)}


def fill(folder: Path, thing: str, kinds: Sequence[str], total: int, make: Callable[[set[int]], Chunks]) -> None:
    """Compute the chunks that a folder lacks; a run that was killed goes on with the next one.

    Another process that asks for the same waits, and finds them. Of a folder that has all, which may be read-only,
    nobody need ask. ``thing`` says what they are, ``total`` about how many there will be; ``make`` takes the chunks
    that are there, and yields number and arrays, one of each of the ``kinds``, of the others. Raises UserError where
    the disk is full or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / 'lock', thing, wait=True):
            done = done_chunks(folder, kinds)
            for number, arrays in tqdm(make(done), foreign(thing), total, initial=len(done), unit='chunk'):
                for kind, array in zip(kinds, arrays, strict=True):
                    write_array(chunk_path(folder, number, kind), array)
    except OSError as error:
        raise UserError(
            f'{folder}: {thing} cannot be written: {error.strerror}; what is finished is kept, so free some space or '
            'give another folder and start again'
        ) from error


def to_half(flow: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round a clip's flow (pixels, any shape) to half precision; what is not a number becomes 0, with a warning."""
    finite = np.isfinite(flow)
    if not finite.all():
        said = '%s: %d values of its flow are not finite; they become 0 or the largest there is'
        _log.warning(said, foreign(name), (~finite).sum())
        flow = np.nan_to_num(flow, nan=0.0)
    return np.clip(flow, -HALF_MAX, HALF_MAX).astype(np.float16)
