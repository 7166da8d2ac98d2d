"""Flows of all pairs of a clip within a few frames, computed once and kept on disk.

Each clip has a folder of its own, whose name ends in a key: a hash of the clip's files, the backend, the size, the
largest gap and the format. What changes any of these finds no folder, so a stale one is never used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotation import Annotation
from moving_object_detector.datasets.collection import ClipFiles
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.training.cache_filler import Job, fill_cache
from moving_object_detector.training.clip_store import FORMAT, HEADER, ClipLayout, cache_errors, finished_frames


@dataclass(frozen=True)
class CachedClip:
    """A clip and its flows, read from disk at each call, so it holds no memory and no open file.

    Attributes:
        name: As in the collection.
        frame_count: How many frames there are.
        size: (height, width) of images and flows in pixels.
        gaps: From a frame to its neighbours, such as -2, -1, 1, 2.
        streams: Of each frame the number of its continuous stream; -1: it is in none.

    """

    name: str
    frame_count: int
    size: tuple[int, int]
    gaps: tuple[int, ...]
    folder: Path
    annotations: tuple[Annotation | None, ...]
    streams: tuple[int, ...]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, uint8 (height, width, 3) RGB.

        Raises:
            IndexError: There is no such frame.

        """
        return np.array(self._map('images.npy', self._checked(index)))

    def flow(self, index: int, gap: int) -> NDArray[np.float32]:
        """Return the flow from a frame to its neighbour, (2, height, width): u right, v down, in pixels.

        Raises:
            ValueError: The gap is not one of :attr:`gaps`.
            IndexError: The frame or its neighbour is outside the clip, or they are no pair.

        """
        if gap not in self.gaps:
            raise ValueError(f'a gap of {gap}; cached are {self.gaps}')
        self._checked(index + gap)
        if gap not in self.neighbours(index):
            raise IndexError(f'{self.name}: frames {index} and {index + gap} are not of one continuous stream')
        return np.asarray(self._map('flow.npy', self._checked(index))[self.gaps.index(gap)], np.float32)

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Return the gaps that lead to another frame of the same stream; none where the detector would start anew.

        Raises:
            IndexError: There is no such frame.

        """
        own = self.streams[self._checked(index)]
        inside = (gap for gap in self.gaps if 0 <= index + gap < self.frame_count)
        return tuple(gap for gap in inside if 0 <= own == self.streams[index + gap])

    def annotation(self, index: int) -> NDArray[np.bool_] | None:
        """Read the annotation of a frame, bool (H, W) at its own size; None where there is none. For scoring alone.

        Raises:
            IndexError: There is no such frame.
            UserError: The file cannot be read.

        """
        self._checked(index)
        annotation = self.annotations[index] if index < len(self.annotations) else None
        return annotation.read() if annotation is not None else None

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.frame_count:
            raise IndexError(f'{self.name}: frame {index} of {self.frame_count}')
        return index

    def _map(self, name: str, index: int) -> NDArray[Any]:
        """Map one frame of a file; a map of whole files would hold one open for each clip."""
        layout = ClipLayout(self.size, self.gaps)
        kind, shape = layout.arrays[name]
        record = layout.file_bytes(name, 1) - HEADER
        return np.memmap(self.folder / name, kind, 'r', HEADER + index * record, shape)


def _clip_key(clip: ClipFiles, settings: dict[str, object]) -> str:
    """Return a hash of what the clip's cache depends on, 16 hexadecimal digits."""
    total = hashlib.blake2b(json.dumps({**settings, 'topic': clip.topic}, sort_keys=True).encode(), digest_size=8)
    for path in clip.files:
        content = hashlib.blake2b()
        try:
            with path.open('rb') as file:
                while block := file.read(1 << 20):
                    content.update(block)
        except OSError as error:
            raise UserError(f'{path}: this file of {clip.name} cannot be read: {error.strerror}') from error
        total.update(content.digest())
    return total.hexdigest()


def cached_clips(
    clips: Sequence[ClipFiles],
    folder: Path,
    backend: FlowBackend,
    fingerprint: str,
    size: tuple[int, int],
    largest_gap: int,
    batch: int = 16,
    *,
    progress: bool = True,
) -> list[CachedClip]:
    """Return the clips with their flows, computing what is not in the cache yet.

    A run that was killed goes on where it was. Several processes may do this at once on one folder: each computes
    clips that no other is at, and waits for the rest.

    Args:
        clips: As :func:`~moving_object_detector.datasets.collection.find_clips` returns them.
        folder: Of the cache; made where missing. A complete one may be read-only.
        backend: Estimates the flow.
        fingerprint: Says which backend with which settings and weights.
        size: (height, width) of images and flows in pixels.
        largest_gap: Frames between the two of a pair, at most.
        batch: Pairs that the backend gets at once.
        progress: Whether to show a bar on stderr.

    Raises:
        UserError: A clip cannot be read, is shorter than two frames or changes its size; or the disk is too small,
            full or cannot be written. What was finished is kept.

    """
    if largest_gap < 1 or batch < 1 or min(size) < 1:
        raise ValueError(f'largest gap {largest_gap}, batch {batch}, size {size}: all take 1 or more')
    gaps = tuple(gap for gap in range(-largest_gap, largest_gap + 1) if gap)
    layout = ClipLayout(size, gaps)
    settings: dict[str, object] = {'format': FORMAT, 'backend': fingerprint, 'size': size, 'largest gap': largest_gap}
    jobs = []
    for clip in tqdm(clips, desc='reading', unit='clip', delay=1, leave=False, disable=not progress):
        label = re.sub(r'[^\w.-]', '_', clip.name, flags=re.ASCII)[:80]
        jobs.append(Job(clip, folder / f'{label}-{_clip_key(clip, settings)}'))
    with cache_errors(folder):
        missing = [job for job in jobs if finished_frames(job.folder, layout) is None]
    if missing:
        fill_cache(folder, missing, layout, backend, batch, settings, progress=progress)
    return [_open(job, layout) for job in jobs]


def _open(job: Job, layout: ClipLayout) -> CachedClip:
    frames = finished_frames(job.folder, layout)
    if frames is None:
        raise UserError(f'{job.folder}: this folder of the flow cache has been removed or cut short; start again')
    annotations = job.clip.annotations
    if annotations and len(annotations) != frames:
        logging.getLogger(__name__).warning(
            '%s has %d frames, but %d annotations; frames without one are not scored',
            job.clip.name,
            frames,
            len(annotations),
        )
    kind, _ = layout.arrays['streams.npy']
    with cache_errors(job.folder):
        streams = np.fromfile(job.folder / 'streams.npy', kind, frames, offset=HEADER)
    return CachedClip(job.clip.name, frames, layout.size, layout.gaps, job.folder, annotations, tuple(streams.tolist()))
