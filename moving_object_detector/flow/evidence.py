"""What a pair of frames says about each pixel beside its flow: whether a rigid scene explains it, whether it is right.

Flow alone does not tell what is near from what moves. With the camera's travel estimated
(:mod:`~moving_object_detector.flow.travel`) it splits into a part off the lines through the epipole, which nothing
that stands still has, and a part along them, which says how near a still thing would be. Where the flow of the pair and
that of the reversed pair do not cancel, one of them is wrong, as at occlusions (Sundaram, Brox and Keutzer, ECCV 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from moving_object_detector.flow.base import SIDE_CHANNELS, grey_image
from moving_object_detector.flow.rigid_scene import Texture
from moving_object_detector.flow.travel import NEAR_EPIPOLE, Array, Field, Travel, assumed_camera, estimate_travel

EVIDENCE_CHANNELS: Final = SIDE_CHANNELS - 2
# Directions of travel that are averaged over, by their likelihood.
MOST_DIRECTIONS: Final = 6
# Share of the focal length within which lines through the epipole fade out.
EPIPOLE: Final = 0.05
LARGEST_EVIDENCE: Final = 6.0
"""Limit of the first two channels and of the last; that of the third is a third of it."""
OUT_OF_VIEW: Final = 3.0
"""Inconsistency of pixels that leave the image, of which nothing is known."""


def _compressed(values: Tensor) -> Tensor:
    """Return the inverse hyperbolic sine to 1e-6; by a logarithm, several times as fast as PyTorch's own."""
    size = values.abs()
    return (size * size).add_(1).sqrt_().add_(size).log_().copysign_(values)


def inconsistency(flow: Tensor, reverse: Tensor) -> Tensor:
    """Return how far the flow and the reversed pair's flow at its end are from cancelling.

    Args:
        flow: (B, 2, h, w), pixels.
        reverse: (B, 2, h, w), from the other frame back, pixels.

    Returns:
        (B, h, w), inverse hyperbolic sine of the distance in thousandths of the width; :data:`OUT_OF_VIEW` where the
        flow leaves the image.

    """
    height, width = flow.shape[-2:]
    x = flow[:, 0] + torch.arange(width, dtype=torch.float32, device=flow.device)
    y = flow[:, 1] + torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    # In [-1, 1] from the first pixel's centre to the last one's.
    places = torch.stack((x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1), -1)
    back = functional.grid_sample(reverse, places, padding_mode='border', align_corners=True)
    u, v = back.add_(flow).unbind(1)
    distance = (u * u).addcmul_(v, v).sqrt_().mul_(1000.0 / width)
    return _compressed(distance).masked_fill_(outside, OUT_OF_VIEW)


@lru_cache(maxsize=4)
def _pixels(field: Field, device: torch.device) -> tuple[Tensor, ...]:
    """Return what :class:`~moving_object_detector.flow.travel.Positions` knows of the pixels, on a device."""
    pixels = field.pixels
    # They outlive the call, which may be one without gradients.
    with torch.inference_mode(False):
        known = (pixels.x, pixels.y, pixels.turned_across, pixels.turned_along, pixels.squares)
        return tuple(torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device) for values in known)


def _vectors(flow: Tensor, travels: Sequence[Travel]) -> Tensor:
    """Return flow (B, 2, h, w), pixels, as (B, 2, n), units of the focal length, without known rotation."""
    vectors = flow.flatten(2) / torch.from_numpy(travels[0].field.focal).to(flow.device)[:, None]
    for number, travel in enumerate(travels):
        if travel.motion is not None:
            vectors[number] = torch.from_numpy(travel.vectors(flow[number].cpu().numpy()).T).to(flow.device)
    return vectors


