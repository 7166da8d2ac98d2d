"""Per-pixel evidence of a pair of frames beside its flow: fit to a rigid scene and consistency of the flow.

Flow alone cannot tell near static objects from moving ones. Given the camera's motion
(:mod:`~moving_object_detector.flow.travel`), it splits into a component across the lines through the epipole, which is
zero for static points, and one along them, which gives their inverse depth. Where forward and backward flow do not
cancel, one of them is wrong, as at occlusions (Sundaram, Brox and Keutzer, ECCV 2010).
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
# Number of likely directions of travel to average over.
MOST_DIRECTIONS: Final = 6
# Distance from the epipole, as a share of the focal length, within which the component along the lines fades out.
EPIPOLE: Final = 0.05
LARGEST_EVIDENCE: Final = 6.0
"""Limit of all channels but the third, whose limit is a third of it."""
OUT_OF_VIEW: Final = 3.0
"""Inconsistency assigned to pixels that leave the image, where it is unknown."""


def _compressed(values: Tensor) -> Tensor:
    """Return asinh to within 1e-6, by a logarithm several times as fast as PyTorch's own."""
    size = values.abs()
    return (size * size).add_(1).sqrt_().add_(size).log_().copysign_(values)


def inconsistency(flow: Tensor, reverse: Tensor) -> Tensor:
    """Return the forward-backward error of the flow.

    Args:
        flow: (B, 2, h, w), pixels.
        reverse: (B, 2, h, w), from the other frame back, pixels.

    Returns:
        (B, h, w), asinh of the error in thousandths of the width; :data:`OUT_OF_VIEW` where the flow leaves the image.

    """
    height, width = flow.shape[-2:]
    x = flow[:, 0] + torch.arange(width, dtype=torch.float32, device=flow.device)
    y = flow[:, 1] + torch.arange(height, dtype=torch.float32, device=flow.device)[:, None]
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    # In [-1, 1] between the centres of the first and the last pixel.
    places = torch.stack((x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1), -1)
    back = functional.grid_sample(reverse, places, padding_mode='border', align_corners=True)
    u, v = back.add_(flow).unbind(1)
    distance = (u * u).addcmul_(v, v).sqrt_().mul_(1000.0 / width)
    return _compressed(distance).masked_fill_(outside, OUT_OF_VIEW)


@lru_cache(maxsize=4)
def _pixels(field: Field, device: torch.device) -> tuple[Tensor, ...]:
    """Return the arrays of the pixels' :class:`~moving_object_detector.flow.travel.Positions` on a device."""
    pixels = field.pixels
    # Cached beyond the call, so they must not be inference tensors.
    with torch.inference_mode(False):
        known = (pixels.x, pixels.y, pixels.turned_across, pixels.turned_along, pixels.squares)
        return tuple(torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device) for values in known)


def _vectors(flow: Tensor, travels: Sequence[Travel]) -> Tensor:
    """Return flow (B, 2, h, w), pixels, as (B, 2, n), units of the focal length, minus any known rotation."""
    vectors = flow.flatten(2) / torch.from_numpy(travels[0].field.focal).to(flow.device)[:, None]
    for number, travel in enumerate(travels):
        if travel.motion is not None:
            vectors[number] = torch.from_numpy(travel.vectors(flow[number].cpu().numpy()).T).to(flow.device)
    return vectors


def _directions(travels: Sequence[Travel]) -> tuple[Array, Array]:
    """Return the likely directions of each pair, (B, s, 17), and two numbers for each pair, (B, 2).

    A direction has its belief (1), the unit vector (3), the coefficients of ``squares`` for |A T|^2 (4), and those of
    the rotational flow in its split (9); unused rows have belief 0. The numbers of a pair are its median inverse depth,
    units of the focal length, and how well the direction is determined, in [0, 1].
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
    """Return the evidence of pairs beside their flow.

    Args:
        flow: (B, 2, h, w), pixels.
        reverse: (B, 2, h, w), of the reversed pairs, pixels.
        travels: Of the pairs, of one camera, from :func:`~moving_object_detector.flow.travel.estimate_travel`.

    Returns:
        (B, 5, h, w): derotated flow across the epipolar lines, asinh of thousandths of the width; along them, asinh of
        two thousandths; half the inverse depth in units of its median; all three averaged over the likely directions;
        :func:`inconsistency`; how well the direction is determined, in [0, 1], the same at every pixel.

    """
    field, device = travels[0].field, flow.device
    x, y, turned_across, turned_along, squares = _pixels(field, device)
    likely, pairs = (torch.from_numpy(part).to(device) for part in _directions(travels))
    belief, directions = likely[:, None, :, 0], likely[..., 1:4]
    # ``Positions.lengths`` and ``Positions.split`` for all pairs and directions at once.
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
    """Return a pair's flow followed by its evidence, (7, h, w), the input of ``prepare_flow`` for ``geometric``.

    Assumes a camera with the default angle of view.

    Args:
        image: (H, W, 3) uint8 RGB, on which the flow is defined.
        flow: (2, h, w), pixels.
        reverse: (2, h, w), of the reversed pair, pixels.

    """
    size = (flow.shape[1], flow.shape[2])
    camera = assumed_camera(size, image.shape[1] / image.shape[0])
    travel = estimate_travel(flow, Texture.of(grey_image(image, size)).contrast, camera)
    found = evidence(torch.from_numpy(flow)[None], torch.from_numpy(reverse)[None], [travel])
    return np.concatenate((flow, found[0].numpy()))
