"""A layered scene under a moving camera, with exact flow, visibility and masks.

Every layer is a flat textured sheet; its pose at time t is a homography from sheet to image. So the
flow of a visible pixel between any two times is known exactly, and with it what is occluded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

KEPT: Final = 2
"""Instants kept."""


@dataclass(frozen=True)
class Layer:
    """One textured sheet, nearer ones later in the scene's list."""

    texture: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    alpha: NDArray[np.uint8] | None
    """(h, w), 255 where the sheet is solid; None for a sheet without end."""
    pose: Callable[[float], Matrix]
    """Homography (3, 3) from sheet pixels to image pixels at a time in frames."""
    moves: bool
    """Whether the sheet moves on its own, beyond what the camera's motion explains."""


@dataclass(frozen=True)
class Instant:
    """A scene at one time."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    layer: NDArray[np.intp]
    """(H, W), index of the layer seen at each pixel."""
    poses: tuple[Matrix, ...]
    """Of each layer, from sheet to image."""


@dataclass(frozen=True)
class Scene:
    """Layers from back to front, seen at (height, width) pixels."""

    layers: tuple[Layer, ...]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not self.layers or self.layers[0].alpha is not None:
            raise ValueError('the first layer of a scene is its background and must have no alpha')

    def instant(self, time: float) -> Instant:
        """Render the frame at ``time``, in frames; the last ones are kept, since flow and masks ask for them again."""
        kept = self._kept
        if time not in kept:
            kept[time] = self._render(time)
            while len(kept) > KEPT:
                del kept[next(iter(kept))]
        return kept[time]

    @cached_property
    def _kept(self) -> dict[float, Instant]:
        return {}

    def _render(self, time: float) -> Instant:
        poses = tuple(layer.pose(time) for layer in self.layers)
        image = np.empty((*self.size, 3), np.uint8)
        seen = np.zeros(self.size, np.intp)
        for index, (layer, pose) in enumerate(zip(self.layers, poses, strict=True)):
            extent = self._extent(layer, pose)
            part = image[extent]
            if not part.size:
                continue
            sheet = self._warp(layer.texture, pose, extent)
            if layer.alpha is None:
                part[:] = sheet
                continue
            alpha = self._warp(layer.alpha, pose, extent)
            weight = alpha.astype(np.float32) / np.float32(255)
            part[:] = cv2.blendLinear(sheet, np.ascontiguousarray(part), weight, 1 - weight)
            seen[extent][alpha >= 128] = index
        return Instant(image, seen, poses)

    def _extent(self, layer: Layer, pose: Matrix) -> tuple[slice, slice]:
        """Return the rows and columns of the image that the layer can touch."""
        height, width = self.size
        if layer.alpha is None:
            return slice(0, height), slice(0, width)
        bottom, right = layer.alpha.shape
        corners = np.array(((0, right, right, 0), (0, 0, bottom, bottom), (1, 1, 1, 1)), np.float64)
        x, y, w = pose @ corners
        if (w <= 1e-6).any():
            return slice(0, height), slice(0, width)
        (left, top), (right, bottom) = np.floor((x / w, y / w)).min(1), np.ceil((x / w, y / w)).max(1) + 1
        rows = slice(*np.clip((top, bottom), 0, height).astype(int))
        return rows, slice(*np.clip((left, right), 0, width).astype(int))

    def _warp(self, sheet: NDArray[np.uint8], pose: Matrix, extent: tuple[slice, slice]) -> NDArray[np.uint8]:
        rows, columns = extent
        shift = np.array(((1, 0, -columns.start), (0, 1, -rows.start), (0, 0, 1)), np.float64)
        border = cv2.BORDER_CONSTANT if sheet.ndim == 2 else cv2.BORDER_REFLECT
        size = (columns.stop - columns.start, rows.stop - rows.start)
        return np.asarray(
            cv2.warpPerspective(sheet, shift @ pose, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
        )

    def image(self, time: float) -> NDArray[np.uint8]:
        """Return the frame at ``time`` (in frames), uint8 (H, W, 3) RGB."""
        return self.instant(time).image.copy()

    def visible_layer(self, time: float) -> NDArray[np.intp]:
        """Return the index of the layer seen at each pixel, (H, W)."""
        return self.instant(time).layer

    def mask(self, time: float) -> NDArray[np.bool_]:
        """Return which pixels show something that moves on its own, (H, W)."""
        moves = np.array([layer.moves for layer in self.layers])
        return np.asarray(moves[self.visible_layer(time)], np.bool_)

    def flow(self, time: float, target: float) -> NDArray[np.float32]:
        """Return the exact flow from the frame at ``time`` to the one at ``target``, float32 (H, W, 2) pixels."""
        height, width = self.size
        seen = self.visible_layer(time)
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float64)
        flow = np.zeros((height, width, 2), np.float32)
        for index in np.unique(seen):
            pose = self.layers[index].pose
            motion = pose(target) @ np.linalg.inv(pose(time))
            where = seen == index
            x, y = xs[where], ys[where]
            px, py, pw = (row[0] * x + row[1] * y + row[2] for row in motion)
            flow[where] = np.stack((px / pw - x, py / pw - y), 1)
        return flow

    def occluded(self, time: float, target: float) -> NDArray[np.bool_]:
        """Return which pixels of ``time`` are out of view or covered at ``target``, (H, W)."""
        height, width = self.size
        flow = self.flow(time, target)
        ys, xs = np.mgrid[0:height, 0:width]
        x = np.rint(xs + flow[:, :, 0]).astype(np.intp)
        y = np.rint(ys + flow[:, :, 1]).astype(np.intp)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        then = self.visible_layer(target)[y.clip(0, height - 1), x.clip(0, width - 1)]
        return np.asarray(~inside | (then != self.visible_layer(time)), np.bool_)
