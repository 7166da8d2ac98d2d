"""Scenes of textured sheets under a moving camera, with exact flow, visibility and masks.

The pose of a sheet at a time, in frames, is a homography to the image; so the flow of a visible pixel between any two
times, and its occlusion, are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Homography = NDArray[np.float64]
Points = NDArray[np.float32]
"""x or y of points, pixels."""


@dataclass(frozen=True)
class Layer:
    """One textured sheet; nearer ones come later in the scene's list."""

    texture: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    alpha: NDArray[np.uint8] | None
    """(h, w), 255 where the sheet is solid; None: infinite."""
    pose: Callable[[float], Homography]
    """Homography from sheet to image, by time."""
    moves: bool
    """Whether the sheet moves on its own, beyond the camera's motion."""


@dataclass(frozen=True)
class Instant:
    """A scene at one time."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    layer: NDArray[np.intp]
    """(H, W), index of the visible layer."""
    poses: tuple[Homography, ...]
    """Pose of each layer."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Layers from back to front, seen at (height, width) pixels."""

    layers: tuple[Layer, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.layers or self.layers[0].alpha is not None:
            raise ValueError('the first layer of a scene is its background and must have no alpha')

    @lru_cache(2)  # noqa: B019 (so few)
    def instant(self, time: float) -> Instant:
        """Render the frame at a time; the last ones are cached for flow and masks."""
        poses = tuple(layer.pose(time) for layer in self.layers)
        image = np.empty((*self.size, 3), np.uint8)
        visible_layer = np.zeros(self.size, np.intp)
        for index, (layer, pose) in enumerate(zip(self.layers, poses, strict=True)):
            extent = self._extent(layer, pose)
            part = image[extent]
            if not part.size:
                continue
            sheet = _warp(layer.texture, pose, extent)
            if layer.alpha is None:
                part[:] = sheet
                continue
            alpha = _warp(layer.alpha, pose, extent)
            weight = alpha.astype(np.float32) / np.float32(255)
            part[:] = cv2.blendLinear(sheet, np.ascontiguousarray(part), weight, 1 - weight)
            visible_layer[extent][alpha >= 128] = index
        return Instant(image, visible_layer, poses)

    def _extent(self, layer: Layer, pose: Homography) -> tuple[slice, slice]:
        """Return the rows and columns of the image that the layer can touch."""
        height, width = self.size
        whole = slice(0, height), slice(0, width)
        if layer.alpha is None:
            return whole
        bottom, right = layer.alpha.shape
        x, y, w = pose @ np.array(((0, right, right, 0), (0, 0, bottom, bottom), (1, 1, 1, 1)), np.float64)
        if (w <= 1e-6).any():
            return whole
        (left, top), (right, bottom) = np.floor((x / w, y / w)).min(1), np.ceil((x / w, y / w)).max(1) + 1
        rows = slice(*np.clip((top, bottom), 0, height).astype(int))
        return rows, slice(*np.clip((left, right), 0, width).astype(int))

    def image(self, time: float) -> NDArray[np.uint8]:
        """Return the frame at a time, (H, W, 3) RGB."""
        return self.instant(time).image.copy()

    def mask(self, time: float) -> NDArray[np.bool_]:
        """Return the pixels of objects that move on their own, (H, W)."""
        moves = np.array([layer.moves for layer in self.layers])
        return np.asarray(moves[self.instant(time).layer], np.bool_)

    def flow(self, time: float, target: float) -> NDArray[np.float32]:
        """Return the exact flow from the frame at ``time`` to the one at ``target``, float32 (H, W, 2) pixels."""
        ys, xs = np.mgrid[0 : self.size[0], 0 : self.size[1]].astype(np.float32)
        x, y, _ = moved(self.instant(time), [layer.pose(target) for layer in self.layers], xs, ys)
        return np.stack((x - xs, y - ys), 2)

    def occluded(self, time: float, target: float) -> NDArray[np.bool_]:
        """Return which pixels of ``time`` are out of view or covered at ``target``, (H, W)."""
        ys, xs = np.mgrid[0 : self.size[0], 0 : self.size[1]].astype(np.float32)
        there = self.instant(target)
        return ~visible(there, *moved(self.instant(time), there.poses, xs, ys), (0, 0, *self.size))


def moved(
    source: Instant, poses: Sequence[Homography], x: Points, y: Points
) -> tuple[Points, Points, NDArray[np.intp]]:
    """Return x and y, under other ``poses``, of the points visible at (x, y) of ``source``, and their layers."""
    layer = source.layer[np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)]
    flat, flat_x, flat_y = layer.ravel(), np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel()
    then_x, then_y = np.empty_like(flat_x), np.empty_like(flat_y)
    for index in np.flatnonzero(np.bincount(flat)):
        motion = (poses[index] @ np.linalg.inv(source.poses[index])).astype(np.float32)
        where = np.flatnonzero(flat == index)
        px, py = flat_x[where], flat_y[where]
        weight = motion[2, 0] * px + motion[2, 1] * py + motion[2, 2]
        then_x[where] = (motion[0, 0] * px + motion[0, 1] * py + motion[0, 2]) / weight
        then_y[where] = (motion[1, 0] * px + motion[1, 1] * py + motion[1, 2]) / weight
    return then_x.reshape(x.shape), then_y.reshape(x.shape), layer


