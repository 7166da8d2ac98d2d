"""Procedural textures with the statistics of natural images."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

CANVAS: Final = (768, 1024)
"""Size (height, width) of every texture, pixels."""
POOL: Final = 48
"""How many different textures there are before recolouring."""


def _dead_leaves(rng: np.random.Generator, leaves: int) -> NDArray[np.uint8]:
    """Cover a canvas with discs, boxes and polygons whose radii follow r^-3 (Lee et al., IJCV 2001)."""
    height, width = CANVAS
    image = np.full((height, width, 3), rng.integers(40, 216, 3), np.uint8)
    smallest, largest = 4.0, 160.0
    uniform = rng.random(leaves)
    radii = 1.0 / np.sqrt(uniform / smallest**2 + (1.0 - uniform) / largest**2)
    centres = rng.random((leaves, 2)) * (width, height)
    palette = rng.integers(0, 256, (12, 3))
    colours = np.clip(palette[rng.integers(0, 12, leaves)] + rng.normal(0, 18, (leaves, 3)), 0, 255)
    for radius, centre, colour, kind in zip(radii, centres, colours, rng.integers(0, 3, leaves), strict=True):
        corners = 24 if kind == 0 else 4 if kind == 1 else int(rng.integers(3, 8))
        angles = np.sort(rng.random(corners)) * 2 * np.pi if kind == 2 else np.arange(corners) * 2 * np.pi / corners
        stretch = rng.uniform(0.4, 1.0)
        turn = rng.uniform(0, np.pi)
        points = np.stack((np.cos(angles), np.sin(angles) * stretch), 1) * radius
        rotation = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
        outline = np.round((points @ rotation.T + centre) * 16).astype(np.int32)
        cv2.fillPoly(image, [outline], colour.tolist(), cv2.LINE_AA, 4)
    return image


def _fractal_noise(rng: np.random.Generator, roughness: float) -> NDArray[np.float32]:
    """Sum octaves of smooth noise, each ``roughness`` times the last; float32 (H, W, 3) about [-1, 1]."""
    height, width = CANVAS
    total = np.zeros((height, width, 3), np.float32)
    amplitude = 1.0
    for cells in (4, 8, 16, 32, 64, 128, 256):
        grid = rng.normal(0, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        grid = 0.75 * grid.mean(2, keepdims=True) + 0.25 * grid
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        amplitude *= roughness
    return np.asarray(total / np.float32(3 * total.std()), np.float32)


@lru_cache(maxsize=POOL)
def pooled_texture(index: int) -> NDArray[np.uint8]:
    """Return texture ``index`` of the pool, uint8 (768, 1024, 3) RGB, always the same for an index."""
    rng = np.random.default_rng((index, 20190616))
    noise = _fractal_noise(rng, float(rng.uniform(0.55, 0.95)))
    if index % 3 == 0:
        base = 128 + 110 * noise
    else:
        leaves = _dead_leaves(rng, int(rng.integers(600, 5000))).astype(np.float32)
        base = leaves + float(rng.uniform(10, 60)) * noise
    image = np.clip(base, 0, 255).astype(np.uint8)
    sharpness = float(rng.uniform(0.4, 1.4))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sharpness), np.uint8)


def random_texture(rng: np.random.Generator, size: tuple[int, int] = CANVAS, pool: int = POOL) -> NDArray[np.uint8]:
    """Return a recoloured cut of one of the first ``pool`` textures, uint8 RGB of a size up to (768, 1024)."""
    image = pooled_texture(int(rng.integers(pool)))
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(CANVAS, size, strict=True))
    image = image[top : top + size[0], left : left + size[1]]
    contrast, brightness = rng.uniform(0.35, 1.1), rng.uniform(60, 190)
    table = np.clip((np.arange(256) - 128) * contrast + brightness, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table), np.uint8)
    if rng.random() < 0.5:
        image = np.asarray(cv2.cvtColor(image, (cv2.COLOR_RGB2BGR, cv2.COLOR_RGB2HSV)[int(rng.integers(2))]), np.uint8)
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = np.asarray(cv2.addWeighted(image, 0.45, grey, 0.55, 0), np.uint8)
    return image
