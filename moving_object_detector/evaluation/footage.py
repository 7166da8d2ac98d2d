"""From what the user names to the clips of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets import sequence as published
from moving_object_detector.datasets.annotation import Annotation
from moving_object_detector.datasets.bag import BAG_SUFFIXES, is_bag_folder
from moving_object_detector.datasets.collection import ClipFiles, find_clips
from moving_object_detector.datasets.davis import read_davis
from moving_object_detector.datasets.fbms import read_fbms
from moving_object_detector.datasets.folder import ImageFiles
from moving_object_detector.datasets.frames import natural_key
from moving_object_detector.datasets.masks import clip_annotations
from moving_object_detector.datasets.segtrack import read_segtrack
from moving_object_detector.evaluation.bag_clips import bag_clip
from moving_object_detector.evaluation.clips import EvaluationClip
from moving_object_detector.evaluation.rendered_clips import rendered_clips

PROTOCOLS: Final = {'davis2016': 'davis2016', 'segtrackv2': 'segtrackv2', 'fbms59': 'fbms59'}
"""By data set; all others are ``annotated``."""


@dataclass(frozen=True)
class Footage:
    """What is to be evaluated, as the user says it."""

    dataset: str
    """davis2016, segtrackv2, fbms59, folder, bag or rendered."""
    root: Path | None = None
    """Not needed for ``rendered``."""
    split: str = ''
    """Of a data set that has splits; empty: the one that is published for scoring."""
    masks: Path | None = None
    """Of ``folder``: the truth."""
    topic: str | None = None
    """Of ``bag``: the images."""
    mask_topic: str | None = None
    """Of ``bag``: the truth."""
    fps: float | None = None
    """Of frames that have no times of their own."""
    scenes: int = 6
    """Of ``rendered``: scenes with moving objects; for every third one there is another in which nothing moves."""
    scene_frames: int = 40


def _by_number(annotations: Sequence[Annotation | None], index: int, _: int) -> Annotation | None:
    return annotations[index] if index < len(annotations) else None


def _of_sequence(sequence: published.Sequence, *, fps: float | None, complete: bool) -> EvaluationClip:
    """Return a clip; ``complete`` says that the data set annotates every frame."""
    count, annotated = len(sequence.images), sum(annotation is not None for annotation in sequence.annotations)
    lacking = f'{count - annotated} of {count} frames have no annotation and are not scored; copy the data set again'
    return EvaluationClip(
        name=sequence.name,
        frame_count=count,
        open=partial(ImageFiles, sequence.name, sequence.images, fps=fps),
        truth=partial(_by_number, sequence.annotations),
        problems=(lacking,) if complete and annotated < count else (),
    )


def _of_files(clip: ClipFiles, annotations: Sequence[Annotation | None]) -> EvaluationClip:
    return EvaluationClip(
        name=clip.name,
        frame_count=clip.source().frame_count or 0,
        open=clip.source,
        truth=partial(_by_number, annotations),
    )


def _bags(footage: Footage, root: Path) -> tuple[list[EvaluationClip], list[str]]:
    paths = [root]
    if root.is_dir() and not is_bag_folder(root):
        there = sorted(root.iterdir(), key=lambda entry: natural_key(entry.name))
        paths = [entry for entry in there if is_bag_folder(entry) or entry.suffix in BAG_SUFFIXES]
    if not root.exists() or not paths:
        raise UserError(f'{root}: no bag here; give a rosbag2 folder, an .mcap, .db3 or .bag file, or a folder of such')
    return _those_that_open(partial(bag_clip, path, footage.topic, footage.mask_topic) for path in paths)


def _those_that_open(makers: Iterable[Callable[[], EvaluationClip]]) -> tuple[list[EvaluationClip], list[str]]:
    """Return the clips that can be made and what is wrong with the others; raises only if none can."""
    clips, problems = [], []
    last: UserError | None = None
    for make in makers:
        try:
            clips.append(make())
        except UserError as error:  # noqa: PERF203 (each recording on its own)
            problems.append(str(error))
            last = error
    if last is not None and not clips:
        raise last
    return clips, problems


def open_footage(footage: Footage) -> tuple[list[EvaluationClip], list[str]]:
    """Find the clips; no frame is decoded but the first of videos and bags.

    Returns:
        The clips, and a sentence about each recording that cannot be opened.

    Raises:
        UserError: The layout, the split, a topic or the masks are not there, or no recording can be opened; the
            message says what is there.

    """
    if footage.dataset == 'rendered':
        return rendered_clips(footage.scenes, footage.scene_frames), []
    root = footage.root
    if root is None:
        raise UserError(f'--dataset {footage.dataset} needs --root, the folder of the data')
    root = root.expanduser()
    if footage.dataset == 'bag':
        return _bags(footage, root)
    if footage.dataset == 'folder':
        clips = find_clips([str(root)], footage.split or 'val')
        truth = {clip.name: clip.annotations for clip in clips}
        if footage.masks is not None:
            truth |= clip_annotations({clip.name: clip.files for clip in clips}, footage.masks)
        return _those_that_open(partial(_of_files, clip, truth[clip.name]) for clip in clips)
    sequences = _read_published(footage, root)
    complete = footage.dataset != 'fbms59'
    return [_of_sequence(sequence, fps=footage.fps, complete=complete) for sequence in sequences], []


def _read_published(footage: Footage, root: Path) -> list[published.Sequence]:
    if footage.dataset == 'davis2016':
        return read_davis(root, footage.split or 'val')
    if footage.dataset == 'segtrackv2':
        return read_segtrack(root)
    return read_fbms(root, footage.split or 'test')
