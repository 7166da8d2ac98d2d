"""Rendered flights of a pinhole camera over a world of planes, with exact flow, occlusion, masks, depth and poses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic import planes
from moving_object_detector.synthetic.flight_path import MOTIONS, FlightPath, Matrix
from moving_object_detector.synthetic.materials import material
from moving_object_detector.synthetic.planes import Canvas, Extent
from moving_object_detector.synthetic.things import Builder, PartPose
from moving_object_detector.synthetic.tiles import Floats, Picture, Tile
from moving_object_detector.synthetic.world import World

GROUND_FLOW: Final = (2.0, 12.0)
"""Range of the ground's median flow, pixels per frame at a width of 640."""


@dataclass(frozen=True)
class FlightOptions:
    """Options of a flight; those that are None are drawn at random."""

    size: tuple[int, int] = (360, 640)
    """(height, width) in pixels."""
    still: bool | None = None
    """Whether nothing moves on its own."""
    motion: str | None = None
    """One of :data:`~moving_object_detector.synthetic.flight_path.MOTIONS`."""
    parallax: float = 1.0
    """Amount of objects that stand on the ground: 0 none, 1 ordinary, 2 many and near."""
    frames: int = 60
    """Frames over which the camera meets objects; the flight has no end. Another length gives another world."""
    follow: bool = False
    """Whether the camera keeps looking at the first mover, which moves along with it."""
    camera: bool = True
    """Whether images have a camera's motion blur, exposure, noise and compression."""


class View(NamedTuple):
    """One frame."""

    image: Picture
    """(H, W, 3) RGB."""
    mask: NDArray[np.bool_]
    """(H, W), True on what moves on its own."""
    instances: NDArray[np.uint8]
    """(H, W), number of the mover from 1; 0 on static pixels."""
    depth: Floats
    """(H, W), metres along the optical axis; infinite in the sky."""


class _Render(NamedTuple):
    canvas: Canvas
    camera: Matrix
    parts: list[PartPose]


