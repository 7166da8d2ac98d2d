"""The flow cache: images and flow of all pairs of a clip up to a largest gap, computed once and kept on disk.

The name of a clip's folder ends in a key: a hash of the clip's files, the backend, the size, the largest gap and the
format. The folder holds chunks of eight frames, ``00000-images.npy`` and ``00000-flow.npy``, each array followed by its
checksum. ``streams.npy`` is written last and holds the number of each frame's continuous stream.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import open_file
from moving_object_detector.datasets.layouts import ClipFiles
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.media.frames import Frame, prefetch, resize_image
from moving_object_detector.training import chunks
from moving_object_detector.training.chunks import CacheError, Chunks, done_chunks

CHUNK: Final = 8
"""Frames per file; a killed run loses at most these."""
CACHE_FORMAT: Final = 3
"""Version of the files, part of the key."""
KINDS: Final = ('images', 'flow')
STREAMS: Final = 'streams.npy'

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheOptions:
    """What the flow cache holds of a clip."""

    size: tuple[int, int]
    """(height, width) of images and flows, pixels."""
    largest_gap: int
    """Largest distance between the frames of a pair, frames."""
    batch: int = 16
    """Pairs per call of the backend."""

    @property
    def gaps(self) -> tuple[int, ...]:
        """Offsets from a frame to its neighbours, such as -2, -1, 1, 2."""
        return tuple(gap for gap in range(-self.largest_gap, self.largest_gap + 1) if gap)


def _chunk(
    name: str, number: int, images: dict[int, NDArray[np.uint8]], features: dict[int, Any], streams: Sequence[int],
    backend: FlowBackend, options: CacheOptions,
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:  # fmt: skip
    """Return images and flows of a chunk, with zero flow where there is no pair."""
    frames = range(number * CHUNK, min((number + 1) * CHUNK, len(streams)))
    flows = np.zeros((len(frames), len(options.gaps), 2, *options.size), np.float16)
    pairs = [
        (row, column, index, index + gap)
        for row, index in enumerate(frames)
        for column, gap in enumerate(options.gaps)
        if index + gap in features and 0 <= streams[index] == streams[index + gap]
    ]
    for first in range(0, len(pairs), options.batch):
        rows, columns, *ends = zip(*pairs[first : first + options.batch], strict=True)
        sources, targets = ([features[index] for index in end] for end in ends)
        found = backend.estimate(sources, targets, options.size)
        flows[list(rows), list(columns)] = chunks.to_half(found.cpu().numpy(), name)
    return np.stack([images[index] for index in frames]), flows


def clip_flows(
    name: str,
    frames: Iterable[Frame],
    backend: FlowBackend,
    options: CacheOptions,
    streams: list[int],
    done: set[int],
) -> Chunks:
    """Yield number and (images, flows) of the chunks of a clip that are not ``done``.

    Images are uint8 (n, height, width, 3) RGB, flows float16 (n, gaps, 2, height, width) in pixels of the options'
    size, 0 if the neighbour is outside the clip or in another stream; n is 8 except in the last chunk. The number of
    each frame's stream, by the detector's rule, is appended to ``streams``; -1: a repeated frame, in no pair.

    Features are computed once per frame and kept for one chunk and its neighbours only. Batches depend on the place in
    the clip alone, so that a resumed run computes the same ones.
    """
    features: dict[int, Any] = {}
    images: dict[int, NDArray[np.uint8]] = {}
    continuity, current = Continuity(round(ContinuityConfig.max_gap * 1e9)), 0
    reach, number = options.largest_gap, 0

    for index, frame in enumerate(frames):
        step = continuity.follow(frame.stamp, frame.image.shape)
        current += step.starts_anew
        streams.append(-1 if step is Step.REPEATS else current)
        if not done >= set(range(max(index - reach, 0) // CHUNK, (index + reach) // CHUNK + 1)):
            features[index] = backend.features(frame.image)
        if index // CHUNK not in done:
            images[index] = resize_image(frame.image, options.size)
        if index == (number + 1) * CHUNK - 1 + reach:
            if number not in done:
                yield number, _chunk(name, number, images, features, streams, backend, options)
            number += 1
            features = {one: kept for one, kept in features.items() if one >= number * CHUNK - reach}
            images = {one: kept for one, kept in images.items() if one >= number * CHUNK}
    while number * CHUNK < len(streams):
        if number not in done:
            yield number, _chunk(name, number, images, features, streams, backend, options)
        number += 1
    if continuity.trouble:
        _log.warning('%s: %s', name, continuity.trouble)


def _streams(folder: Path) -> tuple[int, ...] | None:
    """Return the stream of each frame if the clip is completely cached, else None."""
    if not (folder / STREAMS).is_file():
        return None
    try:
        streams = tuple(np.array(chunks.map_array(folder / STREAMS)).tolist())
    except CacheError as error:
        _log.warning('%s', error)
        return None
    whole = done_chunks(folder, KINDS) >= set(range(-(-len(streams) // CHUNK)))
    return streams if whole else None


@dataclass(frozen=True)
class CachedClip:
    """A cached clip, read from disk at each call, so that it holds neither memory nor open files.

    ``size`` is (height, width) of images and flows in pixels; ``gaps`` are the offsets from a frame to its neighbours,
    such as -2, -1, 1, 2; ``streams`` is the number of each frame's continuous stream, -1 for none.
    """

    name: str
    size: tuple[int, int]
    gaps: tuple[int, ...]
    folder: Path
    streams: tuple[int, ...]

    @property
    def frame_count(self) -> int:
        """Number of frames."""
        return len(self.streams)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, uint8 (height, width, 3) RGB; raises IndexError and CacheError."""
        return np.array(chunks.read_item(self.folder, self._checked(index), CHUNK, 'images'), np.uint8)

    def flow(self, index: int, gap: int) -> NDArray[np.float32]:
        """Return the flow from a frame to its neighbour, (2, height, width): u right, v down, pixels.

        Raises IndexError if the two frames are not of one stream, and CacheError.
        """
        if gap not in self.neighbours(index):
            of = f'{index} and {index + gap} of {self.frame_count}'
            raise IndexError(f'{self.name}: frames {of} are not of one continuous stream')
        return np.array(chunks.read_item(self.folder, index, CHUNK, 'flow')[self.gaps.index(gap)], np.float32)

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Return the gaps to frames of the same continuous stream; raises IndexError."""
        own = self.streams[self._checked(index)]
        inside = (gap for gap in self.gaps if 0 <= index + gap < self.frame_count)
        return tuple(gap for gap in inside if 0 <= own == self.streams[index + gap])

    def _checked(self, index: int) -> int:
        if not 0 <= index < self.frame_count:
            raise IndexError(f'{self.name}: frame {index} of {self.frame_count}')
        return index


def _clip_key(clip: ClipFiles, settings: dict[str, object]) -> str:
    """Return the key of a clip's cache, a hash of files and settings, 16 hexadecimal digits."""
    if not clip.files:
        raise UserError(f'{clip.name}: no file to read was found; is the recording complete?')
    depends = json.dumps({**settings, 'topic': clip.topic}, sort_keys=True)
    total = hashlib.blake2b(depends.encode(), digest_size=8)
    for path in clip.files:
        content = hashlib.blake2b()
        try:
            with open_file(path) as file:
                while block := file.read(1 << 20):
                    content.update(block)
        except OSError as error:
            raise UserError(f'{path}: this file of {clip.name} cannot be read: {error.strerror}') from error
        total.update(content.digest())
    return total.hexdigest()


