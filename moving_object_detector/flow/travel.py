"""Estimation of the camera's motion between two frames from their flow.

Instantaneous motion of a camera with translation T and rotation w moves the image position (x, y), in units of the
focal length, by rho A T + B w, where rho is the inverse depth (Longuet-Higgins and Prazdny 1980). So after derotation,
static points move along the lines A T through one point, the epipole, in proportion to their inverse depth (plane plus
parallax, Irani and Anandan 1998).

The direction of travel is not a single estimate but a sample of the half sphere, each direction with its likelihood.
Known motion from odometry replaces the search.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

GRID: Final = (14, 28)
# Assumed focal length as a share of the width: about 58 degrees of view.
ASSUMED_FOCAL: Final = 0.9
DIRECTIONS: Final = 56
# Distance from the epipole, as a share of the focal length, below which lines have no reliable direction.
NEAR_EPIPOLE: Final = 0.005
# Least noise of a cell's mean, thousandths of the image width.
NOISE: Final = 0.3
# Errors of neighbouring cells are correlated, so a cell counts as this share of an independent measurement; squared
# errors saturate at three standard deviations.
INDEPENDENCE: Final = 0.15
OUTLIER: Final = 9.0
CAUCHY_TUNING: Final = 2.385
GEMAN_TUNING: Final = 3.0
TRIPLES: Final = 10
CANDIDATES: Final = 5
COARSE: Final = 2.0
REFINEMENTS: Final = 6
NARROWING: Final = 0.75
# Share of the cells assumed to be static, and the factor from the largest error among them to a standard deviation.
SURE_SHARE: Final = 0.4
SURE_TO_SIGMA: Final = 1.907
# Samples with less belief than this, of 1 in total, are left out of computations per pixel.
LIKELY: Final = 0.01
# Size in pixels over which flow spreads beyond contrast.
SPREADING: Final = 15

_EYE: Final = np.eye(3, dtype=np.float32)


class Camera(NamedTuple):
    """A pinhole camera, in pixels of the flow field (whose pixels need not be square)."""

    fx: float
    fy: float
    cx: float
    cy: float


def assumed_camera(size: tuple[int, int], aspect: float, focal: float = ASSUMED_FOCAL) -> Camera:
    """Return the camera assumed for a flow field without known intrinsics.

    Args:
        size: (height, width) of the flow field.
        aspect: Width divided by height of the image that it was computed from.
        focal: Focal length as a share of the image width.

    """
    height, width = size
    return Camera(focal * width, focal * height * aspect, width / 2, height / 2)


def _cross(first: Array, second: Array) -> Array:
    x, y, z = first.T
    a, b, c = second.T
    product = np.empty(np.broadcast_shapes(first.shape, second.shape), np.float32)
    product[..., 0], product[..., 1], product[..., 2] = y * c - z * b, z * a - x * c, x * b - y * a
    return product


def _unit(vectors: NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.sqrt(np.einsum('...i,...i->...', vectors, vectors))[..., None], np.float32)


def _half_sphere(count: int) -> Array:
    """Return evenly spaced directions (count, 3) with z > 0, on a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z = index / count
    angle, radius = np.pi * (1 + 5**0.5) * index, np.sqrt(1 - z * z)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), 1).astype(np.float32)


class Moments(NamedTuple):
    """Linear forms of a flow (u, v) at n positions x, y, so that one matrix product evaluates all directions T.

    Times |A T|, the component across the line A T is T (-v, u, x v - y u), that along it T (-u, -v, x u + y v).
    """

    across: Array
    """(3, n)."""
    along: Array
    """(3, n)."""


