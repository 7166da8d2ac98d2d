"""Targets of a student that sees cheap flow: masks of a teacher that sees better flow, made once and kept on disk.

Three vote on a frame, each by the mean over the frame's gaps: the teacher's generator on the better flow, the better
flow itself (what is fast in it without the camera's motion) and the student's first generator on its cheap flow. Their
errors differ, so what they agree on is learnt: the mean, fitted to the image by the CRF, as far as the votes are of one
side. Targets lie in the flow cache, in chunks as the flows, under a key of all that they depend on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import nn

from moving_object_detector.detection.refinement import grid_crf
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.weights import weights_hash
from moving_object_detector.training.chunks import Chunks, done_chunks, fill, read_item
from moving_object_detector.training.flow_cache import CHUNK, CachedClip
from moving_object_detector.training.selection import THRESHOLD, InputForm

TARGET_FORMAT: Final = 2
"""Of the files and of how targets are made; another number, another key."""
KIND: Final = 'target'
TARGET_CRF_ITERATIONS: Final = 5
LEAST_AGREEMENT: Final = 0.5
"""Overlap of the two votes most alike, below which a frame is left out."""
FASTEST: Final = 99.5
"""Percentile of the speed that counts as the fastest."""
STEEPNESS: Final = 6.0
"""Of the step from slow to fast, at the threshold."""


def fast(residual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where flow without the camera's motion (2, h, w) is fast, (h, w) in [0, 1]: 0.5 at Otsu's threshold."""
    speed = np.linalg.norm(residual, axis=0)
    levels = np.clip(speed * (255 / max(float(np.percentile(speed, FASTEST)), 1e-6)), 0, 255).astype(np.uint8)
    threshold = max(cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0], 1.0)
    return np.asarray(1 / (1 + np.exp(-STEEPNESS * (levels / threshold - 1))), np.float32)


@dataclass(frozen=True)
class Voter:
    """A generator that votes."""

    network: nn.Module
    form: InputForm

    @cached_property
    def key(self) -> str:
        """What its votes depend on."""
        return f'{weights_hash(self.network.state_dict())} {self.form.size} {self.form.flow_input}'

    def votes(self, clip: CachedClip, frame: int) -> tuple[NDArray[np.float32], ...]:
        """Return the mean mask of a frame over its gaps, and the mean of :func:`fast`, (h, w) each."""
        masks, flow = self.form.masks(self.network, clip, frame, clip.neighbours(frame))
        residual = (flow - fit_camera_motion(flow)).cpu().numpy()
        moving = [fast(one) if one.any() else np.zeros_like(one[0]) for one in residual]
        return np.asarray(masks.mean(0)[0].cpu().numpy(), np.float32), np.asarray(np.mean(moving, 0), np.float32)


def make_target(image: NDArray[np.uint8], votes: Sequence[NDArray[np.float32]]) -> NDArray[np.uint8]:
    """Return target and certainty of a frame (H, W, 3) from votes (h, w) in [0, 1], uint8 (2, H, W), 255 for 1.

    Certainty is 1 where all votes are of one side and 0 where they are divided, or if no two of them overlap by half.
    """
    size = (image.shape[0], image.shape[1])
    whole = np.stack([resize_image(vote, size) for vote in votes]).clip(0, 1)
    mean, found = whole.mean(0), whole > THRESHOLD
    overlaps = [jaccard(found[a], found[b]) for a in range(len(found)) for b in range(a)]
    agree = max(overlaps, default=1.0) >= LEAST_AGREEMENT
    certain = np.abs(2 * mean - 1) if agree else np.zeros_like(mean)
    target = grid_crf(np.ascontiguousarray(mean), image, TARGET_CRF_ITERATIONS)
    return np.asarray(np.rint(np.stack((target, certain)).clip(0, 1) * 255), np.uint8)


@dataclass(frozen=True)
class Lesson:
    """A clip by both flows."""

    better: CachedClip
    cheap: CachedClip
    teacher: Voter
    student: Voter

    def target(self, frame: int) -> NDArray[np.uint8]:
        """Return :func:`make_target` of a frame; nothing is certain where one of the flows has no pair."""
        if not self.better.neighbours(frame) or not self.cheap.neighbours(frame):
            return np.zeros((2, *self.better.size), np.uint8)
        by_better, by_cheap = self.teacher.votes(self.better, frame), self.student.votes(self.cheap, frame)
        return make_target(self.better.image(frame), (*by_better, by_cheap[0]))


@dataclass(frozen=True)
class Targets:
    """The targets of a clip, read from disk at each call."""

    folder: Path

    def __call__(self, frame: int) -> NDArray[np.uint8]:
        """Return target and certainty of a frame, uint8 (2, H, W); raises CacheError."""
        return np.array(read_item(self.folder, frame, CHUNK, KIND), np.uint8)


def taught(lessons: Sequence[Lesson], cache: Path) -> list[Targets]:
    """Return the targets of clips, computing what is not in the cache yet; raises UserError: the disk is full."""
    all_targets = []
    for one in lessons:
        better = one.better
        depends = f'{TARGET_FORMAT} {one.teacher.key} {one.student.key} {better.folder.name} {one.cheap.folder.name}'
        key = hashlib.blake2b(depends.encode(), digest_size=8).hexdigest()
        folder = cache / f'{better.folder.name.rpartition("-")[0]}-{key}'
        all_targets.append(Targets(folder))
        chunks = range(-(-better.frame_count // CHUNK))
        if set(chunks) - done_chunks(folder, (KIND,)):
            make = partial(_missing_targets, one, chunks)
            fill(folder, f'targets of {better.name}', (KIND,), len(chunks), make)
    return all_targets


def _missing_targets(lesson: Lesson, chunks: range, done: set[int]) -> Chunks:
    frames = range(lesson.better.frame_count)
    for number in sorted({*chunks} - done):
        yield number, [np.stack([lesson.target(frame) for frame in frames[number * CHUNK : (number + 1) * CHUNK]])]
