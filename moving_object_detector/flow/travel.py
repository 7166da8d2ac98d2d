"""How a camera travelled between two frames, from their flow.

Instantaneous motion of a camera with translation T and rotation w moves the image position (x, y), in units of the
focal length, by rho A T + B w, where rho is the inverse depth there (Longuet-Higgins and Prazdny 1980). So once the
rotation is out, what stands still moves along the lines A T through one point, the epipole; by how much says how near
it is (plane plus parallax, Irani and Anandan 1998).

The direction of travel is not one estimate but a sample of the half sphere, each with how well it explains the flow.
Where the robot knows its motion, that is taken.
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
# Focal length as a share of the width where it is not known: about 58 degrees of view.
ASSUMED_FOCAL: Final = 0.9
DIRECTIONS: Final = 56
# Lines this close to the epipole, as a share of the focal length, have no direction to speak of.
NEAR_EPIPOLE: Final = 0.005
# Least noise of a cell's mean, thousandths of the image width.
NOISE: Final = 0.3
# Neighbouring cells err together, so a cell counts as this share of an independent measurement; errors beyond three
# standard deviations count no more.
INDEPENDENCE: Final = 0.15
OUTLIER: Final = 9.0
CAUCHY_TUNING: Final = 2.385
GEMAN_TUNING: Final = 3.0
TRIPLES: Final = 10
CANDIDATES: Final = 5
COARSE: Final = 2.0
REFINEMENTS: Final = 6
NARROWING: Final = 0.75
# Share of the cells that surely stand still, and a standard deviation in terms of the error that they do not exceed.
SURE_SHARE: Final = 0.4
SURE_TO_SIGMA: Final = 1.907
# Samples with less than this share of the best are left out of what is computed for each pixel.
LIKELY: Final = 0.01
# Pixels over which flow spreads from where it is known.
SPREADING: Final = 15

_EYE: Final = np.eye(3, dtype=np.float32)


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


def _cross(first: Array, second: Array) -> Array:
    x, y, z = first.T
    a, b, c = second.T
    product = np.empty(np.broadcast_shapes(first.shape, second.shape), np.float32)
    product[..., 0], product[..., 1], product[..., 2] = y * c - z * b, z * a - x * c, x * b - y * a
    return product


def _unit(vectors: NDArray[np.floating]) -> Array:
    return np.asarray(vectors / np.sqrt(np.einsum('...i,...i->...', vectors, vectors))[..., None], np.float32)


def _half_sphere(count: int) -> Array:
    """Return directions (count, 3) with z > 0 at equal distances, on a Fibonacci spiral."""
    index = np.arange(count) + 0.5
    z = index / count
    angle, radius = np.pi * (1 + 5**0.5) * index, np.sqrt(1 - z * z)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle), z), 1).astype(np.float32)


class Moments(NamedTuple):
    """A flow (u, v) at n positions x, y, so arranged that all directions are taken at once, as products of matrices.

    What of it is across the line A T, times the line's length, is T (-v, u, x v - y u), and what is along it
    T (-u, -v, x u + y v).
    """

    across: Array
    """(3, n)."""
    along: Array
    """(3, n)."""


class Positions:
    """Image positions x, y (n,) in units of the focal length, and what the equations of motion are there."""

    def __init__(self, x: Array, y: Array, rows: Array | None = None) -> None:
        self.x, self.y = x, y
        if rows is None:
            # The columns of B, as flows.
            turning = ((x * y, 1 + y * y), (-(1 + x * x), -x * y), (y, -x))
            moments = [self.moments(np.stack(flow, 1)) for flow in turning]
            parts = [both[k] for k in range(2) for both in moments]
            rows = np.concatenate((*parts, np.stack((np.ones_like(x), -2 * x, -2 * y, x * x + y * y))))
        # In one array, so that some positions are one choice of its columns.
        self._rows = rows
        self.turned_across, self.turned_along = rows[:9], rows[9:18]
        """(9, n): the moments of the columns of B, by the direction's component and then the column."""
        self.squares = rows[18:]
        """(4, n): 1, -2 x, -2 y and x^2 + y^2."""

    @cached_property
    def _turning(self) -> Array:
        return np.concatenate(np.split(self.turned_across, 3), 1)

    def moments(self, flow: NDArray[np.floating]) -> Moments:
        """Return a flow (n, 2) as :meth:`across` and :meth:`split` take it."""
        u, v = flow.T
        found = np.empty((2, 3, len(u)), np.float32)
        (found[0, 0], found[0, 1], found[0, 2]) = -v, u, self.x * v - self.y * u
        (found[1, 0], found[1, 1], found[1, 2]) = -u, -v, self.x * u + self.y * v
        return Moments(*found)

    def lines(self, directions: Array) -> tuple[Array, Array]:
        """Return x and y of the unit vectors along A T of directions (s, 3), each (s, n)."""
        x, y, z = (directions[:, k, None] for k in range(3))
        lengths = self.lengths(directions)
        return (self.x * z - x) / lengths, (self.y * z - y) / lengths

    def lengths(self, directions: Array) -> Array:
        """Return |A T| of unit vectors (s, 3), (s, n)."""
        products = np.empty((len(directions), 4), np.float32)
        np.multiply(directions, directions[:, 2:], products[:, 1:])
        products[:, 0] = 1 - products[:, 3]
        squares = products @ self.squares
        return np.asarray(np.sqrt(np.maximum(squares, NEAR_EPIPOLE**2, out=squares), out=squares))

    def turned(self, directions: Array, lengths: Array) -> Array:
        """Return what of B is across the lines of directions (s, 3), (s, 3, n)."""
        turned = (directions @ self._turning).reshape(len(directions), 3, -1)
        turned /= lengths[:, None]
        return np.asarray(turned, np.float32)

    def split(self, flow: Moments, directions: Array, rotations: Array, lengths: Array) -> tuple[Array, Array]:
        """Return flow without rotations (s, 3) off the lines and along them, each (s, n)."""
        turned = (rotations[:, :, None] * directions[:, None]).reshape(-1, 9)
        off, along = directions @ flow.across, directions @ flow.along
        off -= turned @ self.turned_across
        along -= turned @ self.turned_along
        off /= lengths
        along /= lengths
        return off, along

    def at(self, where: NDArray[np.intp] | slice) -> Positions:
        """Return some of the positions."""
        return Positions(self.x[where], self.y[where], self._rows[:, where])