class Positions:
    """Image positions x, y (n,) in units of the focal length, with the terms of the motion equations there."""

    def __init__(self, x: Array, y: Array, rows: Array | None = None) -> None:
        self.x, self.y = x, y
        if rows is None:
            # The columns of B: flows of unit rotations.
            turning = ((x * y, 1 + y * y), (-(1 + x * x), -x * y), (y, -x))
            moments = [self.moments(np.stack(flow, 1)) for flow in turning]
            parts = [both[k] for k in range(2) for both in moments]
            rows = np.concatenate((*parts, np.stack((np.ones_like(x), -2 * x, -2 * y, x * x + y * y))))
        # One array, so that a subset of positions takes a single indexing.
        self._rows = rows
        self.turned_across, self.turned_along = rows[:9], rows[9:18]
        """(9, n): moments of the columns of B, by component of the direction, then by column."""
        self.squares = rows[18:]
        """(4, n): 1, -2 x, -2 y and x^2 + y^2."""

    @cached_property
    def _turning(self) -> Array:
        return np.concatenate(np.split(self.turned_across, 3), 1)

    def moments(self, flow: NDArray[np.floating]) -> Moments:
        """Return the moments of a flow (n, 2), the input of :meth:`split`."""
        u, v = flow.T
        found = np.empty((2, 3, len(u)), np.float32)
        (found[0, 0], found[0, 1], found[0, 2]) = -v, u, self.x * v - self.y * u
        (found[1, 0], found[1, 1], found[1, 2]) = -u, -v, self.x * u + self.y * v
        return Moments(*found)

    def lines(self, directions: Array) -> tuple[Array, Array]:
        """Return x and y of the unit vectors along A T for directions (s, 3), each (s, n)."""
        x, y, z = (directions[:, k, None] for k in range(3))
        lengths = self.lengths(directions)
        return (self.x * z - x) / lengths, (self.y * z - y) / lengths

    def lengths(self, directions: Array) -> Array:
        """Return |A T| for unit vectors (s, 3), (s, n), at least :data:`NEAR_EPIPOLE`."""
        products = np.empty((len(directions), 4), np.float32)
        np.multiply(directions, directions[:, 2:], products[:, 1:])
        products[:, 0] = 1 - products[:, 3]
        squares = products @ self.squares
        return np.asarray(np.sqrt(np.maximum(squares, NEAR_EPIPOLE**2, out=squares), out=squares))

    def turned(self, directions: Array, lengths: Array) -> Array:
        """Return the component of B's columns across the lines of directions (s, 3), (s, 3, n)."""
        turned = (directions @ self._turning).reshape(len(directions), 3, -1)
        turned /= lengths[:, None]
        return np.asarray(turned, np.float32)

    def split(self, flow: Moments, directions: Array, rotations: Array, lengths: Array) -> tuple[Array, Array]:
        """Return flow minus that of rotations (s, 3), across and along the lines of directions (s, 3), each (s, n)."""
        turned = (rotations[:, :, None] * directions[:, None]).reshape(-1, 9)
        off, along = directions @ flow.across, directions @ flow.along
        off -= turned @ self.turned_across
        along -= turned @ self.turned_along
        off /= lengths
        along /= lengths
        return off, along

    def at(self, where: NDArray[np.intp] | slice) -> Positions:
        """Return the positions with these indices."""
        return Positions(self.x[where], self.y[where], self._rows[:, where])


