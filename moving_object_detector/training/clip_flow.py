"""Flows between the frames of a clip, in one pass over it and flat memory."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import foreign
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.media.frames import Frame
from moving_object_detector.media.pixels import resize_image

Chunk: TypeAlias = tuple[int, NDArray[np.uint8], NDArray[np.float16]]
CHUNK: Final = 8
"""Frames that are computed, and lost by a kill, together."""
HALF_MAX: Final = 65504.0
"""The largest number of half precision."""

_log = logging.getLogger(__name__)


def to_half(flow: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """Round a clip's flow (pixels, any shape) to half precision; what is not a number becomes 0, with a warning."""
    finite = np.isfinite(flow)
    if not finite.all():
        _log.warning(
            '%s: %d values of its flow are not finite; they become 0 or the largest there is',
            foreign(name),
            (~finite).sum(),
        )
        flow = np.nan_to_num(flow, nan=0.0)
    return np.clip(flow, -HALF_MAX, HALF_MAX).astype(np.float16)


class Streams:
    """Which frames may be a pair: the detector's rule, by which at most ``max_gap`` seconds may lie between frames."""

    def __init__(self, max_gap: float = ContinuityConfig.max_gap) -> None:
        self.numbers: list[int] = []
        """Of each frame the stream that it is in; -1: a repetition, which pairs with nothing."""
        self._continuity = Continuity(round(max_gap * 1e9))
        self._last = 0

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        step = self._continuity.follow(frame.stamp, frame.image.shape)
        self._last += step.starts_anew
        self.numbers.append(-1 if step is Step.REPEATS else self._last)

    def warn(self, name: str) -> None:
        """Say where most frames start a stream anew."""
        if self._continuity.trouble:
            _log.warning('%s: %s', name, self._continuity.trouble)


class _Window:
    """What is kept of the frames around those that are computed next."""

    def __init__(
        self,
        name: str,
        streams: Streams,
        backend: FlowBackend,
        size: tuple[int, int],
        gaps: tuple[int, ...],
        every: int,
    ) -> None:
        self.features: dict[int, Any] = {}
        self.images: dict[int, NDArray[np.uint8]] = {}
        self._name = name
        self._streams = streams.numbers
        self._backend = backend
        self._size = size
        self._gaps = gaps
        self._every = every

    def forget_before(self, first: int) -> None:
        """Drop what no frame from ``first`` on needs."""
        reach = max(self._gaps)
        self.features = {index: kept for index, kept in self.features.items() if index >= first - reach}
        self.images = {index: kept for index, kept in self.images.items() if index >= first}

    def compute(self, number: int, batch: int) -> Chunk:
        """Return images and flows of a chunk; the flow to what is no pair is 0."""
        span = CHUNK * self._every
        frames = range(number * span, min((number + 1) * span, len(self._streams)), self._every)
        flows = np.zeros((len(frames), len(self._gaps), 2, *self._size), np.float16)
        pairs = [
            (row, column, index, index + gap)
            for row, index in enumerate(frames)
            for column, gap in enumerate(self._gaps)
            if index + gap in self.features and 0 <= self._streams[index] == self._streams[index + gap]
        ]
        for first in range(0, len(pairs), batch):
            rows, columns, sources, targets = zip(*pairs[first : first + batch], strict=True)
            found = self._backend.estimate(
                [self.features[index] for index in sources], [self.features[index] for index in targets], self._size
            )
            flows[list(rows), list(columns)] = to_half(found.cpu().numpy(), self._name)
        return number, np.stack([self.images[index] for index in frames]), flows


def clip_flows(
    name: str,
    frames: Iterable[Frame],
    streams: Streams,
    backend: FlowBackend,
    size: tuple[int, int],
    gaps: tuple[int, ...],
    batch: int,
    done: Collection[int] = (),
    every: int = 1,
) -> Iterator[Chunk]:
    """Yield the chunks of every n-th frame of a clip that are not ``done`` yet; ``streams`` is filled on the way.

    Features of a frame are computed once; in memory are those of one chunk and its neighbours. Pairs are grouped by
    their place in the clip, so that a run that goes on later computes the same batches.

    Yields:
        Number, images uint8 (n, height, width, 3) RGB, and flows float16 (n, gaps, 2, height, width) in pixels of
        ``size``, 0 where the neighbour is outside the clip or no pair; n is 8 but in the last chunk.

    """
    window = _Window(name, streams, backend, size, gaps, every)
    reach, span = max(gaps), CHUNK * every
    number = 0
    for index, frame in enumerate(frames):
        streams.add(frame)
        near = range(-(-max(index - reach, 0) // every), (index + reach) // every + 1)
        if any(one // CHUNK not in done for one in near):
            window.features[index] = backend.features(frame.image)
        if index % every == 0 and index // span not in done:
            window.images[index] = resize_image(frame.image, size)
        if index == (number + 1) * span - 1 + reach:
            if number not in done:
                yield window.compute(number, batch)
            number += 1
            window.forget_before(number * span)
    for last in range(number, -(-len(streams.numbers) // span)):
        if last not in done:
            yield window.compute(last, batch)
    streams.warn(name)
