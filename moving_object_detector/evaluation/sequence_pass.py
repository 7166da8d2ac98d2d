"""Scoring what a method says of one clip, frame by frame, in flat memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.datasets.frames import Frame
from moving_object_detector.evaluation.clips import EvaluationClip
from moving_object_detector.evaluation.method import Finding, Method
from moving_object_detector.evaluation.metrics import PreparedTruth
from moving_object_detector.evaluation.objects import count_objects
from moving_object_detector.evaluation.pictures import PicturePicker, draw_judged
from moving_object_detector.evaluation.protocols import find_protocol
from moving_object_detector.evaluation.results import SequenceResult, VariantColumns
from moving_object_detector.evaluation.signals import Signals
from moving_object_detector.tools.video import VideoWriter

WAITING: Final = 64
"""Annotations kept for findings that come late: above twice the largest window."""
PROBLEMS: Final = 20
"""Sentences kept of one clip."""
COLUMNS: Final = ('j', 'f', 'objects', 'found', 'false', 'area')


@dataclass(frozen=True)
class Keeping:
    """What of a clip is kept besides numbers."""

    folder: Path
    """The run's."""
    masks: bool = False
    """PNG of every mask that counts."""
    video: bool = False
    """MP4 with mask and truth outlined."""
    pictures: bool = True


@dataclass
class _Cells:
    """The numbers of a variant, by frame."""

    values: dict[str, dict[int, float]] = field(default_factory=lambda: {name: {} for name in COLUMNS})

    def columns(self, count: int) -> VariantColumns:
        return VariantColumns(
            **{name: tuple(cells.get(index) for index in range(count)) for name, cells in self.values.items()}
        )