class Field:
    """Everything about a flow field that depends on its size and camera alone."""

    def __init__(self, size: tuple[int, int], camera: Camera) -> None:
        height, width = size
        self.size, self.camera, self.focal = size, camera, np.array((camera.fx, camera.fy), np.float32)
        self.grid = (min(GRID[0], height), min(GRID[1], width))
        self.unit = width / 1000.0 * 2.0 / (camera.fx + camera.fy)
        """A thousandth of the width in units of the focal length."""
        x = np.broadcast_to((np.arange(width, dtype=np.float32) + 0.5 - camera.cx) / camera.fx, size)
        y = np.broadcast_to((np.arange(height, dtype=np.float32)[:, None] + 0.5 - camera.cy) / camera.fy, size)
        self.pixels = Positions(x.ravel(), y.ravel())
        self.cells = Positions(self.cell_means(x), self.cell_means(y))
        self.directions = _half_sphere(DIRECTIONS)
        rows, columns = np.indices(self.grid)
        self.searched = np.flatnonzero((rows + columns) % 2 == 0)
        """Every other cell, enough to rank directions."""
        self.few = self.cells.at(self.searched)
        self.lengths = self.few.lengths(self.directions)
        """Of the half sphere's directions at these cells, as ``turned``."""
        self.turned = self.few.turned(self.directions, self.lengths)
        # Three cells determine the rotation; the best of several triples is taken, since many cells may move.
        self.triples = np.random.default_rng(0).integers(len(self.searched), size=(TRIPLES, 3))
        drawn = self.turned[:, :, self.triples].transpose(0, 2, 3, 1).astype(np.float64)
        self.solutions = np.linalg.inv(drawn + 1e-6 * np.eye(3))
        """(s, triples, 3, 3): maps a triple's flow across the lines to the rotation."""

    def measure(self, flow: Array, contrast: Array) -> tuple[Array, Array]:
        """Return the cells' flow (n, 2), units of the focal length, and its reliability (n,)."""
        cells = [self.cell_means(part) / focal for part, focal in zip(flow, self.focal, strict=True)]
        # Flow spreads beyond the contrast that determines it.
        known = cv2.erode(contrast, np.ones((SPREADING, SPREADING), np.uint8))
        return np.stack(cells, 1), self.cell_means(np.asarray(known, np.float32)) + np.float32(1e-3)

    def cell_means(self, values: Array) -> Array:
        """Return the means of (h, w) over the cells, (n,)."""
        rows, columns = self.grid
        return np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA), np.float32).ravel()


@lru_cache(maxsize=4)
def _field(size: tuple[int, int], camera: Camera) -> Field:
    return Field(size, camera)


def _rotations(flow: Array, turned: Array, weights: Array) -> Array:
    """Return for each direction the rotation (s, 3) that minimises the flow (s, n) across its lines."""
    weighted = turned * weights[:, None]
    normal = (weighted @ turned.transpose(0, 2, 1)).astype(np.float64) + 1e-6 * np.eye(3)
    right = (weighted @ flow[..., None]).astype(np.float64)
    return np.asarray(np.linalg.solve(normal, right)[..., 0], np.float32)


def _spread(errors: Array, known: Array) -> Array:
    """Return the robust standard deviation of each row of errors (s, n) over the reliable cells."""
    reliable = known > 0.3
    if np.count_nonzero(reliable) < known.size // 25:
        reliable = np.ones_like(reliable)
    errors = np.abs(errors[:, reliable])
    rank = int(SURE_SHARE * errors.shape[1])
    return np.asarray(SURE_TO_SIGMA * np.partition(errors, rank, 1)[:, rank], np.float32)


class KnownMotion(NamedTuple):
    """A camera's motion from this frame to another one, known from odometry."""

    rotation: NDArray[np.float64]
    """(3, 3), from the camera axes of the other frame to those of this one (x right, y down, z forward)."""
    translation: NDArray[np.float64]
    """(3,), position of the camera at the other frame in the axes of this one, metres."""


