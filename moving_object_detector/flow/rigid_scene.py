"""How much of a region's flow a rigid scene explains, seen by a camera that travels.

What stands still moves along the lines through the epipole (:mod:`~moving_object_detector.flow.travel`); by how much
says how near it is. What moves on its own leaves its line, or would have to be behind the camera, or farther than all
that surrounds it.

Each direction of travel is weighed by how well it explains the flow outside the region in question. Where nothing but
that region tells the direction (the camera only turns, or one object moves before a plane) many directions remain, few
of which explain the region, or they do not agree on which way the camera goes; then nothing is said.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.flow.travel import Array, Travel

# Thousandths of the image width: distance from the line that a still pixel may have, and how far on the impossible side
# it may be.
OFF_LINE: Final = 0.6
WRONG_SIDE: Final = 0.8
# Share of the parallax outside the region that must agree on which way the camera goes.
AGREEMENT: Final = 0.75
# Grey levels of local contrast from which flow is known, at the flow's size.
CONTRAST: Final = 2.0
CONTRAST_WINDOW: Final = 7
# Grey levels by which an image changes by its noise alone.
GREY_NOISE: Final = 1.5
# Directions of travel that a region is judged by.
MOST_DIRECTIONS: Final = 6
# Shares of the width between which a region's surroundings lie, and percentile of them that counts as the farthest.
BESIDE_GAP: Final = 0.02
BESIDE_MARGIN: Final = 0.042
FARTHEST_PERCENTILE: Final = 15.0


class Texture:
    """Where and in which direction an image has contrast, of which flow is known.

    Args:
        tensor: (3, h, w), its structure tensor xx, xy, yy, squared grey levels per pixel.

    """

    def __init__(self, tensor: Array) -> None:
        self.tensor = tensor

    @classmethod
    def of(cls, grey: NDArray[np.uint8]) -> Texture:
        """Return that of an image (h, w), at the flow's size."""
        dx, dy = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, *axes, scale=0.125), np.float32) for axes in ((1, 0), (0, 1)))
        window = (CONTRAST_WINDOW, CONTRAST_WINDOW)
        parts = (dx * dx, dx * dy, dy * dy)
        return cls(np.stack([np.asarray(cv2.blur(part, window), np.float32) for part in parts]))

    @cached_property
    def enough(self) -> float:
        """The power of gradients that flow needs; in an image that is dim all over, it follows what there is."""
        return max(min(CONTRAST**2, 0.25 * float(np.percentile(self.tensor[0] + self.tensor[2], 75))), 1e-6)

    @cached_property
    def contrast(self) -> Array:
        """How far the image has the contrast that flow needs, (h, w) in [0, 1]; 0 in a clear sky."""
        return np.asarray(np.minimum((self.tensor[0] + self.tensor[2]) / self.enough, 1.0), np.float32)


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


class Contradiction(NamedTuple):
    """What of a region's flow contradicts a rigid scene."""

    share: float
    """In [0, 1], of what is known of the flow; 1 where the camera's travel is not determined."""
    known: float
    """How far the region's flow is known, by its contrast and by what stays in view, in [0, 1]."""


def contradiction(region: NDArray[np.bool_], flow: Array, travel: Travel, texture: Texture) -> Contradiction:
    """Say how much of a region's flow is off the lines of a rigid scene, behind the camera, or too far away.

    Flow counts in a direction as far as the image has contrast there, and as a contradiction where the image would
    change by more than its noise if the flow were another.

    Args:
        region: (h, w); of an empty one nothing is known.
        flow: (2, h, w), pixels.
        travel: Of this pair.
        texture: Of the image.

    """
    if not region.any():
        return Contradiction(0.0, 0.0)
    field = travel.field
    height, width = field.size
    grown = cv2.dilate(region.astype(np.uint8), _disc(max(1, round(0.01 * width))))
    belief, directions, rotations, agreement = travel.likely(
        (field.cell_means(grown.astype(np.float32)) > 0.1).astype(np.float32), MOST_DIRECTIONS
    )
    pixels = np.flatnonzero(region)
    positions = field.pixels.at(pixels)
    length = positions.lengths(directions)
    moments = positions.moments(travel.vectors(flow, pixels))
    off, along = positions.split(moments, directions, rotations, length)

    x, y = (part.ravel()[pixels] + place for part, place in zip(flow, (pixels % width, pixels // width), strict=True))
    seen = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).astype(np.float32)
    fx, fy = field.focal
    xx, xy, yy = texture.tensor.reshape(3, -1)[:, pixels] * np.array((fx * fx, fx * fy, fy * fy))[:, None]
    a, b = positions.lines(directions)
    steep = (
        np.maximum(a * a * xx + 2 * a * b * xy + b * b * yy, 0),
        np.maximum(b * b * xx - 2 * a * b * xy + a * a * yy, 0),
    )
    enough = fx * fy * texture.enough
    along_known, across_known = (np.minimum(power / enough, 1) * seen for power in steep)

    wrong = WRONG_SIDE * field.unit
    bad = _clear(np.abs(off), max(OFF_LINE * field.unit, 3 * travel.noise), steep[1]) * across_known
    for nearest in (0.0, _farthest(region, flow, travel, directions, rotations)):
        bad = np.maximum(bad, _clear(nearest * length - along, wrong, steep[0]) * along_known)
    known = np.maximum(along_known, across_known)
    share = float(belief @ bad.sum(1)) / max(float(belief @ known.sum(1)), 1e-6)
    return Contradiction(share if agreement >= AGREEMENT else 1.0, float(belief @ known.mean(1)))


def _clear(error: Array, tolerance: float, steepness: Array) -> NDArray[np.bool_]:
    """Tell where flow errs by more than a tolerance, and the image by more than its noise."""
    return np.asarray((error > tolerance) & (error * np.sqrt(steepness) > GREY_NOISE), np.bool_)


def _farthest(
    region: NDArray[np.bool_], flow: Array, travel: Travel, directions: Array, rotations: Array
) -> NDArray[np.floating]:
    """Return the parallax of the farthest that surrounds a region, per length of A T, (s, 1)."""
    width = travel.field.size[1]
    small = region.astype(np.uint8)
    outer, inner = (_disc(max(least, round(share * width))) for least, share in ((2, BESIDE_MARGIN), (1, BESIDE_GAP)))
    beside = np.flatnonzero(cv2.dilate(small, outer) - cv2.dilate(small, inner))
    if not beside.size:
        return np.zeros((len(directions), 1), np.float32)
    beside = beside[:: max(1, beside.size // 200)]
    positions = travel.field.pixels.at(beside)
    length = positions.lengths(directions)
    _, along = positions.split(positions.moments(travel.vectors(flow, beside)), directions, rotations, length)
    along /= length
    # By rank: NumPy's percentile takes ten times as long for so few.
    rank = round(FARTHEST_PERCENTILE / 100 * (along.shape[1] - 1))
    return np.asarray(np.partition(along, rank, 1)[:, rank, None], np.float32)