class SequencePass:
    """One pass of a method over one clip.

    Args:
        clip: The footage and its truth.
        method: Started anew.
        protocol: By which pictures of best and worst frames are chosen.
        signals: Signals of quality, started anew.
        keeping: What to write besides.
        seen: Called after each frame read.

    """

    def __init__(
        self,
        clip: EvaluationClip,
        method: Method,
        protocol: str,
        signals: Signals,
        keeping: Keeping,
        seen: Callable[[], object],
    ) -> None:
        self._clip = clip
        self._method = method
        self._protocol = find_protocol(protocol)
        self._signals = signals
        self._keeping = keeping
        self._seen = seen
        self._problems = list(clip.problems)
        self._cells = {variant: _Cells() for variant in method.variants}
        self._latency: dict[int, float] = {}
        self._stamps: list[int] = []
        self._picker = PicturePicker()
        self._truth = lru_cache(WAITING)(self._read_truth)
        self._size = (0, 0)
        self._files = ExitStack()
        self._video: VideoWriter | None = None

    def run(self) -> SequenceResult:
        """Evaluate the whole clip.

        Raises:
            UserError: It cannot be opened, or has no frame that can be read.

        """
        begin = time.monotonic()
        source = self._clip.open()
        for problem in self._method.start(self._clip.name, source):
            self._problem(problem)
        self._signals.start()
        counting = self._method.variants[-1]
        video = ''
        with self._files:
            if self._keeping.video:
                video = f'videos/{self._clip.name}.mp4'
                self._video = self._files.enter_context(VideoWriter(self._keeping.folder / video, source.fps))
            for frame, index in self._frames(source):
                self._take(self._method.step(frame, index), counting)
                self._seen()
            self._take(self._method.finish(), counting)
        if not any(self._size):
            raise UserError(f'{self._clip.name}: not one frame could be read: {"; ".join(self._problems[:3])}')
        count = len(self._stamps)
        self._score_the_silent(count)
        # The cache refers to this pass and this pass to it: else both stay until the interpreter looks for cycles.
        self._truth.cache_clear()
        pictures = self._picker.write(self._keeping.folder, self._clip.name) if self._keeping.pictures else ()
        return SequenceResult(
            name=self._clip.name,
            frame_count=count,
            size=self._size,
            fps=source.fps,
            seconds=time.monotonic() - begin,
            variants={name: cells.columns(count) for name, cells in self._cells.items()},
            signals=self._signals.columns(count),
            dropped=count - len(self._cells[counting].values['area']),
            latency=tuple(value for _, value in sorted(self._latency.items())),
            problems=tuple(self._problems),
            pictures=pictures,
            video=video if self._video and self._video.frame_count else '',
        )

    def _problem(self, text: str) -> None:
        if text not in self._problems and len(self._problems) < PROBLEMS:
            self._problems.append(text)

    def _frames(self, source: Iterable[Frame]) -> Iterator[tuple[Frame, int]]:
        """Yield each frame that can be read with its number; a damaged one is a problem, not the end."""
        frames = iter(source)
        while True:
            index = len(self._stamps)
            try:
                frame = next(frames, None)
            except ImageError as error:
                self._problem(f'frame {index} is left out: {error}')
                # A number for its annotation, which counts as missed.
                self._stamps.append(self._stamps[-1] + 1 if self._stamps else 0)
                continue
            except UserError as error:
                self._problem(f'the clip ends after {index} frames: {error}')
                return
            if frame is None:
                return
            if not any(self._size):
                self._size = (frame.image.shape[0], frame.image.shape[1])
            self._stamps.append(frame.stamp)
            yield frame, index

    def _read_truth(self, index: int) -> PreparedTruth | None:
        if self._clip.still:
            return PreparedTruth(np.zeros(self._size, np.bool_))
        annotation = self._clip.truth(index, self._stamps[index])
        if annotation is None:
            return None
        try:
            return PreparedTruth(annotation.read())
        except UserError as error:
            self._problem(f'the annotation of frame {index} is left out: {error}')
            return None

    def _take(self, findings: Iterable[Finding], counting: str) -> None:
        for finding in findings:
            truth = self._truth(finding.index)
            cells = self._cells[finding.variant].values
            cells['area'][finding.index] = float(np.count_nonzero(finding.mask)) / finding.mask.size
            j = self._score(finding.variant, finding.index, finding.mask, truth)
            if finding.variant == counting:
                if finding.latency is not None:
                    self._latency[finding.index] = finding.latency
                self._signals.add(finding)
                self._keep(finding, truth, j)

    def _score(self, variant: str, index: int, mask: NDArray[np.uint8], truth: PreparedTruth | None) -> float | None:
        if truth is None:
            return None
        height, width = truth.truth.shape
        if mask.shape != truth.truth.shape:
            self._problem(
                f'annotations are {width}x{height}, images {mask.shape[1]}x{mask.shape[0]}: masks are resized to score'
            )
            mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
        prediction = mask > 0
        values = (*truth.scores(prediction), *count_objects(prediction, truth.truth))
        cells = self._cells[variant].values
        for name, value in zip(COLUMNS, values, strict=False):
            cells[name][index] = value
        return values[0]

    def _score_the_silent(self, count: int) -> None:
        """Score frames of which a variant said nothing as empty masks."""
        for variant, cells in self._cells.items():
            for index in range(count):
                truth = None if index in cells.values['area'] else self._truth(index)
                if truth is not None:
                    self._score(variant, index, np.zeros(truth.truth.shape, np.uint8), truth)

    def _keep(self, finding: Finding, truth: PreparedTruth | None, j: float | None) -> None:
        keeping = self._keeping
        shown = None if truth is None else truth.truth
        if keeping.masks:
            path = keeping.folder / 'masks' / self._clip.name / f'{finding.index:05d}.png'
            write_atomically(path, cv2.imencode('.png', finding.mask)[1].tobytes())
        if self._video is not None:
            self._video.write(draw_judged(finding.image, finding.mask, shown))
        if keeping.pictures:
            scored = self._protocol.scored(finding.index, self._clip.frame_count, truth is not None)
            self._picker.take(
                finding.index, j if scored else None, lambda: draw_judged(finding.image, finding.mask, shown)
            )
