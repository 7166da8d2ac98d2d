"""Scoring what a method says of one clip, frame by frame, in flat memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import LONGEST_MESSAGE, ImageError, UserError, foreign
from moving_object_detector.common.files import write_atomically
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.detection.continuity import Continuity
from moving_object_detector.evaluation.clips import Clip, fingerprint
from moving_object_detector.evaluation.methods import Method, Prediction
from moving_object_detector.evaluation.metrics import PreparedTruth, count_objects
from moving_object_detector.evaluation.pictures import PicturePicker, draw_judged
from moving_object_detector.evaluation.results import COLUMNS, SequenceResult, VariantColumns
from moving_object_detector.evaluation.signals import Signals
from moving_object_detector.evaluation.summary import Protocol
from moving_object_detector.media.codecs import encode_png
from moving_object_detector.media.frames import SECOND, Frame
from moving_object_detector.media.video import VideoWriter

WAITING: Final = 64
"""Annotations kept for predictions that come late: above twice the largest window."""
PROBLEMS: Final = 20
"""Sentences kept of one clip."""
_STRETCH: Final = 0.02
"""By how much the ratio of sides of an annotation may differ from its image's: sides are rounded when resized."""


@dataclass(frozen=True)
class OutputOptions:
    """What is kept in the run's folder: ``masks/SEQUENCE/FRAME.png`` of every mask that counts, an MP4."""

    folder: Path
    masks: bool = False
    video: bool = False

    def lacks(self, result: SequenceResult) -> bool:
        """Tell whether a result was made without something that is wanted now."""
        return (self.video and not result.video) or (self.masks and not result.masks)