class Flight:
    """A camera on its path through a world. Times are frames, of either sign, and need not be whole."""

    def __init__(self, seed: int | tuple[int, ...], options: FlightOptions) -> None:
        self.size, self._seed, self._camera = options.size, np.atleast_1d(seed).tolist(), options.camera
        rng = np.random.default_rng((*self._seed, 3))
        height, width = options.size
        still = options.still if options.still is not None else bool(rng.random() < 1 / 3)
        drawn = str(rng.choice(MOTIONS))
        self.motion = options.motion or drawn
        focal = width / 2 / np.tan(np.radians(float(rng.uniform(55, 95))) / 2)
        self.intrinsics: Matrix = np.array(((focal, 0, (width - 1) / 2), (0, focal, (height - 1) / 2), (0, 0, 1)))
        """K (3, 3), pixels; the middle of the first pixel is at (0, 0)."""
        self.fps = float(rng.choice((10, 15, 20, 25, 30)))
        flow = float(np.exp(rng.uniform(*np.log(np.array(GROUND_FLOW) * width / 640))))
        self.path = FlightPath(rng, self.motion, self.intrinsics, options.size, self.fps, flow)
        overcast = rng.random() < 0.3
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(25, 70))
        sun = np.array((np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)))
        warm = np.array((1.0, 0.97, 0.9)) if rng.random() < 0.7 else np.array((1.0, 0.9, 0.74))
        light = np.array((0.48, 0.53, 0.62)), 0.62 * warm
        if overcast:
            sun = np.array((0.02, 0.0, 1.0))
            light = np.array((0.92, 0.93, 0.96)), 0.08 * np.ones(3)
        builder = Builder(rng, sun, light)
        world = World(builder, self.path, self.intrinsics, options.size, options.frames / self.fps)
        world.populate(options.parallax, still=still, follow=options.follow)
        self.faces, self.parts = builder.faces, builder.parts
        followed = next((part for part in builder.parts if part is not None and options.follow), None)
        if followed is not None:
            self.path.beside = float(rng.normal(0, 0.12)), float(rng.normal(0, 0.06))
            self.path.aim = followed.course.middle
        self._sun = sun
        grey = float(rng.uniform(190, 226))
        self._haze_colour = np.array((grey - 6, grey, grey + 8), np.uint8)
        # Camera effects: shutter time as a share of a frame; JPEG quality, 0: no compression.
        self._shutter = float(rng.choice((0.0, 0.25, 0.6), p=(0.4, 0.4, 0.2)))
        self._gain, self._gamma, self._noise = (float(rng.uniform(*b)) for b in ((0.85, 1.15), (0.85, 1.2), (0, 0.3)))
        self._quality, self._drift = int(rng.choice((0, 60, 80, 92))), float(rng.uniform(0.01, 1))
        # Darkness of shadows, 0 to 1, and their blur in pixels at a width of 640; share of light lost per metre.
        self._shade, soft = (0.3, (4, 9)) if overcast else (0.52, (0.7, 1.6))
        self._softness = float(rng.uniform(*soft))
        self._haze = float(np.exp(rng.uniform(np.log(4e-4), np.log(6e-3))))

    @cached_property
    def _stacks(self) -> Matrix:
        """Return origins, edges s and edges t of all faces, (3, n, 3)."""
        return np.array([[getattr(face, name) for face in self.faces] for name in ('origin', 'edge_s', 'edge_t')])

    @cached_property
    def _owners(self) -> NDArray[np.int32]:
        """Return the part of each face; the last entry belongs to the sky, whose face is -1."""
        return np.array([*(face.part for face in self.faces), 0], np.int32)

    def pose(self, time: float) -> Matrix:
        """Return the pose of the camera's optical frame in the world, (4, 4), x right, y down, z forward."""
        return self.path.pose(time / self.fps)

    def frame(self, time: float) -> View:
        """Render the frame at ``time``."""
        render = self._render(time)
        instances = self._instances(render)
        with np.errstate(divide='ignore'):
            depth = np.float32(1) / render.canvas.nearness
        return View(self._photograph(time, render), instances > 0, instances, depth)

    def image(self, time: float) -> Picture:
        """Return the frame's image alone."""
        return self.frame(time).image

    def mask(self, time: float) -> NDArray[np.bool_]:
        """Return which pixels show something that moves on its own, (H, W)."""
        return np.asarray(self._instances(self._render(time)) > 0, np.bool_)

    def flow(self, time: float, target: float) -> Floats:
        """Return the exact flow from the frame at ``time`` to the one at ``target``, float32 (H, W, 2) pixels.

        It is NaN where the point is behind the camera at ``target``.
        """
        return self._flow(self._render(time), target)[0]

    def occluded(self, time: float, target: float) -> NDArray[np.bool_]:
        """Return which pixels of ``time`` are out of view or covered at ``target``, (H, W)."""
        height, width = self.size
        here, there = self._render(time), self._render(target)
        flow, nearness = self._flow(here, target)
        x, y = here.canvas.columns + flow[..., 0], here.canvas.rows + flow[..., 1]
        inside = (nearness >= 0) & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        column = np.rint(np.nan_to_num(x).clip(0, width - 1)).astype(np.intp)
        row = np.rint(np.nan_to_num(y).clip(0, height - 1)).astype(np.intp)
        same = there.canvas.face[row, column] == here.canvas.face
        # Rounding by half a pixel may hit a neighbouring face at the same depth.
        close = np.abs(there.canvas.nearness[row, column] - nearness) < 0.02 * nearness
        return np.asarray(~(inside & (same | close)), np.bool_)

    def _instances(self, render: _Render) -> NDArray[np.uint8]:
        numbers = np.array([part.instance if part else 0 for part in self.parts], np.uint8)
        return numbers[self._owners[render.canvas.face]]

    def _flow(self, render: _Render, target: float) -> tuple[Floats, Floats]:
        """Return the flow and the inverse depth of the same points at ``target`` (negative: behind the camera)."""
        canvas, there, parts = render.canvas, self.pose(target), self._poses(target)
        flow = np.empty((*self.size, 2), np.float32)
        nearness = np.empty(self.size, np.float32)
        owner = self._owners[canvas.face]
        for part in np.flatnonzero(np.bincount(owner.ravel())):
            extent, inside = canvas.whole, np.True_
            if part:
                where = owner == part
                extent = planes.box_of(where)
                inside = where[extent]
            (r0, p0), (r1, p1) = render.parts[part], parts[part]
            # Camera here -> world -> part -> world then -> camera there.
            turn = r1 @ r0.T
            world = there[:3, :3].T @ turn @ render.camera[:3, :3]
            shift = there[:3, :3].T @ (turn @ (render.camera[:3, 3] - p0) + p1 - there[:3, 3])
            matrix = self.intrinsics @ world @ np.linalg.inv(self.intrinsics)
            offset = (self.intrinsics @ shift).astype(np.float32)
            near = canvas.nearness[extent]
            x, y, w = (planes.linear(matrix[k], canvas, extent) + offset[k] * near for k in range(3))
            w = np.where(w > 1e-6, w, np.float32(np.nan))
            np.copyto(flow[extent][..., 0], x / w - canvas.columns[:, extent[1]], where=inside)
            np.copyto(flow[extent][..., 1], y / w - canvas.rows[extent[0]], where=inside)
            np.copyto(nearness[extent], np.nan_to_num(near / w, nan=-1.0), where=inside)
        return flow, nearness

    def _poses(self, time: float) -> list[PartPose]:
        still: PartPose = np.eye(3), np.zeros(3)
        return [still if part is None else part.pose(time / self.fps) for part in self.parts]

    @lru_cache(3)  # noqa: B019 (so few)
    def _render(self, time: float) -> _Render:
        """Draw the world without camera effects; the last ones are cached for flow and masks."""
        render = _Render(Canvas(self.size), self.pose(time), self._poses(time))
        self._draw_sky(render)
        self._draw_faces(render)
        self._draw_haze(render.canvas)
        return render

    def _draw_sky(self, render: _Render) -> None:
        """Draw clouds on a plane at infinity, which only rotation moves."""
        canvas = render.canvas
        rays = render.camera[:3, :3] @ np.linalg.inv(self.intrinsics)
        up = planes.linear(rays[2], canvas, canvas.whole)
        canvas.image[:] = self._haze_colour
        if not (up > 0).any():
            return
        extent: Extent = slice(0, int(np.flatnonzero((up > 0).any(1))[-1]) + 1), slice(0, self.size[1])
        sky = material('sky', int(self._drift * 1e6))
        assert isinstance(sky, Tile)
        height = np.maximum(up[extent], np.float32(0.02))
        sheet = planes.look_up_tile(sky, rays, (1 / sky.metres[0] * 2, 1 / sky.metres[1] * 2), height, canvas, extent)
        clear = np.clip(up[extent] * 4, 0, 1)
        canvas.image[extent] = cv2.blendLinear(sheet, canvas.image[extent].copy(), clear, 1 - clear)

    def _draw_faces(self, render: _Render) -> None:
        canvas = render.canvas
        origin, s, t = self._stacks
        rotations, places = (np.array([pose[k] for pose in render.parts])[self._owners[:-1]] for k in range(2))
        origin = np.einsum('nij,nj->ni', rotations, origin) + places
        s, t = np.einsum('nij,nj->ni', rotations, s), np.einsum('nij,nj->ni', rotations, t)
        centre = render.camera[:3, 3]
        q, corners = planes.project(origin, s, t, render.camera[:3, :3].T, centre, self.intrinsics)
        face_extents = planes.extents(corners, self.intrinsics, self.size)
        away = np.einsum('nj,nj->n', np.cross(s, t), centre - origin)
        depth = corners.mean(1)[:, 2]
        ground = [k for k, face in enumerate(self.faces) if face.ground]
        raised = sorted((k for k, face in enumerate(self.faces) if not face.ground), key=lambda k: -float(depth[k]))
        for order in (ground, raised):
            for k in order:
                face = self.faces[k]
                extent = canvas.whole if face.endless else face_extents[k]
                if extent is not None and face.outside * away[k] >= 0:
                    planes.draw(face, k, q[k], extent, canvas)
            if order is ground:
                self._draw_shadows(render, origin, s, t)

    def _draw_shadows(self, render: _Render, origin: Matrix, s: Matrix, t: Matrix) -> None:
        canvas, camera = render.canvas, render.camera
        chosen = np.array([face.casts and not face.ground for face in self.faces])
        if not chosen.any():
            return
        # Projected along the sun's rays on to the ground; at half the size, since shadows are blurred anyway.
        fall = np.eye(3) - np.outer(self._sun, (0, 0, 1)) / self._sun[2]
        o, a, b = (vectors[chosen] @ fall.T for vectors in (origin, s, t))
        half = Canvas((self.size[0] // 2, self.size[1] // 2))
        intrinsics = np.array(((0.5, 0, -0.25), (0, 0.5, -0.25), (0, 0, 1))) @ self.intrinsics
        q, corners = planes.project(o, a, b, camera[:3, :3].T, camera[:3, 3], intrinsics)
        shadow_extents = planes.extents(corners, intrinsics, half.size)
        for k, row, extent in zip(np.flatnonzero(chosen), q, shadow_extents, strict=True):
            if extent is not None and row.any():
                planes.shadow(self.faces[k], row, extent, half)
        dark = half.nearness
        if not dark.any():
            return
        dark = np.asarray(cv2.GaussianBlur(dark, (0, 0), self._softness * half.size[1] / 640), np.float32)
        dark = np.asarray(cv2.resize(dark, self.size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        # The sky has no shadows.
        dark *= canvas.face >= 0
        dark *= np.float32(self._shade)
        canvas.image[:] = cv2.blendLinear(canvas.image, np.zeros_like(canvas.image), 1 - dark, dark)

    def _draw_haze(self, canvas: Canvas) -> None:
        distance = np.float32(self._haze) / np.maximum(canvas.nearness, np.float32(1e-6))
        clear = np.exp(-distance)
        clear[canvas.face < 0] = 1
        haze = np.ascontiguousarray(np.broadcast_to(self._haze_colour, canvas.image.shape))
        canvas.image[:] = cv2.blendLinear(canvas.image, haze, clear, 1 - clear)

    def _photograph(self, time: float, render: _Render) -> Picture:
        """Return the image with camera effects."""
        image = render.canvas.image
        if not self._camera:
            return image.copy()
        if self._shutter:
            flow = np.nan_to_num(self._flow(render, time + self._shutter)[0]).clip(-40, 40)
            total = image.astype(np.int32)
            for share in (-0.5, -0.25, 0.25, 0.5):
                x = render.canvas.columns + np.float32(share) * flow[..., 0]
                y = render.canvas.rows + np.float32(share) * flow[..., 1]
                total += np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)
            image = (total // 5).astype(np.uint8)
        level = self._gain * (1 + 0.05 * np.sin(0.13 * time * self._drift * 10 + self._drift * 50))
        table = np.clip(255 * (np.arange(256) / 255) ** self._gamma * level, 0, 255).astype(np.uint8)
        image = np.asarray(cv2.LUT(image, table), np.uint8)
        rng = np.random.default_rng((*self._seed, abs(int(time * 1024)), int(time < 0)))
        (height, width), grain = self.size, _grain()
        if height > grain.shape[0] or width > grain.shape[1]:
            grain = np.tile(grain, (height // grain.shape[0] + 1, width // grain.shape[1] + 1, 1))
        top, left = int(rng.integers(grain.shape[0] - height + 1)), int(rng.integers(grain.shape[1] - width + 1))
        part = grain[top : top + height, left : left + width]
        image = np.asarray(cv2.addWeighted(image, 1.0, part, self._noise, 0, dtype=cv2.CV_8U), np.uint8)
        if self._quality:
            coded = cv2.imencode('.jpg', image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, self._quality))[1]
            image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
        return np.asarray(image, np.uint8)


@cache
def _grain() -> NDArray[np.int16]:
    """Return sensor noise of standard deviation 16; drawn once and cropped anew for each frame."""
    rng = np.random.default_rng(20190616)
    both = rng.normal(0, 11, (1400, 2000, 1)) + rng.normal(0, 11, (1400, 2000, 3))
    return both.astype(np.int16)


def flight(seed: int | tuple[int, ...], options: FlightOptions | None = None) -> Flight:
    """Make a flight from a seed, non-negative; the same seed and options always give the same pixels."""
    return Flight(seed, options or FlightOptions())
