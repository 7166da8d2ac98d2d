"""Flows between the frames of a clip, in one pass over it and flat memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.frames import Frame
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.flow.base import FlowBackend

Block: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.int32]]
HALF_MAX: Final = 65504.0
"""The largest number of half precision."""


def to_half(flow: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round a flow to half precision; what is not a number becomes 0, what is too large the largest.

    Args:
        flow: Any shape, pixels.
        name: Of the clip, for the warning.

    """
    finite = np.isfinite(flow)
    if not finite.all():
        logging.getLogger(__name__).warning(
            '%s: %d values of its flow are not finite; they become 0 or the largest there is', name, (~finite).sum()
        )
        flow = np.nan_to_num(flow, nan=0.0)
    return np.clip(flow, -HALF_MAX, HALF_MAX).astype(np.float16)


def _resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=interpolation), np.uint8)


class _Streams:
    """Which frames may be a pair: the detector's rule, so that it is trained on what it sees."""

    def __init__(self, max_gap: float) -> None:
        self._continuity = Continuity(round(max_gap * 1e9))
        self._stream = 0
        self.anew = 0
        """Frames so far that started a stream anew."""

    def of(self, frame: Frame) -> int:
        """Return the number of the stream that the next frame is in; -1: a repetition, which pairs with nothing."""
        step = self._continuity.follow(frame.stamp, frame.image.shape)
        if step is Step.REPEATS:
            return -1
        self.anew += step.starts_anew
        self._stream += step.starts_anew
        return self._stream


class _Window:
    """What is kept of the frames around those that are computed next."""

    def __init__(self, name: str, backend: FlowBackend, size: tuple[int, int], gaps: tuple[int, ...]) -> None:
        self.features: dict[int, Any] = {}
        self.images: dict[int, NDArray[np.uint8]] = {}
        self.streams: list[int] = []
        self._name = name
        self._backend = backend
        self._size = size
        self._gaps = gaps

    def forget_before(self, first: int) -> None:
        """Drop what no frame from ``first`` on needs."""
        reach = max(self._gaps)
        self.features = {index: kept for index, kept in self.features.items() if index >= first - reach}
        self.images = {index: kept for index, kept in self.images.items() if index >= first}

    def compute(self, frames: range, batch: int) -> Block:
        """Return images, flows and streams of some frames; the flow to a neighbour that is not there is 0."""
        flows = np.zeros((len(frames), len(self._gaps), 2, *self._size), np.float16)
        pairs = [
            (row, column, index, index + gap)
            for row, index in enumerate(frames)
            for column, gap in enumerate(self._gaps)
            if index + gap in self.features and 0 <= self.streams[index] == self.streams[index + gap]
        ]
        for first in range(0, len(pairs), batch):
            rows, columns, sources, targets = zip(*pairs[first : first + batch], strict=True)
            found = self._backend.estimate(
                [self.features[index] for index in sources], [self.features[index] for index in targets], self._size
            )
            flows[list(rows), list(columns)] = to_half(found.cpu().numpy(), self._name)
        images = np.stack([self.images[index] for index in frames])
        return images, flows, np.array([self.streams[index] for index in frames], np.int32)


def clip_flows(
    name: str,
    frames: Iterable[Frame],
    backend: FlowBackend,
    size: tuple[int, int],
    gaps: tuple[int, ...],
    batch: int,
    first: int = 0,
    max_gap: float = ContinuityConfig.max_gap,
) -> Iterator[Block]:
    """Yield the clip from frame ``first`` on, some frames at a time.

    Features of a frame are computed once; in memory are those of the window and of one batch. Pairs are grouped
    by their place in the clip, so that a run that goes on later computes the same batches.

    Args:
        name: Of the clip.
        frames: All of it, in order.
        backend: Estimates the flow.
        size: (height, width) of the results.
        gaps: From a frame to its neighbours, the same forward and backward.
        batch: Pairs that the backend gets at once.
        first: Frames before this one are read, but not computed.
        max_gap: Seconds between two frames above which they are no pair.

    Yields:
        Images uint8 (n, height, width, 3) RGB, flows float16 (n, gaps, 2, height, width) in pixels of ``size``, 0
        where the neighbour is outside the clip or no pair, and int32 (n,): frames with the same number are in one
        continuous stream, -1 is in none.

    Raises:
        UserError: The clip has fewer than two frames or than ``first``.

    """
    window = _Window(name, backend, size, gaps)
    reach = max(gaps)
    block = max(1, batch // len(gaps))
    start, count = first, 0
    streams = _Streams(max_gap)
    for index, frame in enumerate(frames):
        window.streams.append(streams.of(frame))
        count = index + 1
        if index < start - reach:
            continue
        window.features[index] = backend.features(frame.image)
        if index >= start:
            window.images[index] = _resize(frame.image, size)
        if index == start + block - 1 + reach:
            yield window.compute(range(start, start + block), batch)
            start += block
            window.forget_before(start)
    if count < max(2, first):
        raise UserError(f'{name}: {count} frames could be read, which is too few; flow takes a pair of frames')
    for begin in range(start, count, block):
        yield window.compute(range(begin, min(begin + block, count)), batch)
    if 2 * streams.anew > count:
        logging.getLogger(__name__).warning(
            '%s: %d of %d frames start the stream anew, as their size changes or their stamps go back or leave a gap '
            'of more than %g s, so few pairs remain; is the frame rate or the clock of the recording right?',
            name,
            streams.anew,
            count,
            max_gap,
        )
