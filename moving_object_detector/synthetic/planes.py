"""Drawing textured planes in space as seen by a pinhole camera, with exact visibility.

A parallelogram ``origin + s edge_s + t edge_t`` (s and t in [0, 1]), seen from a camera, gives the matrix
``M = K R [edge_s, edge_t, origin - centre]``; with ``q = inverse(M) (x, y, 1)`` the point seen at (x, y) is
``s = q0 / q2, t = q1 / q2`` at the inverse depth ``q2``. All three are linear in the image, so visibility is exact
at each pixel. World: x, y horizontal, z up, metres. Camera: x right, y down, z forward. An extent is the rows
and columns of a region of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic.flight_path import Matrix
from moving_object_detector.synthetic.tiles import Card, Floats, Material, Picture, Tile

Extent = tuple[slice, slice]

NEAREST_DEPTH = 0.08
"""Near clipping depth, metres."""


@dataclass(frozen=True)
class Face:
    """One plane of the world; its origin and edges are in the coordinates of its part."""

    material: Material
    origin: Matrix
    edge_s: Matrix
    edge_t: Matrix
    shade: Matrix
    """Light times colour (3,), which multiplies the material."""
    part: int = 0
    """Rigid part that it belongs to; 0 is the static world."""
    outside: int = 0
    """1: visible only from the side that ``edge_s x edge_t`` points to, as on a closed body; -1: the other; 0: both."""
    casts: bool = True
    """Whether it casts a shadow on the ground."""
    ground: bool = False
    """Whether it lies on the ground, where later ones cover earlier ones."""
    endless: bool = False
    """Whether it is infinite."""
    tone: Tile | None = None
    """Large-scale variation of tone, 128 for none, that hides the material's repetition."""

    @cached_property
    def table(self) -> Picture:
        """Lookup table of the shade, (1, 256, 3)."""
        return np.asarray(np.clip(np.arange(256)[None, :, None] * self.shade, 0, 255), np.uint8)

    @cached_property
    def repeats(self) -> tuple[float, float]:
        """Repetitions of its tile along its edges."""
        lengths = float(np.linalg.norm(self.edge_s)), float(np.linalg.norm(self.edge_t))
        return self.material.repeats(*lengths) if isinstance(self.material, Tile) else (1.0, 1.0)


class Canvas:
    """An image of (height, width) pixels with its depth buffer."""

    def __init__(self, size: tuple[int, int]) -> None:
        height, width = self.size = size
        self.image: Picture = np.empty((height, width, 3), np.uint8)
        self.nearness: Floats = np.zeros(size, np.float32)
        """Inverse depth, 1/m; 0 in the sky. On a canvas of shadows: their darkness, 0 to 1."""
        self.face: NDArray[np.int32] = np.full(size, -1, np.int32)
        """Index of the visible face; -1 in the sky."""
        self.columns = np.arange(width, dtype=np.float32)[None]
        self.rows = np.arange(height, dtype=np.float32)[:, None]
        self.whole: Extent = slice(0, height), slice(0, width)


def linear(coefficients: Matrix, canvas: Canvas, extent: Extent) -> Floats:
    """Return ``a x + b y + c`` at the pixels of an extent."""
    a, b, c = (float(value) for value in coefficients)
    rows, columns = extent
    row = np.float32(b) * canvas.rows[rows] + np.float32(c)
    return np.asarray(np.float32(a) * canvas.columns[:, columns] + row, np.float32)


def _coverage(q: Matrix, canvas: Canvas, extent: Extent) -> Floats:
    """Return the share of each pixel inside the edges, by its signed distance to them in the image."""
    lines = np.stack((q[0], q[2] - q[0], q[1], q[2] - q[1]))
    lines /= np.maximum(np.hypot(lines[:, 0], lines[:, 1]), 1e-12)[:, None]
    a, b, c = lines.astype(np.float32).T[:, :, None, None]
    rows, columns = extent
    nearest = np.min(a * canvas.columns[:, columns] + (b * canvas.rows[rows] + (c + np.float32(0.5))), 0)
    return np.asarray(np.clip(nearest, 0, 1, out=nearest), np.float32)


def _level(q: Matrix, repeats: tuple[float, float], side: float, x: Matrix, y: Matrix) -> Matrix:
    """Return the mipmap level, log2 of texels per pixel, at points; between those of the mean and the longer axis."""
    s, t, w = (row[0] * x + row[1] * y + row[2] for row in q)
    w = np.maximum(w, 1e-9)
    (sx, sy), (tx, ty) = (
        [(q[row, k] - along / w * q[2, k]) / w * (repeats[row] * side) for k in range(2)]
        for row, along in enumerate((s, t))
    )
    area = np.abs(sx * ty - sy * tx)
    longer = sx**2 + sy**2 + tx**2 + ty**2
    return np.asarray(0.25 * np.log2(area + 1e-12) + 0.25 * np.log2(longer + 1e-12) - 0.35, np.float64)


