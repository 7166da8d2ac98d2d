"""Classical methods to compare the detector with, and the two that look at nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.evaluation.clips import Clip
from moving_object_detector.evaluation.methods import Method, Prediction
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.media.frames import SECOND, Frame, FrameSource

SIZE: Final = (256, 512)
GRID_STEP: Final = 8
INLIER: Final = 1.0
"""Pixels of SIZE by which a point of the background may miss the homography."""
HISTORY: Final = 500
VARIANCE_THRESHOLD: Final = 16.0
"""With HISTORY the defaults of OpenCV's MOG2: frames it learns over, squared Mahalanobis distance to the background."""


def residual_magnitude(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far flow (H, W, 2) is from a RANSAC homography fitted to a grid of it, (H, W) pixels."""
    height, width = flow.shape[:2]
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    start = GRID_STEP // 2
    sources = points[start::GRID_STEP, start::GRID_STEP].reshape(-1, 2)
    targets = (points + flow)[start::GRID_STEP, start::GRID_STEP].reshape(-1, 2)
    homography: Any = cv2.findHomography(sources, targets, cv2.RANSAC, INLIER)[0]
    if homography is None:  # degenerate flow that leads all points to one
        homography = np.eye(3)
    camera = cv2.perspectiveTransform(points.reshape(-1, 1, 2), homography).reshape(points.shape) - points
    return np.asarray(np.linalg.norm(flow - camera, axis=2), np.float32)


def otsu(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 255 where values are above the threshold that parts them best in two classes (Otsu 1979), 0 elsewhere."""
    scale = 65535.0 / max(float(values.max()), 1e-6)
    levels = np.round(values * scale).astype(np.uint16)
    threshold, _ = cv2.threshold(levels, 0, 65535, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.where(levels > threshold, np.uint8(255), np.uint8(0))


class _Baseline(Method):
    """A method of one variant, named as the baseline."""

    def __init__(self, name: str, constants: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        super().__init__(name, (name,), {'baseline': name, **constants}, details)

    def start(self, clip: Clip, source: FrameSource) -> None:
        """Begin a clip."""
        super().start(clip, source)
        self._begin()

    def _begin(self) -> None:
        """Forget the last clip; most have nothing to forget."""

    def _found(self, frame: Frame, index: int, mask: NDArray[np.uint8], seconds: float) -> tuple[Prediction, ...]:
        return (Prediction(index, self.name, frame.image, mask, latency=1000 * seconds),)


class _Waiting(NamedTuple):
    """A frame whose flow to the next one is not known yet, and the seconds spent on it so far."""

    frame: Frame
    place: int
    grey: NDArray[np.uint8]
    seconds: float


class HomographyResidual(_Baseline):
    """What DIS flow to the next frame leaves over from a homography, by Otsu's threshold; no learning, no memory.

    The last frame before the stream starts anew (by the detector's rule) has no next one and takes the one before it;
    a stream of one frame gets no mask.
    """

    def __init__(self) -> None:
        self._flow = DisFlow(SIZE, 'medium')
        constants = {'flow': self._flow.name, 'flow size': list(SIZE), 'grid': GRID_STEP, 'inlier': INLIER}
        super().__init__('homography', constants, {'flow': self._flow.name, 'opencv': cv2.__version__})
        self._begin()

    def _begin(self) -> None:
        self._waiting: _Waiting | None = None
        self._continuity = Continuity(round(ContinuityConfig.max_gap * SECOND))
        # The newest frame, and what its flow leads to should it stay the last: the one before.
        self._last: tuple[_Waiting, NDArray[np.uint8]] | None = None

    def step(self, frame: Frame, index: int) -> tuple[Prediction, ...]:
        """Take a frame; return the mask of the one before."""
        step = self._continuity.follow(frame.stamp, frame.image.shape)
        if step is Step.REPEATS:
            return ()
        ended: tuple[Prediction, ...] = ()
        if step.starts_anew:
            ended = self.finish()
            self._waiting = self._last = None
        started = time.perf_counter()
        grey = self._flow.features(frame.image)
        now = _Waiting(frame, index, grey, time.perf_counter() - started)
        before, self._waiting = self._waiting, now
        if before is None:
            return ended
        self._last = now, before.grey
        return (self._compare(before, grey, follows=index == before.place + 1),)

    def finish(self) -> tuple[Prediction, ...]:
        """Return the mask of the last frame."""
        return (self._compare(*self._last, follows=False),) if self._last is not None else ()

    def _compare(self, source: _Waiting, target: NDArray[np.uint8], *, follows: bool) -> Prediction:
        """Return the mask of a frame from its flow to another one; that flow too where this is the next one."""
        started = time.perf_counter()
        flow = self._flow.estimate([source.grey], [target], SIZE)[0].permute(1, 2, 0).numpy()
        size = (source.frame.image.shape[1], source.frame.image.shape[0])
        mask = cv2.resize(otsu(residual_magnitude(flow)), size, interpolation=cv2.INTER_NEAREST)
        milliseconds = 1000 * (source.seconds + time.perf_counter() - started)
        known = np.ascontiguousarray(flow) if follows else None
        image = source.frame.image
        return Prediction(source.place, self.name, image, np.asarray(mask, np.uint8), known, milliseconds)


class BackgroundSubtraction(_Baseline):
    """OpenCV's MOG2 (Zivkovic 2004) with its defaults, anew for each clip; what it takes for a shadow is no object.

    It models each pixel, so the camera must stand still.
    """

    def __init__(self) -> None:
        constants = {'history': HISTORY, 'variance threshold': VARIANCE_THRESHOLD, 'shadows': 'found and left out'}
        super().__init__('mog2', constants, {'opencv': cv2.__version__})
        self._begin()

    def _begin(self) -> None:
        self._subtractor = cv2.createBackgroundSubtractorMOG2(HISTORY, VARIANCE_THRESHOLD, detectShadows=True)

    def step(self, frame: Frame, index: int) -> tuple[Prediction, ...]:
        """Take a frame; return its mask."""
        started = time.perf_counter()
        labels = np.asarray(self._subtractor.apply(frame.image))
        mask = np.where(labels == 255, np.uint8(255), np.uint8(0))  # 127 is shadow
        return self._found(frame, index, mask, time.perf_counter() - started)


class Constant(_Baseline):
    """The same answer for every pixel: what a score is worth that looks at nothing."""

    def __init__(self, name: str, value: int) -> None:
        super().__init__(name, {}, {})
        self._value = value

    def step(self, frame: Frame, index: int) -> tuple[Prediction, ...]:
        """Take a frame; return its mask."""
        started = time.perf_counter()
        mask = np.full(frame.image.shape[:2], self._value, np.uint8)
        return self._found(frame, index, mask, time.perf_counter() - started)


_MAKE: Final[Mapping[str, Callable[[], Method]]] = {
    'homography': HomographyResidual,
    'mog2': BackgroundSubtraction,
    'everything': lambda: Constant('everything', 255),
    'nothing': lambda: Constant('nothing', 0),
}
BASELINES: Final = tuple(_MAKE)


def make_baseline(name: str) -> Method:
    """Return one of :data:`BASELINES`; raises UserError where there is no such."""
    if name not in _MAKE:
        raise UserError(f'no baseline {name!r}; choose one of {", ".join(BASELINES)}')
    return _MAKE[name]()