class Field:
    """What of a flow field depends on its size and camera alone."""

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
        """Every other cell: enough to rank directions by."""
        self.few = self.cells.at(self.searched)
        self.lengths = self.few.lengths(self.directions)
        """Of the half sphere's directions at the cells that they are ranked by, as ``turned``."""
        self.turned = self.few.turned(self.directions, self.lengths)
        # Three cells tell the rotation; of some triples the best is taken, since many cells may move on their own.
        self.triples = np.random.default_rng(0).integers(len(self.searched), size=(TRIPLES, 3))
        drawn = self.turned[:, :, self.triples].transpose(0, 2, 3, 1).astype(np.float64)
        self.solutions = np.linalg.inv(drawn + 1e-6 * np.eye(3))
        """(s, triples, 3, 3): a triple's flow across the lines to the rotation."""

    def measure(self, flow: Array, contrast: Array) -> tuple[Array, Array]:
        """Return the cells' flow (n, 2), units of the focal length, and how far each is known (n,)."""
        cells = [self.cell_means(part) / focal for part, focal in zip(flow, self.focal, strict=True)]
        # Flow spreads from where it is known into what is beside it.
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
    """Return for each direction the rotation (s, 3) that leaves the least flow (s, n) across its lines."""
    weighted = turned * weights[:, None]
    normal = (weighted @ turned.transpose(0, 2, 1)).astype(np.float64) + 1e-6 * np.eye(3)
    right = (weighted @ flow[..., None]).astype(np.float64)
    return np.asarray(np.linalg.solve(normal, right)[..., 0], np.float32)


def _spread(errors: Array, known: Array) -> Array:
    """Return the robust standard deviation of each row of errors (s, n) over the known cells."""
    seen = known > 0.3
    if np.count_nonzero(seen) < known.size // 25:
        seen = np.ones_like(seen)
    errors = np.abs(errors[:, seen])
    rank = int(SURE_SHARE * errors.shape[1])
    return np.asarray(SURE_TO_SIGMA * np.partition(errors, rank, 1)[:, rank], np.float32)


class KnownMotion(NamedTuple):
    """A camera's motion from this frame to another one, known by other means than the images."""

    rotation: NDArray[np.float64]
    """(3, 3), from the axes of the camera at the other frame to those at this one (x right, y down, z forward)."""
    translation: NDArray[np.float64]
    """(3,), where the camera is at the other frame, in the axes of this one, metres."""


