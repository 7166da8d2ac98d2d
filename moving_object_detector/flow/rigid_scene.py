"""Test of whether a rigid scene seen by a moving camera explains the flow of a region.

The flow of static points is along the lines through the epipole (:mod:`~moving_object_detector.flow.travel`), in
proportion to their inverse depth. A moving object leaves its line, or its flow implies a depth behind the camera or
beyond everything around it.

Each direction of travel is weighted by how well it explains the flow outside the region. If only the region itself
could tell the direction (the camera only rotates, or one object moves in front of a plane), many directions remain, few
of which explain the region, or they disagree on the sense of travel; then it counts as moving.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.flow.travel import Array, Travel

# Tolerances for the flow of static pixels across their line and on its impossible side, thousandths of the image width.
OFF_LINE: Final = 0.6
WRONG_SIDE: Final = 0.8
# Share of the parallax outside the region that must agree on the sense of travel.
AGREEMENT: Final = 0.75
# Local contrast, in grey levels at the flow's size, from which flow is reliable.
CONTRAST: Final = 2.0
CONTRAST_WINDOW: Final = 7
# Change of an image by noise alone, grey levels.
GREY_NOISE: Final = 1.5
# Number of likely directions of travel that judge a region.
MOST_DIRECTIONS: Final = 6
# Inner and outer distance of a region's surroundings, as shares of the width, and their percentile taken as farthest.
BESIDE_GAP: Final = 0.02
BESIDE_MARGIN: Final = 0.042
FARTHEST_PERCENTILE: Final = 15.0


class Texture:
    """Contrast of an image by place and direction, which determines where flow is reliable.

    Args:
        tensor: (3, h, w), the structure tensor xx, xy, yy, in squared grey levels per pixel.

    """

    def __init__(self, tensor: Array) -> None:
        self.tensor = tensor

    @classmethod
    def of(cls, grey: NDArray[np.uint8]) -> Texture:
        """Return the texture of a grey image (h, w) at the flow's size."""
        dx, dy = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, *axes, scale=0.125), np.float32) for axes in ((1, 0), (0, 1)))
        window = (CONTRAST_WINDOW, CONTRAST_WINDOW)
        parts = (dx * dx, dx * dy, dy * dy)
        return cls(np.stack([np.asarray(cv2.blur(part, window), np.float32) for part in parts]))

    @cached_property
    def enough(self) -> float:
        """Gradient power from which flow is reliable; lower in an image with low contrast all over."""
        return max(min(CONTRAST**2, 0.25 * float(np.percentile(self.tensor[0] + self.tensor[2], 75))), 1e-6)

    @cached_property
    def contrast(self) -> Array:
        """Contrast relative to what flow needs, (h, w) in [0, 1]; 0 in a clear sky."""
        return np.asarray(np.minimum((self.tensor[0] + self.tensor[2]) / self.enough, 1.0), np.float32)


def _box(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


class Contradiction(NamedTuple):
    """How much of a region's flow contradicts a rigid scene."""

    share: float
    """Share of the reliable flow, in [0, 1]; 1 if the camera's motion is not determined."""
    known: float
    """Reliability of the region's flow, from its contrast and the part that stays in view, in [0, 1]."""


def contradiction(region: NDArray[np.bool_], flow: Array, travel: Travel, texture: Texture) -> Contradiction:
    """Measure how much of a region's flow is off its epipolar line, behind the camera, or beyond the surroundings.

    Flow in a direction is weighted by the contrast in it, and contradicts only where flow without the error would
    change the image by more than noise.

    Args:
        region: (h, w); an empty one has no reliable flow.
        flow: (2, h, w), pixels.
        travel: The camera's motion in this pair.
        texture: The texture of the image on which the flow is defined.

    """
    if not region.any():
        return Contradiction(0.0, 0.0)
    field = travel.field
    height, width = field.size
    grown = cv2.dilate(region.astype(np.uint8), _box(max(1, round(0.01 * width))))
    belief, directions, rotations, agreement = travel.likely(
        (field.cell_means(grown.astype(np.float32)) > 0.1).astype(np.float32), MOST_DIRECTIONS
    )
    pixels = np.flatnonzero(region)
    positions = field.pixels.at(pixels)
    length = positions.lengths(directions)
    moments = positions.moments(travel.vectors(flow, pixels))
    off, along = positions.split(moments, directions, rotations, length)

    x, y = (part.ravel()[pixels] + place for part, place in zip(flow, (pixels % width, pixels // width), strict=True))
    in_view = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
    fx, fy = field.focal
    xx, xy, yy = texture.tensor.reshape(3, -1)[:, pixels] * np.array((fx * fx, fx * fy, fy * fy))[:, None]
    a, b = positions.lines(directions)
    steep = (
        np.maximum(a * a * xx + 2 * a * b * xy + b * b * yy, 0),
        np.maximum(b * b * xx - 2 * a * b * xy + a * a * yy, 0),
    )
    enough = fx * fy * texture.enough
    along_known, across_known = (np.minimum(power / enough, 1) * in_view for power in steep)

    wrong = WRONG_SIDE * field.unit
    bad = _clear(np.abs(off), max(OFF_LINE * field.unit, 3 * travel.noise), steep[1]) * across_known
    for nearest in (0.0, _farthest(region, flow, travel, directions, rotations)):
        bad = np.maximum(bad, _clear(nearest * length - along, wrong, steep[0]) * along_known)
    known = np.maximum(along_known, across_known)
    share = float(belief @ bad.sum(1)) / max(float(belief @ known.sum(1)), 1e-6)
    return Contradiction(share if agreement >= AGREEMENT else 1.0, float(belief @ known.mean(1)))


def _clear(error: Array, tolerance: float, steepness: Array) -> NDArray[np.bool_]:
    """Tell where an error of flow exceeds a tolerance, and the change of the image that it implies the noise."""
    return np.asarray((error > tolerance) & (error * np.sqrt(steepness) > GREY_NOISE), np.bool_)


def _farthest(
    region: NDArray[np.bool_], flow: Array, travel: Travel, directions: Array, rotations: Array
) -> NDArray[np.floating]:
    """Return the inverse depth of the farthest surroundings of a region for each direction, (s, 1)."""
    width = travel.field.size[1]
    small = region.astype(np.uint8)
    outer, inner = (_box(max(least, round(share * width))) for least, share in ((2, BESIDE_MARGIN), (1, BESIDE_GAP)))
    beside = np.flatnonzero(cv2.dilate(small, outer) - cv2.dilate(small, inner))
    if not beside.size:
        return np.zeros((len(directions), 1), np.float32)
    beside = beside[:: max(1, beside.size // 200)]
    positions = travel.field.pixels.at(beside)
    length = positions.lengths(directions)
    _, along = positions.split(positions.moments(travel.vectors(flow, beside)), directions, rotations, length)
    along /= length
    # By rank, since NumPy's percentile takes ten times as long for so few values.
    rank = round(FARTHEST_PERCENTILE / 100 * (along.shape[1] - 1))
    return np.asarray(np.partition(along, rank, 1)[:, rank, None], np.float32)
