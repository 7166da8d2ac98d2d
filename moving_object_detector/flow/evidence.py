"""What a pair of frames says about each pixel beside its flow: whether a rigid scene explains it, whether it is right.

Flow alone does not tell what is near from what moves. With the camera's travel estimated
(:mod:`~moving_object_detector.flow.travel`) it splits into a part off the lines through the epipole, which nothing
that stands still has, and a part along them, which says how near a still thing would be. Where the flow of the pair and
that of the reversed pair do not cancel, one of them is wrong, as at occlusions (Sundaram, Brox and Keutzer, ECCV 2010).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.flow.base import grey_image
from moving_object_detector.flow.rigid_scene import Texture
from moving_object_detector.flow.travel import Array, Travel, assumed_camera, estimate_travel

EVIDENCE_CHANNELS: Final = 5
# Directions of travel that are averaged over, by their likelihood.
MOST_DIRECTIONS: Final = 6
# Share of the focal length within which lines through the epipole fade out.
EPIPOLE: Final = 0.05
LARGEST: Final = 6.0
"""Limit of the first two channels and of the last; that of the third is a third of it."""
OUT_OF_VIEW: Final = 3.0
"""Inconsistency of pixels that leave the image, of which nothing is known."""


def _compressed(values: NDArray[np.floating]) -> Array:
    """Return the inverse hyperbolic sine to 1e-6; by a logarithm, ten times as fast as NumPy's and PyTorch's own."""
    size = np.abs(np.asarray(values, np.float32))
    root = size * size
    root += 1
    size += np.sqrt(root, root)
    return np.asarray(np.copysign(np.log(size, size), values, size), np.float32)


def inconsistency(flow: Array, reverse: Array) -> Array:
    """Return how far the flow and the reversed pair's flow at its end are from cancelling.

    Args:
        flow: (2, h, w), pixels.
        reverse: (2, h, w), from the other frame back, pixels.

    Returns:
        (h, w), inverse hyperbolic sine of the distance in thousandths of the width; :data:`OUT_OF_VIEW` where the flow
        leaves the image.

    """
    height, width = flow.shape[1:]
    x = flow[0] + np.arange(width, dtype=np.float32)
    y = flow[1] + np.arange(height, dtype=np.float32)[:, None]
    back = cv2.remap(
        np.ascontiguousarray(reverse.transpose(1, 2, 0)), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    u, v = flow[0] + back[..., 0], flow[1] + back[..., 1]
    distance = np.sqrt(u * u + v * v) * np.float32(1000.0 / width)
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    return np.where(outside, np.float32(OUT_OF_VIEW), _compressed(distance))


def evidence(flow: Array, reverse: Array, travel: Travel) -> Array:
    """Return what a pair says beside its flow.

    Args:
        flow: (2, h, w), pixels.
        reverse: (2, h, w), of the reversed pair, pixels.
        travel: Of the pair, see :func:`~moving_object_detector.flow.travel.estimate_travel`.

    Returns:
        (5, h, w): flow without rotation off the epipolar lines, asinh of thousandths of the width; along them, asinh
        of two thousandths; half the inverse depth in units of its median, all three averaged over the likely
        directions; :func:`inconsistency`; how well the direction is determined, in [0, 1], the same at every pixel.

    """
    field = travel.field
    belief, directions, rotations, agreement = travel.likely(most=MOST_DIRECTIONS)
    length = field.cells.lengths(directions)
    _, along = field.cells.split(travel.flow, directions, rotations, length)
    nearness = belief @ (along * length / (length**2 + EPIPOLE**2))
    usual = max(float(np.median(np.abs(nearness))), travel.noise)
    spread = float(np.linalg.eigvalsh((directions * belief[:, None]).T @ directions)[-1])

    length = field.pixels.lengths(directions)
    off, along = field.pixels.split(field.pixels.moments(travel.vectors(flow)), directions, rotations, length)
    off *= off
    channels = np.empty((EVIDENCE_CHANNELS, *field.size), np.float32)
    maps = channels.reshape(EVIDENCE_CHANNELS, -1)
    maps[0] = _compressed(np.sqrt(belief @ off) / np.float32(field.unit))
    maps[1] = _compressed(belief @ along / np.float32(2 * field.unit))
    along *= length
    length *= length
    length += EPIPOLE**2
    along /= length
    maps[2] = belief @ along / np.float32(2 * usual)
    channels[3] = inconsistency(flow, reverse)
    channels[4] = agreement * spread
    np.clip(channels, -LARGEST, LARGEST, channels)
    np.clip(channels[2], -LARGEST / 3, LARGEST / 3, channels[2])
    return channels


def with_evidence(image: NDArray[np.uint8], flow: Array, reverse: Array) -> Array:
    """Return a pair's flow with its evidence behind it, (7, h, w), as ``prepare_flow`` takes it for ``geometric``.

    The camera is taken to have the usual angle of view.

    Args:
        image: (H, W, 3) uint8 RGB, that the flow starts from.
        flow: (2, h, w), pixels.
        reverse: (2, h, w), of the reversed pair, pixels.

    """
    size = (flow.shape[1], flow.shape[2])
    camera = assumed_camera(size, image.shape[1] / image.shape[0])
    travel = estimate_travel(flow, Texture.of(grey_image(image, size)).contrast, camera)
    return np.concatenate((flow, evidence(flow, reverse, travel)))
