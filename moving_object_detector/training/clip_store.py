"""How a clip lies in the flow cache: three NumPy files that grow, and a manifest once they are complete."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import atomic_file

FORMAT: Final = 2
"""Of the files; another number, another key."""
HEADER: Final = 256
"""Bytes before the first frame of each file."""


@dataclass(frozen=True)
class ClipLayout:
    """What the arrays hold of each frame."""

    size: tuple[int, int]
    """(height, width) in pixels."""
    gaps: tuple[int, ...]
    """From a frame to its neighbours, without 0."""

    @property
    def arrays(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return type and shape of one frame in each file."""
        return {
            'images.npy': (np.dtype('|u1'), (*self.size, 3)),
            'flow.npy': (np.dtype('<f2'), (len(self.gaps), 2, *self.size)),
            'streams.npy': (np.dtype('<i4'), ()),
        }

    def file_bytes(self, name: str, frames: int) -> int:
        """Return how long the file is with so many frames."""
        kind, shape = self.arrays[name]
        return HEADER + frames * prod(shape) * kind.itemsize

    def total_bytes(self, frames: int) -> int:
        """Return what so many frames take on disk."""
        return sum(self.file_bytes(name, frames) for name in self.arrays)


def _header(kind: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the start of a .npy file, format 1.0, padded to a length that does not depend on the shape."""
    text = f"{{'descr': '{kind.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b'\x93NUMPY\x01\x00' + (HEADER - 10).to_bytes(2, 'little') + text.ljust(HEADER - 11) + b'\n'


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(content, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a message: full, read-only, no right to write."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{folder}: the flow cache cannot be read or written: {error.strerror}; what is finished is kept, so free '
            'some space or give another folder and start again'
        ) from error


@contextmanager
def clip_lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the clip's folder against other processes; yield whether it is held.

    The kernel frees it when the process ends, also by a kill.
    """
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def finished_frames(folder: Path, layout: ClipLayout) -> int | None:
    """Return the number of frames of a complete clip, None where it is not complete or damaged."""
    manifest = _read_json(folder / 'manifest.json')
    if manifest is None:
        return None
    frames = manifest.get('frames')
    whole = isinstance(frames, int) and all(
        _size(folder / name) == layout.file_bytes(name, frames) for name in layout.arrays
    )
    return frames if whole else None


def started_frames(folder: Path, layout: ClipLayout) -> int:
    """Return how many frames an interrupted run has left complete."""
    frames = (_read_json(folder / 'progress.json') or {}).get('frames', 0)
    if not isinstance(frames, int) or frames < 0:
        return 0
    whole = all(_size(folder / name) >= layout.file_bytes(name, frames) for name in layout.arrays)
    return frames if whole else 0


class ClipWriter(AbstractContextManager['ClipWriter']):
    """Appends frames to a clip's files; what was committed survives a kill at any moment."""

    def __init__(self, folder: Path, layout: ClipLayout) -> None:
        """Go on after the frames that an interrupted run has left complete.

        Args:
            folder: Of the clip, locked by the caller.
            layout: Of its files.

        Raises:
            OSError: A file cannot be written.

        """
        manifest = folder / 'manifest.json'
        if manifest.exists():
            logging.getLogger(__name__).warning('%s: the cached flow is damaged; it is computed again', folder)
            (folder / 'progress.json').unlink(missing_ok=True)
            manifest.unlink()
        self.frames = started_frames(folder, layout)
        self._folder = folder
        self._layout = layout
        self._files: list[BinaryIO] = []
        for name in layout.arrays:
            path = folder / name
            path.touch()
            file = path.open('r+b')
            self._files.append(file)
            length = layout.file_bytes(name, self.frames)
            file.truncate(length)
            file.seek(length)
        self._write_headers()

    def _write_headers(self) -> None:
        for file, (kind, shape) in zip(self._files, self._layout.arrays.values(), strict=True):
            end = max(file.tell(), HEADER)
            file.seek(0)
            file.write(_header(kind, (self.frames, *shape)))
            file.seek(end)

    def append(self, images: NDArray[np.uint8], flows: NDArray[np.float16], streams: NDArray[np.int32]) -> None:
        """Append frames: images, flows and numbers of streams, each shaped as the layout says."""
        arrays: tuple[NDArray[Any], ...] = (images, flows, streams)
        for file, array, (kind, shape) in zip(self._files, arrays, self._layout.arrays.values(), strict=True):
            if array.shape[1:] != shape:
                raise ValueError(f'frames of {array.shape[1:]}, expected {shape}')
            file.write(np.ascontiguousarray(array, kind).data)
        self.frames += len(images)

    def commit(self) -> None:
        """Put on disk what was appended, and after that note how much it is."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        _write_json(self._folder / 'progress.json', {'frames': self.frames})

    def finish(self, about: dict[str, Any]) -> None:
        """Declare the clip complete; ``about`` is for whoever reads the manifest."""
        self._write_headers()
        self.commit()
        _write_json(self._folder / 'manifest.json', {'format': FORMAT, 'frames': self.frames, **about})
        (self._folder / 'progress.json').unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
