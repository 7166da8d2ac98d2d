"""Arrays that are computed once and kept on disk in chunks, files with their checksums; one that is there is done."""

from __future__ import annotations

import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import atomic_file, open_file

HALF_MAX: Final = 65504.0
"""The largest number of half precision."""
DIGEST_BYTES: Final = 16
REPAIRS: Final = 3
"""Of a training, before it is given up."""

Trained = TypeVar('Trained')

_checked: set[Path] = set()  # files whose checksum this process has found right
_log = logging.getLogger(__name__)


class CacheError(UserError):
    """A file is gone or damaged; whoever keeps the arrays computes it again."""


def repaired(body: Callable[[], Trained], *, alone: bool, times: int = REPAIRS) -> Trained:
    """Run a training; where part of the cache is gone or damaged, say so, and run it again, which computes that part.

    Only where it is the one process of the training (``alone``): several cannot go back together.
    """
    try:
        return body()
    except CacheError as error:
        if not alone or not times:
            raise
        _log.warning('%s, which is now: the training goes on from its last checkpoint', error)
    return repaired(body, alone=alone, times=times - 1)


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
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    tail = b''
    with open_file(path) as file:
        while block := file.read(1 << 20):
            block = tail + block
            total.update(block[:-DIGEST_BYTES])
            tail = block[-DIGEST_BYTES:]
    return total.digest() == tail


def chunk_path(folder: Path, number: int, kind: str) -> Path:
    """Return where one kind of array of a chunk lies."""
    return folder / f'{number:05d}-{kind}.npy'


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a message: full, read-only, no right to write."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{folder}: the flow cache cannot be read or written: {error.strerror}; what is finished is kept, so free '
            'some space or give another folder and start again'
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raise UserError where a folder's disk has less than the ``needed`` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f'{folder}: the flow cache takes {needed / 1e9:.2f} GB more, but {free / 1e9:.2f} GB are free there; '
            'free some space, give a folder on another disk, or keep less (size, largest gap, rendered.kept)'
        )


def to_half(flow: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round a clip's flow (pixels, any shape) to half precision; what is not a number becomes 0, with a warning."""
    finite = np.isfinite(flow)
    if not finite.all():
        said = '%s: %d values of its flow are not finite; they become 0 or the largest there is'
        _log.warning(said, foreign(name), (~finite).sum())
        flow = np.nan_to_num(flow, nan=0.0)
    return np.clip(flow, -HALF_MAX, HALF_MAX).astype(np.float16)