def visible(
    target: Instant, x: Points, y: Points, layer: NDArray[np.intp], crop: tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """Return which points of layers at (x, y) of ``target`` lie unoccluded in a crop (top, left, height, width)."""
    top, left, height, width = crop
    inside = (x > left - 0.5) & (x < left + width - 0.5) & (y > top - 0.5) & (y < top + height - 0.5)
    # Truncation after adding a half rounds to the nearest, since nothing is negative after the clip.
    column = (x.clip(left, left + width - 1) + np.float32(0.5)).astype(np.intp)
    row = (y.clip(top, top + height - 1) + np.float32(0.5)).astype(np.intp)
    return np.asarray(inside & (target.layer[row, column] == layer), np.bool_)


def _warp(sheet: NDArray[np.uint8], pose: Homography, extent: tuple[slice, slice]) -> NDArray[np.uint8]:
    rows, columns = extent
    border = cv2.BORDER_CONSTANT if sheet.ndim == 2 else cv2.BORDER_REFLECT
    size = (columns.stop - columns.start, rows.stop - rows.start)
    shifted = translation(-columns.start, -rows.start) @ pose
    return np.asarray(cv2.warpPerspective(sheet, shifted, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def translation(x: float, y: float) -> Homography:
    """Return the homography that moves by (x, y) pixels."""
    return np.array(((1.0, 0.0, x), (0.0, 1.0, y), (0.0, 0.0, 1.0)))


def turn_and_scale(angle: float, scale: float) -> Homography:
    """Return the homography that turns by ``angle`` radians and scales about the origin."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0)))


@dataclass(frozen=True)
class Drift:
    """A quantity with a steady rate and a sway: ``rate * t + sway * sin(pace * t + phase)``, 0 at t = 0."""

    rate: float = 0.0
    sway: float = 0.0
    pace: float = 0.0
    phase: float = 0.0

    def __call__(self, time: float) -> float:
        """Return the change since time 0."""
        return float(self.rate * time + self.sway * (np.sin(self.pace * time + self.phase) - np.sin(self.phase)))

    @staticmethod
    def random(rng: np.random.Generator, rate: float, sway: float) -> Drift:
        """Draw one with these standard deviations of rate and sway."""
        steady, amplitude = float(rng.normal(0, rate)), float(abs(rng.normal(0, sway)))
        return Drift(steady, amplitude, float(rng.uniform(0.1, 0.6)), float(rng.uniform(0, 2 * np.pi)))


CONSTANT: Final = Drift()


@dataclass(frozen=True)
class Trajectory:
    """Planar motion since time 0: shift in pixels, turn in radians, logarithm of the scale."""

    x: Drift = CONSTANT
    y: Drift = CONSTANT
    turn: Drift = CONSTANT
    log_scale: Drift = CONSTANT

    def matrix(self, time: float, depth_gain: float = 1.0) -> Homography:
        """Return the homography at ``time``; a nearer sheet shifts and grows ``depth_gain`` times as much."""
        shape = turn_and_scale(self.turn(time), float(np.exp(depth_gain * self.log_scale(time))))
        return translation(depth_gain * self.x(time), depth_gain * self.y(time)) @ shape


AT_REST: Final = Trajectory()


@dataclass(frozen=True)
class SheetCamera:
    """A camera's motion over a scene, about the image centre (x, y), with a slowly changing tilt."""

    centre: tuple[float, float]
    path: Trajectory = AT_REST
    tilt_x: Drift = CONSTANT
    tilt_y: Drift = CONSTANT
    """Perspective terms of the homography, per pixel."""

    def matrix(self, time: float, depth_gain: float = 1.0) -> Homography:
        """Return the homography from the scene as seen at time 0 to the image at ``time``."""
        tilt = np.eye(3)
        tilt[2, 0], tilt[2, 1] = self.tilt_x(time), self.tilt_y(time)
        x, y = self.centre
        return translation(x, y) @ tilt @ self.path.matrix(time, depth_gain) @ translation(-x, -y)
