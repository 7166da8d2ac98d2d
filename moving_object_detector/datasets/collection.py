"""Discovery of clips in data sets, folders, videos and bags, for training and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.datasets.layouts import ClipFiles, clip_of_images, read_davis, read_fbms, read_segtrack
from moving_object_detector.media.bags import bag_files, is_bag
from moving_object_detector.media.frames import natural_key
from moving_object_detector.media.sources import list_images, open_source

_log = logging.getLogger(__name__)
VIDEO_SUFFIXES = frozenset({'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.ogv', '.webm', '.wmv'})

_READABLE = (
    'DAVIS 2016 (JPEGImages/480p and ImageSets/480p), SegTrack v2 (JPEGImages and GroundTruth), FBMS-59 (Trainingset '
    'or Testset), images, folders of images, videos, rosbags'
)


def _complete(clips: Iterable[ClipFiles]) -> list[ClipFiles]:
    """Leave out clips of a single frame; raises UserError if a frame of a clip is missing."""
    kept = []
    for clip in clips:
        missing = next((image for image in clip.files if not image.is_file()), None)
        if missing is not None:
            raise UserError(f'{missing}: this frame of {clip.name} is missing; copy the data set again')
        if len(clip.files) > 1:
            kept.append(clip)
        else:
            _log.warning('%s: one frame only, but flow takes a pair of frames; left out', clip.name)
    return kept


def _clip_name(name: str) -> str:
    """Return a name fit for files and pages, with characters that are not UTF-8 or printable escaped."""
    return foreign(name).replace('\\', '_')


def _of_recording(path: Path, topic: str | None) -> ClipFiles:
    """Return the clip of a bag or a video; ``topic`` applies to bags only."""
    name, topic = _clip_name(path.name if path.is_dir() else path.stem), topic if is_bag(path) else None
    return ClipFiles(name, partial(open_source, path, topic=topic), tuple(bag_files(path)), topic=topic)


def _of_folder(root: Path, topic: str | None) -> list[ClipFiles]:
    """Return the clips of a folder that is no data set: its images as one clip, else the clips in it."""
    images, entries = list_images(root), sorted(root.iterdir(), key=lambda entry: natural_key(entry.name))
    recordings = {
        entry: _of_recording(entry, topic)
        for entry in entries
        if is_bag(entry) or (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES)
    }
    if len(images) > 1 and recordings:
        raise UserError(
            f'{root}: holds images ({images[0].name}, ...) and recordings ({next(iter(recordings)).name}, ...), so it '
            'is unclear which are meant; move either to a folder of its own'
        )
    if len(images) > 1:
        return [clip_of_images(_clip_name(root.resolve().name), images)]
    clips, single_frame = [], len(images) == 1
    for entry in entries:
        if entry in recordings:
            clips.append(recordings[entry])
        elif entry.is_dir() and (frames := list_images(entry)):
            single_frame |= len(frames) == 1
            clips += _complete([clip_of_images(_clip_name(entry.name), frames)])
    if not clips and single_frame:
        raise UserError(f'{root}: one frame only; flow takes a pair of frames')
    if not clips:
        names = sorted(entry.name for entry in entries)[:8]
        holds = f'it holds {", ".join(names)}' if names else 'it is empty'
        raise UserError(f'{root}: nothing to read here; {holds}, looked for {_READABLE}')
    return clips


def _read_root(root: str, split: str, topic: str | None) -> list[ClipFiles]:
    path = Path(root).expanduser()
    split_given = '@' in path.name and not path.exists()
    if split_given:
        name, _, split = root.rpartition('@')
        path = Path(name).expanduser()
    if not path.exists():
        raise UserError(f'{path}: no such file or folder')
    if path.is_dir() and not is_bag(path):
        if (path / 'ImageSets' / '480p').is_dir() or (path / 'JPEGImages' / '480p').is_dir():
            return _complete(read_davis(path, split))
        if (path / 'Trainingset').is_dir() or (path / 'Testset').is_dir():
            return _complete(read_fbms(path, split))
    if split_given:
        raise UserError(f'{root}: only DAVIS 2016 and FBMS-59 have splits; leave @{split} out')
    if not path.is_dir() or is_bag(path):
        return [_of_recording(path, topic)]
    if (path / 'JPEGImages').is_dir() and (path / 'GroundTruth').is_dir():
        return _complete(read_segtrack(path))
    return _of_folder(path, topic)


def roots_of(text: str) -> list[str]:
    """Split a comma-separated list of roots."""
    return [root.strip() for root in text.split(',') if root.strip()]


def unique_names(names: Sequence[str]) -> list[str]:
    """Return the names of clips with the suffix -2, -3 and so on where one is repeated."""
    unique: list[str] = []
    for given in names:
        name, number = given, 2
        while name in unique or (name != given and name in names):
            name = f'{given}-{number}'
            number += 1
        unique.append(name)
        if name != given:
            _log.info('%s exists twice; the later clip is called %s', given, name)
    return unique


def find_clips(roots: Sequence[str], split: str, topic: str | None = None, fps: float | None = None) -> list[ClipFiles]:
    """Find all clips, in the order of the roots, without opening videos and bags.

    Each root is a path, or ``path@split`` for another ``split`` (train, val, trainval): a data set in its published
    layout (DAVIS 2016, SegTrack v2, FBMS-59), a folder of images, a folder of such folders, videos or bags, a video, or
    a bag; ``topic`` and ``fps`` are as in :func:`open_source`. Raises UserError if a root, a split or a frame is
    missing, a layout is unknown, or no clip of a folder has two frames.
    """
    if not roots:
        raise UserError('no data was given; name a data set, a folder of frames, a video or a bag')
    try:
        clips = [clip for root in roots for clip in _read_root(root, split, topic)]
    except OSError as error:
        raise UserError(f'{error.filename} cannot be read: {error.strerror}') from error
    names = unique_names([clip.name for clip in clips])
    return [
        replace(clip, name=name, source=partial(clip.source, fps=fps)) for clip, name in zip(clips, names, strict=True)
    ]