class SequencePass:
    """One pass of a method over one clip; what it is given is started anew, ``seen`` is called after each frame."""

    def __init__(
        self,
        clip: Clip,
        method: Method,
        protocol: Protocol,
        signals: Signals,
        output: OutputOptions,
        seen: Callable[[], object],
    ) -> None:
        self._clip, self._method, self._protocol, self._signals = clip, method, protocol, signals
        self._output, self._seen = output, seen
        self._problems = list(clip.problems)
        # The numbers of each variant, by column and frame.
        self._cells: dict[str, dict[str, dict[int, float]]] = {
            variant: {name: {} for name in COLUMNS} for variant in method.variants
        }
        self._latency: dict[int, float] = {}
        self._names: list[str] = []
        self._continuity = Continuity(round(ContinuityConfig.max_gap * SECOND))
        self._picker = PicturePicker()
        self._truth = lru_cache(WAITING)(self._read_truth)
        self._size = (0, 0)
        self._stretched = ''
        self._video: VideoWriter | None = None

    def run(self) -> SequenceResult:
        """Evaluate the whole clip.

        Raises UserError where it cannot be opened, has no frame that can be taken, or annotations of another shape
        alone.
        """
        begin = time.monotonic()
        source = self._clip.open()
        self._method.start(self._clip, source)
        self._signals.start()
        counting = self._method.variants[-1]
        video, taken = f'videos/{self._clip.name}.mp4', 0
        with ExitStack() as files:
            if self._output.video:
                self._video = files.enter_context(VideoWriter(self._output.folder / video, source.fps))
            for frame, index in self._frames(source):
                try:
                    self._take(self._method.step(frame, index), counting)
                    taken += 1
                except ImageError as error:
                    self._problem(f'frame {index} is left out: {error}')
                self._seen()
            self._take(self._method.finish(), counting)
        for problem in (*self._method.problems, self._continuity.trouble):
            self._problem(problem)
        if not taken:
            raise UserError(f'{self._clip.name}: not one frame could be read: {"; ".join(self._problems[:3])}')
        count = len(self._names)
        self._score_the_silent(count)
        # The cache refers to this pass and this pass to it: else both stay until the interpreter looks for cycles.
        self._truth.cache_clear()
        if self._stretched and not self._cells[counting]['j']:
            raise UserError(f'{self._clip.name}: {self._stretched}')
        return SequenceResult(
            name=self._clip.name,
            frame_count=count,
            size=self._size,
            fps=source.fps,
            seconds=time.monotonic() - begin,
            variants={variant: self._columns(variant, count) for variant in self._cells},
            signals=self._signals.columns(count),
            dropped=count - len(self._cells[counting]['area']),
            latency=tuple(value for _, value in sorted(self._latency.items())),
            problems=tuple(self._problems),
            pictures=self._picker.write(self._output.folder, self._clip.name),
            video=video if self._video and self._video.frame_count else '',
            masks=self._output.masks,
            footage=fingerprint((*self._clip.files, *self._method.files(self._clip))),
            groups=self._clip.groups,
        )

    def _columns(self, variant: str, count: int) -> VariantColumns:
        cells = self._cells[variant]
        return VariantColumns(**{name: tuple(map(cells[name].get, range(count))) for name in COLUMNS})

    def _problem(self, text: str) -> None:
        text = foreign(text, LONGEST_MESSAGE)
        if text and text not in self._problems and len(self._problems) < PROBLEMS:
            self._problems.append(text)

    def _frames(self, source: Iterable[Frame]) -> Iterator[tuple[Frame, int]]:
        """Yield each frame that can be read with its number; a damaged one is a problem, not the end."""
        frames = iter(source)
        while True:
            index = len(self._names)
            try:
                frame = next(frames, None)
            except ImageError as error:
                self._problem(f'frame {index} is left out: {error}')
                # A number for its annotation, which counts as missed.
                self._names.append('')
                continue
            except UserError as error:
                self._problem(f'the clip ends after {index} frames: {error}')
                return
            if frame is None:
                return
            if not any(self._size):
                self._size = (frame.image.shape[0], frame.image.shape[1])
            self._continuity.follow(frame.stamp, frame.image.shape)
            self._names.append(frame.name)
            yield frame, index

    def _read_truth(self, index: int) -> PreparedTruth | None:
        if self._clip.still:
            return PreparedTruth(np.zeros(self._size, np.bool_))
        annotation = self._clip.truth(index)
        if annotation is None:
            return None
        try:
            return PreparedTruth(annotation.read())
        except UserError as error:
            self._problem(f'the annotation of frame {index} is left out: {error}')
            return None

    def _fits(self, truth: PreparedTruth, size: tuple[int, int]) -> bool:
        """Tell whether an annotation has the shape of an image; one of another size may have, a turned one has not."""
        (height, width), (rows, columns) = truth.truth.shape, size
        if abs(width * rows - height * columns) <= _STRETCH * max(width * rows, height * columns):
            return True
        self._stretched = (
            f'an annotation is {width}x{height}, its image {columns}x{rows}: the shapes differ (is one of them turned '
            'by its EXIF orientation?), so it is not scored; store both alike'
        )
        self._problem(self._stretched)
        return False

    def _take(self, predictions: Iterable[Prediction], counting: str) -> None:
        for prediction in predictions:
            truth = self._truth(prediction.index)
            shape = (prediction.mask.shape[0], prediction.mask.shape[1])
            if truth is not None and not self._fits(truth, shape):
                truth = None
            cells = self._cells[prediction.variant]
            cells['area'][prediction.index] = float(np.count_nonzero(prediction.mask)) / prediction.mask.size
            j = None if truth is None else self._score(prediction.variant, prediction.index, prediction.mask, truth)
            if prediction.variant == counting:
                if prediction.latency is not None:
                    self._latency[prediction.index] = prediction.latency
                self._signals.add(prediction)
                self._keep(prediction, truth, j)

    def _score(self, variant: str, index: int, mask: NDArray[np.uint8], truth: PreparedTruth) -> float:
        height, width = truth.truth.shape
        if mask.shape != truth.truth.shape:
            self._problem(
                f'annotations are {width}x{height}, masks {mask.shape[1]}x{mask.shape[0]}: masks are resized to score'
            )
            mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
        prediction = mask > 0
        j, f = truth.scores(prediction)
        cells = self._cells[variant]
        for name, value in zip(COLUMNS, (j, f, *count_objects(prediction, truth.truth)), strict=False):
            cells[name][index] = value
        return j

    def _score_the_silent(self, count: int) -> None:
        """Score frames of which a variant said nothing as empty masks."""
        for variant, cells in self._cells.items():
            for index in range(count):
                truth = None if index in cells['area'] else self._truth(index)
                if truth is not None and self._fits(truth, self._size):
                    self._score(variant, index, np.zeros(truth.truth.shape, np.uint8), truth)

    def _keep(self, prediction: Prediction, truth: PreparedTruth | None, j: float | None) -> None:
        index, shown = prediction.index, None if truth is None else truth.truth
        if self._output.masks:
            name = Path(self._names[index]).stem
            path = self._output.folder / 'masks' / self._clip.name / f'{name}.png'
            write_atomically(path, encode_png(prediction.mask).tobytes())
        if self._video is not None:
            self._video.write(draw_judged(prediction.image, prediction.mask, shown))
        scored = self._protocol.scored(index, self._clip.frame_count, truth is not None)
        self._picker.take(index, j if scored else None, lambda: draw_judged(prediction.image, prediction.mask, shown))