def _directions(travels: Sequence[Travel]) -> tuple[Array, Array]:
    """Return of each pair the likely directions, (B, s, 17), and of each pair two numbers, (B, 2).

    A direction's are belief, direction, how A T's length is made of ``squares``, and how the rotation turns its line;
    those that are fewer than s have no belief. A pair's are the usual inverse depth, units of the focal length, and how
    well the direction is determined.
    """
    found = np.zeros((len(travels), MOST_DIRECTIONS, 17), np.float32)
    found[..., 3], found[..., 7] = 1, 1
    pairs = np.empty((len(travels), 2), np.float32)
    for row, pair, travel in zip(found, pairs, travels, strict=True):
        cells = travel.field.cells
        belief, directions, rotations, agreement = travel.likely(most=MOST_DIRECTIONS)
        length = cells.lengths(directions)
        _, along = cells.split(travel.flow, directions, rotations, length)
        nearness = belief @ (along * length / (length**2 + EPIPOLE**2))
        spread = float(np.linalg.eigvalsh((directions * belief[:, None]).T @ directions)[-1])
        pair[:] = max(float(np.median(np.abs(nearness))), travel.noise), agreement * spread
        likely = row[: len(belief)]
        likely[:, 0], likely[:, 1:4] = belief, directions
        np.multiply(directions, directions[:, 2:], likely[:, 5:8])
        likely[:, 4] = 1 - likely[:, 7]
        likely[:, 8:] = (rotations[:, :, None] * directions[:, None]).reshape(-1, 9)
    return found, pairs


def evidence(flow: Tensor, reverse: Tensor, travels: Sequence[Travel]) -> Tensor:
    """Return what pairs say beside their flow.

    Args:
        flow: (B, 2, h, w), pixels.
        reverse: (B, 2, h, w), of the reversed pairs, pixels.
        travels: Of the pairs, by one camera, see :func:`~moving_object_detector.flow.travel.estimate_travel`.

    Returns:
        (B, 5, h, w): flow without rotation off the epipolar lines, asinh of thousandths of the width; along them, asinh
        of two thousandths; half the inverse depth in units of its median, all three averaged over the likely
        directions; :func:`inconsistency`; how well the direction is determined, in [0, 1], the same at every pixel.

    """
    field, device = travels[0].field, flow.device
    x, y, turned_across, turned_along, squares = _pixels(field, device)
    likely, pairs = (torch.from_numpy(part).to(device) for part in _directions(travels))
    belief, directions = likely[:, None, :, 0], likely[..., 1:4]
    # Equations of ``Positions.lengths`` and ``Positions.split``, for all pairs and directions at once.
    length = (likely[..., 4:8] @ squares).clamp_min_(NEAR_EPIPOLE**2).sqrt_()
    u, v = _vectors(flow, travels).unbind(1)
    moments = torch.stack((-v, u, x * v - y * u, -u, -v, x * u + y * v), 1)
    turns, scale = likely[..., 8:], length.reciprocal()
    off, along = (
        (directions @ part).baddbmm_(turns, turned.expand(len(flow), -1, -1), alpha=-1).mul_(scale)
        for part, turned in ((moments[:, :3], turned_across), (moments[:, 3:], turned_along))
    )
    channels = flow.new_empty(len(flow), EVIDENCE_CHANNELS, *field.size)
    maps = channels.flatten(2)
    maps[:, 0] = _compressed((belief @ off.square_())[:, 0].sqrt_().div_(field.unit))
    maps[:, 1] = _compressed((belief @ along)[:, 0].div_(2 * field.unit))
    along.mul_(length).div_(length.square_().add_(EPIPOLE**2))
    maps[:, 2] = (belief @ along)[:, 0].div_(2 * pairs[:, :1])
    channels[:, 3] = inconsistency(flow, reverse)
    channels[:, 4] = pairs[:, 1, None, None]
    channels.clamp_(-LARGEST_EVIDENCE, LARGEST_EVIDENCE)
    channels[:, 2].clamp_(-LARGEST_EVIDENCE / 3, LARGEST_EVIDENCE / 3)
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
    found = evidence(torch.from_numpy(flow)[None], torch.from_numpy(reverse)[None], [travel])
    return np.concatenate((flow, found[0].numpy()))
