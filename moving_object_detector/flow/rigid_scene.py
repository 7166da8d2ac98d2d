"""How much of a region's flow a rigid scene explains, seen by a camera that travels.

Instantaneous motion of a camera with translation T and rotation w moves the image position (x, y), in units of the
focal length, by rho A T + B w, where rho is the inverse depth there (Longuet-Higgins and Prazdny 1980). So once the
rotation is out, what stands still moves along the lines A T through one point, the epipole; by how much says how near
it is (plane plus parallax, Irani and Anandan 1998). What moves on its own leaves its line, or would have to be behind
the camera, or farther than all that surrounds it.

The direction of travel is not one estimate but a sample of the half sphere, each with how well it explains the flow
outside the region in question. Where nothing but that region tells the direction (the camera only turns, or one object
moves before a plane) many directions remain, few of which explain the region, or they do not agree on which way the
camera goes; then nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

GRID: Final = (14, 28)
# Focal length as a share of the width where it is not known: about 58 degrees of view.
ASSUMED_FOCAL: Final = 0.9
DIRECTIONS: Final = 56
# Lines this close to the epipole, as a share of the focal length, have no direction to speak of.
NEAR_EPIPOLE: Final = 0.005
# Thousandths of the image width: least noise of a cell's mean, distance from the line that a still pixel may have, and
# how far on the impossible side it may be.
NOISE: Final = 0.3
OFF_LINE: Final = 0.6
WRONG_SIDE: Final = 0.8
# Neighbouring cells err together, so a cell counts as this share of an independent measurement; errors beyond three
# standard deviations count no more.
INDEPENDENCE: Final = 0.15
OUTLIER: Final = 9.0
CAUCHY_TUNING: Final = 2.385
GEMAN_TUNING: Final = 3.0
MEDIAN_TO_SIGMA: Final = 1.4826
# Samples with less than this share of the best are left out of what is computed for each pixel.
LIKELY: Final = 0.01
# Share of the parallax outside the region that must agree on which way the camera goes.
AGREEMENT: Final = 0.75
# Grey levels of local contrast from which flow is known, at the flow's size; pixels over which flow spreads from there.
CONTRAST: Final = 2.0
CONTRAST_WINDOW: Final = 7
SPREADING: Final = 15
# Shares of the width between which a region's surroundings lie, and percentile of them that counts as the farthest.
GAP: Final = 0.02
MARGIN: Final = 0.042
FARTHEST: Final = 15.0

_PAIRS: Final = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))
_SYMMETRIC: Final = np.array(((0, 1, 2), (1, 3, 4), (2, 4, 5)))


class Camera(NamedTuple):
    """A pinhole camera, in pixels of the flow field (whose pixels need not be square)."""

    fx: float
    fy: float
    cx: float
    cy: float


def assumed_camera(size: tuple[int, int], aspect: float, focal: float = ASSUMED_FOCAL) -> Camera:
    """Return a camera for a flow field of ``size`` (height, width) of an image of width to height ``aspect``.

    Args:
        size: Of the flow field.
        aspect: Of the image that it was computed from.
        focal: Focal length as a share of the image's width.

    """
    height, width = size
    return Camera(focal * width, focal * height * aspect, width / 2, height / 2)


def contrast(grey: NDArray[np.uint8]) -> Array:
    """Return how far an image (h, w) has the contrast that flow needs, (h, w) in [0, 1]; 0 in a clear sky."""
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.125)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.125)
    power = cv2.blur(np.asarray(dx * dx + dy * dy, np.float32), (CONTRAST_WINDOW, CONTRAST_WINDOW))
    # In an image that is dim all over, flow follows what there is.
    enough = min(CONTRAST**2, 0.25 * float(np.percentile(np.asarray(power, np.float32), 75)))
    return np.asarray(np.minimum(power / max(enough, 1e-6), 1.0), np.float32)


def _cross(first: Array, second: Array) -> Array:
    x, y, z = first.T
    a, b, c = second.T
    return np.stack((y * c - z * b, z * a - x * c, x * b - y * a), -1)


def _unit(vectors: NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _half_sphere(count: int) -> Array:
    """Return directions (count, 3) with z > 0 at equal distances, on a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z = index / count
    angle, radius = np.pi * (1 + 5**0.5) * index, np.sqrt(1 - z * z)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), 1).astype(np.float32)