def cached_clips(
    clips: Sequence[ClipFiles], folder: Path, backend: FlowBackend, fingerprint: str, options: CacheOptions
) -> list[CachedClip]:
    """Return the clips with their flow, computing what the cache lacks; clips without a pair are left out.

    ``fingerprint`` identifies the backend with its settings and weights. Raises UserError if a clip cannot be read, no
    clip has a pair, or writing fails.
    """
    settings: dict[str, object] = {'format': CACHE_FORMAT, 'backend': fingerprint, 'size': options.size}
    settings['largest gap'] = options.largest_gap
    folders = []
    for clip in tqdm(clips, desc='reading', unit='clip', delay=1, leave=False):
        label = re.sub(r'[^\w.-]', '_', clip.name, flags=re.ASCII)[:80]
        folders.append(folder / f'{label}-{_clip_key(clip, settings)}')
    cached = []
    for clip, clip_folder in zip(clips, folders, strict=True):
        if _streams(clip_folder) is None:
            # 0 if the frame count is unknown before reading the clip.
            total = -(-(clip.source().frame_count or 0) // CHUNK)
            missing = partial(_missing_chunks, clip, clip_folder, backend, options)
            chunks.fill(clip_folder, f'flow of {clip.name}', KINDS, total, missing)
        streams = _streams(clip_folder)
        if streams is None:
            raise CacheError(f'{clip_folder}: this folder of the flow cache has been removed or changed; start again')
        opened = CachedClip(clip.name, options.size, options.gaps, clip_folder, streams)
        if not any(opened.neighbours(index) for index in range(len(streams))):
            _log.warning('%s: no pair of frames in its %d; left out', foreign(clip.name), len(streams))
            continue
        cached.append(opened)
    if not cached:
        raise UserError('no clip has two frames that form a pair; give longer clips, without gaps in time')
    return cached


def _missing_chunks(
    clip: ClipFiles, folder: Path, backend: FlowBackend, options: CacheOptions, done: set[int]
) -> Chunks:
    """Yield the missing chunks of a clip, then write the streams of its frames."""
    if _streams(folder) is not None:  # completed meanwhile by another process
        return
    if (folder / STREAMS).exists():
        _log.warning('%s: part of the flow cache is missing or damaged and is computed again', foreign(folder, 300))
    streams: list[int] = []
    with prefetch(clip.source(), depth=4) as frames:
        yield from clip_flows(clip.name, frames, backend, options, streams, done)
    chunks.write_array(folder / STREAMS, np.array(streams, np.int32))