def look_up_tile(
    tile: Tile, q: Matrix, repeats: tuple[float, float], nearness: Floats, canvas: Canvas, extent: Extent
) -> Picture:
    """Sample a repeating texture at the pixels of an extent, interpolating between the two nearest mipmap levels."""
    rows, columns = extent
    inverse = np.asarray(np.float32(1) / np.maximum(nearness, np.float32(1e-9)), np.float32)
    s, t = linear(q[0] * repeats[0], canvas, extent), linear(q[1] * repeats[1], canvas, extent)
    s *= inverse
    t *= inverse
    s -= np.floor(s)
    t -= np.floor(t)
    height, width = s.shape
    # The level varies slowly, so it is interpolated from a coarse grid.
    ys = np.linspace(rows.start, rows.stop - 1, min(max(height // 6, 2), height))
    xs = np.linspace(columns.start, columns.stop - 1, min(max(width // 24, 2), width))
    coarse = _level(q, repeats, float(tile.places[2][0]), xs[None], ys[:, None]).clip(0, len(tile.places[2]) - 1.001)
    if np.ptp(coarse) < 0.6:
        return _remap(tile, s, t, *(float(values[round(float(coarse.mean()))]) for values in tile.places))
    level = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    below = level.astype(np.uint8)
    pictures = []
    for shift in (0, 1):
        tables = (np.resize(values[shift:], 256) for values in tile.places)
        pictures.append(_remap(tile, s, t, *(np.asarray(cv2.LUT(below, table), np.float32) for table in tables)))
    blend = level - below.astype(np.float32)
    return np.asarray(cv2.blendLinear(pictures[0], pictures[1], 1 - blend, blend), np.uint8)


def _remap(
    tile: Tile, s: Floats, t: Floats, left: Floats | float, top: Floats | float, side: Floats | float
) -> Picture:
    x, y = s * np.float32(side), t * np.float32(side)
    x += np.float32(left)
    y += np.float32(top)
    return np.asarray(cv2.remap(tile.atlas, x, y, cv2.INTER_LINEAR), np.uint8)


def _cut_out(card: Card, q: Matrix, extent: Extent, coarser: float = 0.0) -> Picture:
    """Sample a card at the pixels of an extent, at one mipmap level; transparent outside of it."""
    rows, columns = extent
    height, width = card.levels[0].shape[:2]
    x, y = (columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2
    level = float(_level(q, (width, height), 1.0, np.array(x), np.array(y))) + coarser
    picture = card.levels[int(np.clip(round(level), 0, len(card.levels) - 1))]
    height, width = picture.shape[:2]
    sheet = np.array(((width, 0, -0.5), (0, height, -0.5), (0, 0, 1)), np.float64)
    shift = np.array(((1, 0, columns.start), (0, 1, rows.start), (0, 0, 1)), np.float64)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpPerspective(picture, sheet @ q @ shift, size, flags=flags), np.uint8)


def box_of(where: NDArray[np.bool_]) -> Extent:
    """Return the bounding box of the true pixels."""
    x, y, width, height = cv2.boundingRect(where.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def draw(face: Face, index: int, q: Matrix, extent: Extent, canvas: Canvas) -> None:
    """Draw face number ``index`` where nothing nearer has been drawn."""
    nearness = linear(q[2], canvas, extent)
    # Ground faces have equal depth: later ones cover earlier ones.
    front = nearness > (np.float32(1e-7) if face.ground else canvas.nearness[extent])
    front &= nearness < np.float32(1 / NEAREST_DEPTH)
    if isinstance(face.material, Tile):
        weight = np.asarray(front, np.float32) if face.endless else _coverage(q, canvas, extent) * front
        inner = box_of(weight > 0)
        if not weight[inner].size:
            return
        rows, columns = (
            slice(whole.start + part.start, whole.start + part.stop) for whole, part in zip(extent, inner, strict=True)
        )
        extent, nearness, weight = (rows, columns), nearness[inner], weight[inner]
        sheet = look_up_tile(face.material, q, face.repeats, nearness, canvas, extent)
        if face.tone is not None:
            share = face.material.metres[0] / face.tone.metres[0]
            s, t = face.repeats
            tone = look_up_tile(face.tone, q, (s * share, t * share), nearness, canvas, extent)
            sheet = np.asarray(cv2.multiply(sheet, tone, scale=1 / 128), np.uint8)
    elif front.any():
        weight = np.asarray(front, np.float32)
        sheet = _cut_out(face.material, q, extent)
    else:
        return
    if sheet.shape[2] == 4:
        weight = weight * (sheet[..., 3].astype(np.float32) * np.float32(1 / 255))
        sheet = np.ascontiguousarray(sheet[..., :3])
    sheet = np.asarray(cv2.LUT(sheet, face.table), np.uint8)
    part = canvas.image[extent]
    part[:] = cv2.blendLinear(sheet, np.ascontiguousarray(part), np.ascontiguousarray(weight), 1 - weight)
    solid = weight >= np.float32(0.5)
    np.copyto(canvas.nearness[extent], nearness, where=solid)
    np.copyto(canvas.face[extent], index, where=solid)


def shadow(face: Face, q: Matrix, extent: Extent, canvas: Canvas) -> None:
    """Add the shadow of a face, with the q of its outline on the ground, to a canvas of shadows."""
    if isinstance(face.material, Card):
        weight = _cut_out(face.material, q, extent, 1.0)[..., 3].astype(np.float32)
        weight *= np.float32(1 / 255)
    else:
        weight = _coverage(q, canvas, extent)
        if face.material.atlas.shape[2] == 4:
            weight *= np.float32(0.5)
    weight *= linear(q[2], canvas, extent) > 0
    np.maximum(canvas.nearness[extent], weight, out=canvas.nearness[extent])


def project(
    origin: Matrix, edge_s: Matrix, edge_t: Matrix, rotation: Matrix, centre: Matrix, intrinsics: Matrix
) -> tuple[Matrix, Matrix]:
    """Return q (n, 3, 3) of planes and their corners (n, 4, 3) in camera coordinates.

    Origin and edges are (n, 3) in the world; ``rotation`` (3, 3) turns world to camera axes; ``centre`` is the camera.
    """
    o, a, b = (origin - centre) @ rotation.T, edge_s @ rotation.T, edge_t @ rotation.T
    corners = np.stack((o, o + a, o + a + b, o + b), 1)
    planes = np.stack((a, b, o), -1)
    # A plane seen exactly edge-on is invisible and has no inverse.
    flat = np.abs(np.linalg.det(planes)) < 1e-12
    planes[flat] = np.eye(3)
    q = np.linalg.inv(planes) @ np.linalg.inv(intrinsics)
    q[flat] = 0.0
    return q, corners


def extents(corners: Matrix, intrinsics: Matrix, size: tuple[int, int]) -> list[Extent | None]:
    """Return the extent that each quadrilateral (n, 4, 3) may touch; None if it is out of view."""
    height, width = size
    depth = corners[..., 2]
    pixels = corners @ intrinsics.T
    with np.errstate(divide='ignore', invalid='ignore'):
        places = pixels[..., :2] / depth[..., None]
    behind = (depth < NEAREST_DEPTH).sum(1)
    for index in np.flatnonzero((behind > 0) & (behind < 4)):
        clipped = _clipped(corners[index], intrinsics)
        places[index, 0], places[index, 1:] = clipped.min(0), clipped.max(0)
    # Pixel numbers far outside of the image would overflow an int.
    low = np.floor(np.nan_to_num(places.min(1)).clip(-1, 1e6)).astype(int).clip(0)
    high = (np.ceil(np.nan_to_num(places.max(1)).clip(-1e6, 1e6)).astype(int) + 1).clip(max=(width, height))
    in_view = (behind < 4) & (high > low).all(1)
    return [
        (slice(y0, y1), slice(x0, x1)) if visible else None
        for visible, (x0, y0), (x1, y1) in zip(in_view.tolist(), low.tolist(), high.tolist(), strict=True)
    ]


def _clipped(corners: Matrix, intrinsics: Matrix) -> Matrix:
    """Clip a quadrilateral at the near depth and return its corners in the image, (n, 2)."""
    kept = []
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        if start[2] >= NEAREST_DEPTH:
            kept.append(start)
        if (start[2] >= NEAREST_DEPTH) != (end[2] >= NEAREST_DEPTH):
            kept.append(start + (end - start) * (NEAREST_DEPTH - start[2]) / (end[2] - start[2]))
    pixels = np.array(kept) @ intrinsics.T
    return np.asarray(pixels[:, :2] / pixels[:, 2:], np.float64)