class _Positions:
    """Image positions x, y (n,) in units of the focal length, and what the equations of motion are there."""

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        self.rotational = np.stack(
            (np.stack((x * y, -(1 + x * x), y), 1), np.stack((1 + y * y, -x * y, -x), 1)), 1
        ).astype(np.float32)
        """B, (n, 2, 3)."""

    def translational(self, directions: Array) -> Array:
        """Return A T of directions (s, 3), (s, n, 2)."""
        tx, ty, tz = (directions[:, i, None] for i in range(3))
        return np.stack((self.x * tz - tx, self.y * tz - ty), -1)

    def across(self, directions: Array) -> tuple[Array, Array]:
        """Return the unit normals of the lines, (s, n, 2), and their products with B, (s, n, 3)."""
        line = self.translational(directions)
        length = np.maximum(np.hypot(line[..., 0], line[..., 1]), NEAR_EPIPOLE)[..., None]
        normal = np.stack((-line[..., 1], line[..., 0]), -1) / length
        return normal, normal[..., :1] * self.rotational[:, 0] + normal[..., 1:] * self.rotational[:, 1]

    def split(self, flow: Array, directions: Array, rotations: Array) -> tuple[Array, Array, Array]:
        """Return flow (n, 2) off the lines, along them, and the length of A T, each (s, n)."""
        line = self.translational(directions)
        length = np.maximum(np.hypot(line[..., 0], line[..., 1]), NEAR_EPIPOLE)
        rotated = (rotations @ self.rotational.reshape(-1, 3).T).reshape(len(rotations), -1, 2)
        rest = flow - rotated
        off = (rest[..., 1] * line[..., 0] - rest[..., 0] * line[..., 1]) / length
        return off, (rest * line).sum(-1) / length, length

    def at(self, where: NDArray[np.bool_] | NDArray[np.intp]) -> _Positions:
        """Return some of the positions."""
        chosen = object.__new__(_Positions)
        chosen.x, chosen.y, chosen.rotational = self.x[where], self.y[where], self.rotational[where]
        return chosen


class _Field:
    """What depends on the size and the camera alone."""

    def __init__(self, size: tuple[int, int], camera: Camera) -> None:
        height, width = size
        self.size, self.focal = size, np.array((camera.fx, camera.fy), np.float32)
        self.grid = (min(GRID[0], height), min(GRID[1], width))
        self.unit = width / 1000.0 * 2.0 / (camera.fx + camera.fy)
        """A thousandth of the width in units of the focal length."""
        x = np.broadcast_to((np.arange(width, dtype=np.float32) + 0.5 - camera.cx) / camera.fx, size)
        y = np.broadcast_to((np.arange(height, dtype=np.float32)[:, None] + 0.5 - camera.cy) / camera.fy, size)
        self.pixels = _Positions(x.ravel(), y.ravel())
        self.cells = _Positions(self.cell_means(x), self.cell_means(y))
        self.directions = _half_sphere(DIRECTIONS)
        self.normals, self.turned = self.cells.across(self.directions)
        self.products = _products(self.turned)

    def cell_means(self, values: Array) -> Array:
        """Return the means of (h, w) over the cells, (n,)."""
        rows, columns = self.grid
        return np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA), np.float32).ravel()


@lru_cache(maxsize=4)
def _field(size: tuple[int, int], camera: Camera) -> _Field:
    return _Field(size, camera)


def _products(turned: Array) -> Array:
    return turned[..., _PAIRS[0]] * turned[..., _PAIRS[1]]


def _rotations(flow: Array, turned: Array, products: Array, weights: Array) -> Array:
    """Return for each direction the rotation (s, 3) that leaves the least flow (s, n) across its lines."""
    normal = (weights[:, None] @ products)[:, 0][:, _SYMMETRIC].astype(np.float64) + 1e-6 * np.eye(3)
    right = ((weights * flow)[:, None] @ turned).transpose(0, 2, 1).astype(np.float64)
    return np.asarray(np.linalg.solve(normal, right)[..., 0], np.float32)


def _spread(errors: Array, known: Array) -> Array:
    """Return the robust standard deviation of each row of errors (s, n) over the known cells."""
    seen = known > 0.3
    if np.count_nonzero(seen) < known.size // 25:
        seen = np.ones_like(seen)
    return np.asarray(MEDIAN_TO_SIGMA * np.median(np.abs(errors[:, seen]), 1), np.float32)