@dataclass(frozen=True)
class Travel:
    """How the camera may have travelled between two frames: s samples, and how well each explains each cell."""

    directions: Array
    """(s, 3), unit vectors; which way along them is open unless the motion is known."""
    rotations: Array
    """(s, 3), radians between the frames, beside the known rotation."""
    likelihood: Array
    """(s, n), logarithm, at most 0."""
    prior: Array
    """(s,), the share of the half sphere that a sample stands for."""
    noise: float
    """Standard deviation of a cell across its line, units of the focal length."""
    known: Array
    """(n,), how far each cell's flow is known."""
    flow: Moments
    """Of the cells, units of the focal length, without the known rotation."""
    field: Field
    motion: KnownMotion | None = None

    def weights(self, inside: Array | None = None) -> Array:
        """Return the share (s,) of belief in each sample, of the cells but for the share ``inside`` (n,) of each."""
        outside = self.likelihood if inside is None else self.likelihood * (1 - inside)
        logarithm = INDEPENDENCE * outside.sum(1)
        belief = self.prior * np.exp(logarithm - logarithm.max())
        return np.asarray(belief / belief.sum(), np.float32)

    def vectors(self, flow: Array, pixels: NDArray[np.intp] | slice = slice(None)) -> Array:
        """Return flow (2, h, w), pixels, at some of them as (n, 2), units of the focal length, turned back."""
        vectors = flow.reshape(2, -1).T[pixels] / self.field.focal
        if self.motion is None:
            return np.asarray(vectors, np.float32)
        return _turned_back(self.field.pixels.at(pixels), vectors, self.motion.rotation)

    def likely(self, inside: Array | None = None, most: int = 24) -> tuple[Array, Array, Array, float]:
        """Return belief (s,), directions (s, 3) and rotations (s, 3) of the likeliest samples, and how far they agree.

        The directions lead the way that the camera goes: what is seen is in front of it. How far the parallax agrees on
        that is in [0, 1].
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
        """Return the same travel back again, seen in the flow (2, h, w) from the other frame, with its contrast."""
        if self.motion is not None:
            turn = self.motion.rotation.T
            back = KnownMotion(turn, -turn @ self.motion.translation)
            return estimate_travel(flow, contrast, self.field.camera, back)
        kept = np.argsort(-self.weights())[:40]
        rotations = self.rotations[kept]
        # X' = X - w x X: the direction in the axes of the other frame.
        directions = _unit(self.directions[kept] - _cross(rotations, self.directions[kept]))
        cells, seen = self.field.measure(flow, contrast)
        moments = self.field.cells.moments(cells)
        return _travel(self.field, moments, seen, directions, -rotations, self.prior[kept])


def _travel(
    field: Field, flow: Moments, seen: Array, directions: Array, rotations: Array, prior: Array, best: int = 1
) -> Travel:
    """Return samples with what they explain of the cells' flow; one of the first ``best`` is the best."""
    errors, _ = field.cells.split(flow, directions, rotations, field.cells.lengths(directions))
    noise = max(float(_spread(errors[:best], seen).min()), NOISE * field.unit)
    likelihood = np.asarray(-0.5 * seen * np.minimum((errors / noise) ** 2, OUTLIER), np.float32)
    return Travel(directions, rotations, likelihood, prior, noise, seen, flow, field)


def _turned_back(positions: Positions, flow: Array, rotation: NDArray[np.float64]) -> Array:
    """Return flow (n, 2), units of the focal length, without what a rotation (3, 3) makes of it."""
    x, y = positions.x + flow[:, 0], positions.y + flow[:, 1]
    a, b, c = np.asarray(rotation, np.float32)
    z = c[0] * x + c[1] * y + c[2]
    turned = (a[0] * x + a[1] * y + a[2]) / z - positions.x, (b[0] * x + b[1] * y + b[2]) / z - positions.y
    return np.asarray(np.stack(turned, 1), np.float32)


def _around(direction: Array) -> list[Array]:
    """Return directions 2 and 6 degrees beside one."""
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
    """Improve directions (s, 3) with their rotations by Gauss-Newton on the flow across the lines."""
    x, y = field.cells.x, field.cells.y
    places = np.stack((x, y, np.ones_like(x)))
    for step in range(REFINEMENTS):
        lengths = field.cells.lengths(directions)
        errors, along = field.cells.split(flow, directions, rotations, lengths)
        turned = field.cells.turned(directions, lengths)
        first = _unit(_cross(directions, _EYE[np.argmin(np.abs(directions), 1)]))
        tangents = np.stack((first, _cross(directions, first)), 1)
        # A line turns about its position by A T x A dT / |A T|^2, and with it what is across of the flow along it; of
        # unit tangents, each is to the other as the cross product of T and itself.
        sideways = np.stack((-tangents[:, 1], tangents[:, 0]), 1) @ places
        slope = np.concatenate((sideways * (along / lengths**2)[:, None], -turned), 1)
        # Narrower as the directions improve, so that what moves is left out more and more.
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


