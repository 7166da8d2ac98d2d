"""Classical methods to compare the detector with, and the two that look at nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

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


class _Held(NamedTuple):
    """A frame whose flow to the next one is not known yet."""

    frame: Frame
    number: int
    features: NDArray[np.uint8]


class HomographyResidual(Method):
    """What DIS flow to the next frame leaves over from a homography, by Otsu's threshold; no learning, no memory.

    The last frame before the stream starts anew (by the detector's rule) has no next one and takes the one before it;
    a stream of one frame gets no mask.
    """

    def __init__(self) -> None:
        self._flow = DisFlow(SIZE, 'medium')
        constants = {'flow': self._flow.name, 'flow size': list(SIZE), 'grid': GRID_STEP, 'inlier': INLIER}
        details = {'flow': self._flow.name, 'opencv': cv2.__version__}
        super().__init__(('homography',), {'baseline': 'homography', **constants}, details)

    def start(self, clip: Clip, source: FrameSource) -> None:
        """Begin a clip."""
        super().start(clip, source)
        self._continuity = Continuity(round(ContinuityConfig.max_gap * SECOND))
        self._before: _Held | None = None
        self._held: _Held | None = None

    def step(self, frame: Frame, index: int) -> Iterator[Prediction]:
        """Take a frame; yield the mask of the one before."""
        step = self._continuity.follow(frame.stamp, frame.image.shape)
        if step is Step.REPEATS:
            return
        if step.starts_anew:
            yield from self.finish()
            self._held = None
        self._before, self._held = self._held, _Held(frame, index, self._flow.features(frame.image))
        if self._before is not None:
            yield self._predict(self._before, self._held)

    def finish(self) -> Iterator[Prediction]:
        """Yield the mask of the last frame."""
        if self._held is not None and self._before is not None:
            yield self._predict(self._held, self._before)

    def _predict(self, source: _Held, target: _Held) -> Prediction:
        """Return the mask of a frame by its flow to another one; with the flow where that is the next one."""
        flow = self._flow.estimate([source.features], [target.features], SIZE)[0].permute(1, 2, 0).numpy()
        image = source.frame.image
        mask = cv2.resize(otsu(residual_magnitude(flow)), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        known = np.ascontiguousarray(flow) if target.number == source.number + 1 else None
        return Prediction(source.number, self.variants[0], image, np.asarray(mask, np.uint8), known)


class BackgroundSubtraction(Method):
    """OpenCV's MOG2 (Zivkovic 2004) with its defaults, anew for each clip; what it takes for a shadow is no object.

    It models each pixel, so the camera must stand still.
    """

    def __init__(self) -> None:
        constants = {'history': HISTORY, 'variance threshold': VARIANCE_THRESHOLD, 'shadows': 'found and left out'}
        super().__init__(('mog2',), {'baseline': 'mog2', **constants}, {'opencv': cv2.__version__})

    def start(self, clip: Clip, source: FrameSource) -> None:
        """Begin a clip."""
        super().start(clip, source)
        self._subtractor = cv2.createBackgroundSubtractorMOG2(HISTORY, VARIANCE_THRESHOLD, detectShadows=True)

    def step(self, frame: Frame, index: int) -> tuple[Prediction]:
        """Take a frame; return its mask."""
        labels = np.asarray(self._subtractor.apply(frame.image))
        mask = np.where(labels == 255, np.uint8(255), np.uint8(0))  # 127 is shadow
        return (Prediction(index, self.variants[0], frame.image, mask),)


class Constant(Method):
    """The same answer for every pixel: what a score is worth that looks at nothing."""

    def __init__(self, name: str, value: int) -> None:
        super().__init__((name,), {'baseline': name}, {})
        self._value = value

    def step(self, frame: Frame, index: int) -> tuple[Prediction]:
        """Take a frame; return its mask."""
        mask = np.full(frame.image.shape[:2], self._value, np.uint8)
        return (Prediction(index, self.variants[0], frame.image, mask),)


BASELINES: Final[Mapping[str, Callable[[], Method]]] = {
    'homography': HomographyResidual,
    'mog2': BackgroundSubtraction,
    'everything': lambda: Constant('everything', 255),
    'nothing': lambda: Constant('nothing', 0),
}