@dataclass(frozen=True)
class Travel:
    """How the camera may have travelled between two frames: s samples, and how well each explains each cell."""

    directions: Array
    """(s, 3), unit vectors; which way along them is open."""
    rotations: Array
    """(s, 3), radians between the frames."""
    likelihood: Array
    """(s, n), logarithm, at most 0."""
    prior: Array
    """(s,), the share of the half sphere that a sample stands for."""
    noise: float
    """Standard deviation of a cell across its line, units of the focal length."""
    known: Array
    """(n,), how far each cell's flow is known."""
    flow: Array
    """(n, 2), of the cells, units of the focal length."""
    field: _Field

    def weights(self, inside: Array | None = None) -> Array:
        """Return the share (s,) of belief in each sample, of the cells but for the share ``inside`` (n,) of each."""
        outside = self.likelihood if inside is None else self.likelihood * (1 - inside)
        logarithm = INDEPENDENCE * outside.sum(1)
        belief = self.prior * np.exp(logarithm - logarithm.max())
        return np.asarray(belief / belief.sum(), np.float32)


def _around(direction: Array) -> list[Array]:
    """Return directions 2 and 6 degrees beside one."""
    aside = _unit(np.cross(direction, np.eye(3, dtype=np.float32)[np.argmin(np.abs(direction))]))
    other = np.cross(direction, aside)
    circles = []
    for angle, count in ((0.04, 4), (0.1, 6)):
        turn = np.arange(count)[:, None] * (2 * np.pi / count)
        circles.append(_unit(direction + np.tan(angle) * (np.cos(turn) * aside + np.sin(turn) * other)))
    return circles


def _refine(field: _Field, flow: Array, known: Array, directions: Array, rotations: Array, noise: float) -> Array:
    """Improve directions (s, 3) with their rotations by Gauss-Newton on the flow across the lines."""
    step = 1e-3
    for _ in range(4):
        normals, turned = field.cells.across(directions)
        rest = flow - (rotations @ field.cells.rotational.reshape(-1, 3).T).reshape(len(rotations), -1, 2)
        errors = (normals * rest).sum(-1)
        first = _unit(_cross(directions, np.eye(3, dtype=np.float32)[np.argmin(np.abs(directions), 1)]))
        second = _cross(directions, first)
        slopes = []
        for tangent in (first, second):
            moved, _ = field.cells.across(_unit(directions + step * tangent))
            slopes.append(((moved * rest).sum(-1) - errors) / step)
        slope = np.concatenate((np.stack(slopes, -1), -turned), -1).astype(np.float64)
        weights = known / (1 + (errors / (GEMAN_TUNING * noise)) ** 2) ** 2
        weighted = slope * weights[..., None]
        normal = weighted.transpose(0, 2, 1) @ slope
        damping = 1e-4 * np.einsum('sii->si', normal) + 1e-9
        change = -np.linalg.solve(
            normal + damping[:, None] * np.eye(5), (weighted * errors[..., None]).sum(1)[..., None]
        )
        change = change[..., 0]
        change *= np.minimum(1.0, 0.2 / np.maximum(np.hypot(change[:, 0], change[:, 1]), 1e-9))[:, None]
        directions = _unit(directions + change[:, :1] * first + change[:, 1:2] * second)
        rotations = np.asarray(rotations + change[:, 2:], np.float32)
    return directions