def _search(field: Field, cells: Array, seen: Array) -> tuple[list[int], Array, float]:
    """Rank the directions of the half sphere by some of the cells.

    Each direction has the rotation that leaves the least flow across its lines, by reweighted least squares.

    Returns:
        The best directions that differ, the rotations (s, 3), and the least robust deviation of the flow across.

    """
    seen = seen[field.searched]
    floor = NOISE * field.unit
    turned = field.turned
    across = field.directions @ field.few.moments(cells[field.searched]).across / field.lengths
    tried = np.einsum('stij,stj->sti', field.solutions, across[:, field.triples]).astype(np.float32)
    errors = across[:, None] - tried @ turned
    errors *= errors
    errors /= errors + (COARSE * field.unit) ** 2
    rotations = tried[np.arange(len(tried)), (errors @ seen).argmin(1)]
    for _ in range(3):
        errors = across - (rotations[:, None] @ turned)[:, 0]
        spread = np.maximum(_spread(errors, seen), floor)
        least = float(spread.min())
        weights = seen / (1 + (errors / (CAUCHY_TUNING * np.minimum(spread, 2 * least))[:, None]) ** 2)
        rotations = _rotations(across, turned, weights)
    errors = across - (rotations[:, None] @ turned)[:, 0]
    costs = (errors**2 / (errors**2 + (COARSE * field.unit) ** 2)) @ seen
    best: list[int] = []
    for index in np.argsort(costs):
        if len(best) < CANDIDATES and all(
            abs(field.directions[index] @ field.directions[other]) < 0.94 for other in best
        ):
            best.append(int(index))
    return best, rotations, least


def _settle(field: Field, flow: Moments, seen: Array, directions: Array, rotations: Array, noise: float) -> Array:
    """Return for each direction the rotation (s, 3) by all cells, improved from one."""
    lengths = field.cells.lengths(directions)
    across, turned = directions @ flow.across / lengths, field.cells.turned(directions, lengths)
    for _ in range(2):
        errors = across - (rotations[:, None] @ turned)[:, 0]
        weights = np.asarray(seen / (1 + (errors / (CAUCHY_TUNING * noise)) ** 2), np.float32)
        rotations = _rotations(across, turned, weights)
    return rotations


def estimate_travel(flow: Array, contrast: Array, camera: Camera, motion: KnownMotion | None = None) -> Travel:
    """Estimate how the camera travelled, with all directions that remain possible.

    The best directions, as far as they differ, are improved, and sampled more densely around. Where the motion is known
    its direction is sampled alone, and its surroundings with little weight.

    Args:
        flow: (2, h, w), pixels.
        contrast: (h, w) in [0, 1], see :func:`contrast`.
        camera: Of this flow field.
        motion: As the robot knows it.

    """
    height, width = flow.shape[1:]
    field = _field((height, width), camera)
    cells, seen = field.measure(flow, contrast)
    if motion is not None:
        moments = field.cells.moments(_turned_back(field.cells, cells, motion.rotation))
        length = float(np.linalg.norm(motion.translation))
        course = np.asarray(motion.translation / length, np.float32) if length else _EYE[2]
        near = _around(course)
        directions = np.concatenate((course[None], *near))
        errors = course[None] @ moments.across / field.cells.lengths(course[None])
        noise = max(float(_spread(errors, seen)[0]), NOISE * field.unit)
        rotations = _settle(field, moments, seen, directions, np.zeros_like(directions), noise)
        prior = np.repeat(np.array((1.0, 0.02, 0.005), np.float32), (1, *map(len, near)))
        return replace(_travel(field, moments, seen, directions, rotations, prior), motion=motion)
    best, rotations, noise = _search(field, cells, seen)
    moments = field.cells.moments(cells)
    improved, turns = _refine(field, moments, seen, field.directions[best], rotations[best], noise)
    errors = field.cells.split(moments, improved, turns, field.cells.lengths(improved))[0] ** 2
    order = np.argsort((errors / (errors + (2 * NOISE * field.unit) ** 2)) @ seen)
    improved, turns = improved[order], turns[order]
    near = [circle for direction in improved[:2] for circle in _around(direction)]
    starts = np.concatenate((turns, np.repeat(turns[:2], len(near[0]) + len(near[1]), 0)))
    extra = np.concatenate((improved, *near))
    settled = _settle(field, moments, seen, extra, starts, noise)
    # The shares of the half sphere: circles of about 2 and 6 degrees, and the rest.
    prior = np.concatenate(
        (
            np.full(len(best), 0.003),
            *[np.repeat((0.003, 0.01), (4, 6))] * min(len(best), 2),
            np.full(DIRECTIONS, 4 / DIRECTIONS),
        )
    ).astype(np.float32)
    directions = np.concatenate((extra, field.directions))
    return _travel(field, moments, seen, directions, np.concatenate((settled, rotations)), prior, len(best))
