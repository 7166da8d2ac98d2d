"""Classical methods to compare the detector with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.datasets.folder import read_image
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.detection.regions import Region
from moving_object_detector.flow.dis import DisFlow

SIZE: Final = (256, 512)
GRID_STEP: Final = 8
INLIER: Final = 1.0
"""Pixels of SIZE by which a point of the background may miss the homography."""


@dataclass(frozen=True)
class Finding:
    """What a baseline says of one frame."""

    index: int
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    mask: NDArray[np.uint8]
    """(H, W), 255 where something moves on its own."""
    regions: tuple[Region, ...] = ()


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


def homography_residual(sequence: Sequence) -> Iterator[Finding]:
    """Yield what DIS flow to the next frame leaves over from a homography, by Otsu's threshold; no learning, no memory.

    The last frame has no next one and takes the one before it.
    """
    backend = DisFlow(SIZE, 'medium')
    images = (read_image(path) for path in sequence.images)
    previous: tuple[NDArray[np.uint8], Any] | None = None
    for index, image in enumerate(images):
        features = backend.features(image)
        if previous is not None:
            yield _finding(backend, index - 1, previous[0], previous[1], features)
        last, previous = previous, (image, features)
    if previous is not None and last is not None:
        yield _finding(backend, len(sequence.images) - 1, previous[0], previous[1], last[1])


def _finding(backend: DisFlow, index: int, image: NDArray[np.uint8], source: Any, target: Any) -> Finding:
    flow = backend.estimate([source], [target], SIZE)[0].permute(1, 2, 0).numpy()
    mask = otsu(residual_magnitude(flow))
    size = (image.shape[1], image.shape[0])
    return Finding(index, image, np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8))


BASELINES: Final = {'homography': homography_residual}