def estimate_travel(flow: Array, contrast: Array, camera: Camera) -> Travel:
    """Estimate how the camera travelled, with all directions that remain possible.

    For each direction the rotation that leaves the least flow across its lines, by iteratively reweighted least
    squares; the best directions, as far as they differ, are improved, and sampled more densely around.

    Args:
        flow: (2, h, w), pixels.
        contrast: (h, w) in [0, 1], see :func:`contrast`.
        camera: Of this flow field.

    """
    height, width = flow.shape[1:]
    field = _field((height, width), camera)
    cells = np.stack([field.cell_means(part) / focal for part, focal in zip(flow, field.focal, strict=True)], 1)
    # Flow spreads from where it is known into what is beside it.
    known = cv2.erode(contrast, np.ones((SPREADING, SPREADING), np.uint8))
    seen = field.cell_means(np.asarray(known, np.float32)) + np.float32(1e-3)
    floor = NOISE * field.unit

    across = (field.normals * cells).sum(-1)
    start = np.hypot(*(cells - np.median(cells, 0)).T)
    weights = np.broadcast_to(
        seen / (1 + (start / (CAUCHY_TUNING * max(float(np.median(start)), floor))) ** 2), across.shape
    )
    for _ in range(3):
        rotations = _rotations(across, field.turned, field.products, weights)
        errors = across - (field.turned @ rotations[..., None])[..., 0]
        spread = np.maximum(_spread(errors, seen), floor)
        least = float(spread.min())
        weights = seen / (1 + (errors / (CAUCHY_TUNING * np.minimum(spread, 2 * least))[:, None]) ** 2)
    costs = (seen * np.log1p((errors / (2 * least)) ** 2)).sum(1)

    best: list[int] = []
    for index in np.argsort(costs):
        if len(best) < 3 and all(abs(field.directions[index] @ field.directions[other]) < 0.94 for other in best):
            best.append(int(index))
    improved = _refine(field, cells, seen, field.directions[best], rotations[best], least)
    near = [circle for direction in improved[:2] for circle in _around(direction)]
    extra = np.concatenate((improved, *near))
    # The shares of the half sphere: circles of about 2 and 6 degrees, and the rest.
    prior = np.concatenate(
        (np.full(len(best), 0.003), *(np.full(len(c), 0.003 if len(c) == 4 else 0.01) for c in near))
    )
    normals, turned = field.cells.across(extra)
    products = np.concatenate((_products(turned), field.products))
    turned = np.concatenate((turned, field.turned))
    across = np.concatenate(((normals * cells).sum(-1), across))
    weights = np.broadcast_to(weights[best[0]], across.shape)
    for _ in range(2):
        rotations = _rotations(across, turned, products, weights)
        errors = across - (turned @ rotations[..., None])[..., 0]
        noise = max(float(_spread(errors[: len(best)], seen).min()), floor)
        weights = seen / (1 + (errors / (CAUCHY_TUNING * noise)) ** 2)
    return Travel(
        directions=np.concatenate((extra, field.directions)),
        rotations=rotations,
        likelihood=np.asarray(-0.5 * seen * np.minimum((errors / noise) ** 2, OUTLIER), np.float32),
        prior=np.concatenate((prior, np.full(DIRECTIONS, 4.0 / DIRECTIONS))).astype(np.float32),
        noise=noise,
        known=seen,
        flow=cells,
        field=field,
    )


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _explained(region: NDArray[np.bool_], flow: Array, travel: Travel) -> float:
    field = travel.field
    width = field.size[1]
    grown = cv2.dilate(region.astype(np.uint8), _disc(max(1, round(0.01 * width))))
    inside = (field.cell_means(grown.astype(np.float32)) > 0.1).astype(np.float32)
    belief = travel.weights(inside)
    likely = np.argsort(-belief)[:24]
    likely = likely[belief[likely] > LIKELY]
    belief = belief[likely] / belief[likely].sum()
    directions, rotations = travel.directions[likely], travel.rotations[likely]

    # Which way along its direction the camera goes: what is seen is in front of it.
    _, along, length = field.cells.split(travel.flow, directions, rotations)
    votes = np.tanh(along / length / (3 * travel.noise)) * travel.known * (1 - inside)
    forward = np.where(votes.sum(1) < 0, -1.0, 1.0).astype(np.float32)
    agreement = np.abs(votes.sum(1)) / np.maximum(np.abs(votes).sum(1), 1e-9)
    if float(belief @ agreement) < AGREEMENT:
        return 0.0
    directions = directions * forward[:, None]

    pixels = np.flatnonzero(region)
    vectors = flow.reshape(2, -1).T / field.focal
    off, along, length = field.pixels.at(pixels).split(vectors[pixels], directions, rotations)
    wrong = WRONG_SIDE * field.unit
    still = (np.abs(off) < max(OFF_LINE * field.unit, 3 * travel.noise)) & (along > -wrong)
    gap, margin = max(1, round(GAP * width)), max(2, round(MARGIN * width))
    small = region.astype(np.uint8)
    beside = np.flatnonzero(cv2.dilate(small, _disc(margin)) - cv2.dilate(small, _disc(gap)))
    if beside.size:
        beside = beside[:: max(1, beside.size // 200)]
        _, along_beside, length_beside = field.pixels.at(beside).split(vectors[beside], directions, rotations)
        farthest = np.percentile(along_beside / length_beside, FARTHEST, axis=1)[:, None]
        still &= along - farthest * length > -wrong
    return float(belief @ still.mean(1))


def explained_share(region: NDArray[np.bool_], flows: Sequence[Array], travels: Sequence[Travel]) -> float:
    """Return how much of a region's flow a rigid scene explains, in [0, 1]; 0 where the travel is not determined.

    Args:
        region: (h, w).
        flows: To one or more other frames, each (2, h, w), pixels.
        travels: Of the same pairs, see :func:`estimate_travel`.

    """
    if not region.any() or not flows:
        return 0.0
    return float(np.mean([_explained(region, flow, travel) for flow, travel in zip(flows, travels, strict=True)]))