@dataclass(frozen=True)
class Travel:
    """Hypotheses of the camera's motion between two frames: s samples with their likelihood in each cell."""

    directions: Array
    """(s, 3), unit vectors, of undetermined sign unless the motion is known."""
    rotations: Array
    """(s, 3), radians between the frames, on top of the known rotation."""
    likelihood: Array
    """(s, n), log-likelihood, at most 0."""
    prior: Array
    """(s,), share of the half sphere that a sample represents."""
    noise: float
    """Standard deviation of a cell's flow across its line, units of the focal length."""
    known: Array
    """(n,), reliability of each cell's flow."""
    flow: Moments
    """Of the cells, units of the focal length, minus the known rotation."""
    field: Field
    motion: KnownMotion | None = None

    def weights(self, inside: Array | None = None) -> Array:
        """Return the belief (s,) in each sample, 1 in total; ``inside`` (n,) is the share of each cell to leave out."""
        outside = self.likelihood if inside is None else self.likelihood * (1 - inside)
        logarithm = INDEPENDENCE * outside.sum(1)
        belief = self.prior * np.exp(logarithm - logarithm.max())
        return np.asarray(belief / belief.sum(), np.float32)

    def vectors(self, flow: Array, pixels: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Return flow (2, h, w), pixels, at some pixels as (n, 2), units of the focal length, minus known rotation."""
        vectors = flow.reshape(2, -1).T[pixels] / self.field.focal
        if self.motion is None:
            return np.asarray(vectors, np.float32)
        return _derotated(self.field.pixels.at(pixels), vectors, self.motion.rotation)

    def likely(self, inside: Array | None = None, most: int = 24) -> tuple[Array, Array, Array, float]:
        """Return belief (s,), directions (s, 3) and rotations (s, 3) of the likeliest samples, and their agreement.

        The directions point the way the camera moves, given that visible points are in front of it. The agreement, in
        [0, 1], tells how uniformly the parallax supports that sense.
        """
        belief = self.weights(inside)
        likely = np.argsort(-belief)[:most]
        likely = likely[belief[likely] > LIKELY]
        belief = belief[likely] / belief[likely].sum()
        directions, rotations = self.directions[likely], self.rotations[likely]
        if self.motion is not None:
            return belief, directions, rotations, 1.0
        lengths = self.field.cells.lengths(directions)
        _, along = self.field.cells.split(self.flow, directions, rotations, lengths)
        votes = np.tanh(along / lengths / (3 * self.noise)) * self.known * (1 if inside is None else 1 - inside)
        sums = votes.sum(1)
        agreement = np.abs(sums) / np.maximum(np.abs(votes).sum(1), 1e-9)
        forward = np.where(sums < 0, -1.0, 1.0).astype(np.float32)
        return belief, directions * forward[:, None], rotations, float(belief @ agreement)

    def reverse(self, flow: Array, contrast: Array) -> Travel:
        """Return the reverse travel, evaluated on the flow (2, h, w) from the other frame and the contrast there."""
        if self.motion is not None:
            turn = self.motion.rotation.T
            back = KnownMotion(turn, -turn @ self.motion.translation)
            return estimate_travel(flow, contrast, self.field.camera, back)
        kept = np.argsort(-self.weights())[:40]
        rotations = self.rotations[kept]
        # X' = X - w x X: the direction in the axes of the other frame.
        directions = _unit(self.directions[kept] - _cross(rotations, self.directions[kept]))
        cells, known = self.field.measure(flow, contrast)
        moments = self.field.cells.moments(cells)
        return _travel(self.field, moments, known, directions, -rotations, self.prior[kept])


def _travel(
    field: Field, flow: Moments, known: Array, directions: Array, rotations: Array, prior: Array, best: int = 1
) -> Travel:
    """Return samples with their likelihoods; the noise is that of the best fit among the first ``best``."""
    errors, _ = field.cells.split(flow, directions, rotations, field.cells.lengths(directions))
    noise = max(float(_spread(errors[:best], known).min()), NOISE * field.unit)
    likelihood = np.asarray(-0.5 * known * np.minimum((errors / noise) ** 2, OUTLIER), np.float32)
    return Travel(directions, rotations, likelihood, prior, noise, known, flow, field)


def _derotated(positions: Positions, flow: Array, rotation: NDArray[np.float64]) -> Array:
    """Return flow (n, 2), units of the focal length, minus the effect of a rotation (3, 3)."""
    x, y = positions.x + flow[:, 0], positions.y + flow[:, 1]
    a, b, c = np.asarray(rotation, np.float32)
    z = c[0] * x + c[1] * y + c[2]
    turned = (a[0] * x + a[1] * y + a[2]) / z - positions.x, (b[0] * x + b[1] * y + b[2]) / z - positions.y
    return np.asarray(np.stack(turned, 1), np.float32)


def _around(direction: Array) -> list[Array]:
    """Return two circles of directions, about 2 and 6 degrees from the given one."""
    aside = _unit(_cross(direction[None], _EYE[[np.argmin(np.abs(direction))]]))
    other = _cross(direction[None], aside)
    circles = []
    for angle, count in ((0.04, 4), (0.1, 6)):
        turn = np.arange(count)[:, None] * (2 * np.pi / count)
        circles.append(_unit(direction + np.tan(angle) * (np.cos(turn) * aside + np.sin(turn) * other)))
    return circles


def _refine(
    field: Field, flow: Moments, known: Array, directions: Array, rotations: Array, noise: float | Array
) -> tuple[Array, Array]:
    """Refine directions (s, 3) and their rotations by Gauss-Newton on the flow across the lines."""
    x, y = field.cells.x, field.cells.y
    places = np.stack((x, y, np.ones_like(x)))
    for step in range(REFINEMENTS):
        lengths = field.cells.lengths(directions)
        errors, along = field.cells.split(flow, directions, rotations, lengths)
        turned = field.cells.turned(directions, lengths)
        first = _unit(_cross(directions, _EYE[np.argmin(np.abs(directions), 1)]))
        tangents = np.stack((first, _cross(directions, first)), 1)
        # A step dT turns a line by A T x A dT / |A T|^2, which turns flow along it into flow across it. The unit
        # tangents a and b satisfy T x a = b and T x b = -a.
        sideways = np.stack((-tangents[:, 1], tangents[:, 0]), 1) @ places
        slope = np.concatenate((sideways * (along / lengths**2)[:, None], -turned), 1)
        # Narrower as the directions improve, to exclude more and more moving cells.
        noise = np.clip(_spread(errors, known) * NARROWING**step, NOISE * field.unit, noise)
        weights = known / (1 + (errors / (GEMAN_TUNING * noise)[:, None]) ** 2) ** 2
        weighted = slope * weights[:, None]
        system = (weighted @ slope.transpose(0, 2, 1)).astype(np.float64)
        system += (1e-4 * np.einsum('sii->si', system) + 1e-9)[:, None] * np.eye(5)
        change = -np.linalg.solve(system, weighted @ errors[..., None])[..., 0]
        change *= np.minimum(1.0, 0.2 / np.maximum(np.hypot(change[:, 0], change[:, 1]), 1e-9))[:, None]
        directions = _unit(directions + (change[:, None, :2] @ tangents)[:, 0])
        rotations = np.asarray(rotations + change[:, 2:], np.float32)
    return directions, rotations


def _search(field: Field, cells: Array, known: Array) -> tuple[list[int], Array, float]:
    """Rank the directions of the half sphere by every other cell.

    Each direction gets the rotation that minimises the flow across its lines, by reweighted least squares.

    Returns:
        Indices of the best distinct directions, the rotations (s, 3), and the least robust deviation of flow across.

    """
    known = known[field.searched]
    floor = NOISE * field.unit
    turned = field.turned
    across = field.directions @ field.few.moments(cells[field.searched]).across / field.lengths
    tried = np.einsum('stij,stj->sti', field.solutions, across[:, field.triples]).astype(np.float32)
    errors = across[:, None] - tried @ turned
    errors *= errors
    errors /= errors + (COARSE * field.unit) ** 2
    rotations = tried[np.arange(len(tried)), (errors @ known).argmin(1)]
    for _ in range(3):
        errors = across - (rotations[:, None] @ turned)[:, 0]
        spread = np.maximum(_spread(errors, known), floor)
        least = float(spread.min())
        weights = known / (1 + (errors / (CAUCHY_TUNING * np.minimum(spread, 2 * least))[:, None]) ** 2)
        rotations = _rotations(across, turned, weights)
    errors = across - (rotations[:, None] @ turned)[:, 0]
    costs = (errors**2 / (errors**2 + (COARSE * field.unit) ** 2)) @ known
    best: list[int] = []
    for index in np.argsort(costs):
        if len(best) < CANDIDATES and all(
            abs(field.directions[index] @ field.directions[other]) < 0.94 for other in best
        ):
            best.append(int(index))
    return best, rotations, least


def _settle(field: Field, flow: Moments, known: Array, directions: Array, rotations: Array, noise: float) -> Array:
    """Return the rotation (s, 3) of each direction from all cells, starting from the given ones."""
    lengths = field.cells.lengths(directions)
    across, turned = directions @ flow.across / lengths, field.cells.turned(directions, lengths)
    for _ in range(2):
        errors = across - (rotations[:, None] @ turned)[:, 0]
        weights = np.asarray(known / (1 + (errors / (CAUCHY_TUNING * noise)) ** 2), np.float32)
        rotations = _rotations(across, turned, weights)
    return rotations


def estimate_travel(flow: Array, contrast: Array, camera: Camera, motion: KnownMotion | None = None) -> Travel:
    """Estimate the camera's motion, with all directions that remain possible.

    The best distinct directions are refined, and the two best sampled more densely around. For a known motion only its
    direction is sampled, and its surroundings with little weight.

    Args:
        flow: (2, h, w), pixels.
        contrast: (h, w) in [0, 1], see ``Texture.contrast``.
        camera: The camera of this flow field.
        motion: The motion from odometry, if known.

    """
    height, width = flow.shape[1:]
    field = _field((height, width), camera)
    cells, known = field.measure(flow, contrast)
    if motion is not None:
        moments = field.cells.moments(_derotated(field.cells, cells, motion.rotation))
        length = float(np.linalg.norm(motion.translation))
        course = np.asarray(motion.translation / length, np.float32) if length else _EYE[2]
        near = _around(course)
        directions = np.concatenate((course[None], *near))
        errors = course[None] @ moments.across / field.cells.lengths(course[None])
        noise = max(float(_spread(errors, known)[0]), NOISE * field.unit)
        rotations = _settle(field, moments, known, directions, np.zeros_like(directions), noise)
        prior = np.repeat(np.array((1.0, 0.02, 0.005), np.float32), (1, *map(len, near)))
        return replace(_travel(field, moments, known, directions, rotations, prior), motion=motion)
    best, rotations, noise = _search(field, cells, known)
    moments = field.cells.moments(cells)
    improved, turns = _refine(field, moments, known, field.directions[best], rotations[best], noise)
    errors = field.cells.split(moments, improved, turns, field.cells.lengths(improved))[0] ** 2
    order = np.argsort((errors / (errors + (2 * NOISE * field.unit) ** 2)) @ known)
    improved, turns = improved[order], turns[order]
    near = [circle for direction in improved[:2] for circle in _around(direction)]
    starts = np.concatenate((turns, np.repeat(turns[:2], len(near[0]) + len(near[1]), 0)))
    extra = np.concatenate((improved, *near))
    settled = _settle(field, moments, known, extra, starts, noise)
    # Shares of the half sphere: refined directions, circles of about 2 and 6 degrees, and the rest.
    prior = np.concatenate(
        (
            np.full(len(best), 0.003),
            *[np.repeat((0.003, 0.01), (4, 6))] * min(len(best), 2),
            np.full(DIRECTIONS, 4 / DIRECTIONS),
        )
    ).astype(np.float32)
    directions = np.concatenate((extra, field.directions))
    return _travel(field, moments, known, directions, np.concatenate((settled, rotations)), prior, len(best))
