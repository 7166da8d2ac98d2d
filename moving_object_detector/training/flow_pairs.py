"""Training pairs for PWC-Net, rendered on the fly with exact flow.

Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene
from moving_object_detector.synthetic.scene import Instant, moved, visible
from moving_object_detector.training.rendered import spoil

Field = NDArray[np.float32]
Image = NDArray[np.uint8]


def tone_table(rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Return a random lookup table (256, 3), uint8, for R, G and B: contrast, gamma, brightness and channel gains.

    Strength 1 is the difference between cameras (contrast 0.6 to 1.4, gamma 0.7 to 1.5, brightness +-0.2, gains 0.8 to
    1.2), 0 is no change.
    """
    tones = np.arange(256, dtype=np.float64)[:, None] / 255.0
    gamma = float(np.exp(strength * rng.uniform(np.log(0.7), np.log(1.5))))
    contrast = 1.0 + strength * float(rng.uniform(-0.4, 0.4))
    brightness = strength * float(rng.uniform(-0.2, 0.2))
    gains = 1.0 + strength * rng.uniform(-0.2, 0.2, 3)
    tones = ((tones - 0.5) * contrast + 0.5 + brightness) * gains
    return np.asarray(np.rint(255.0 * tones.clip(0, 1) ** gamma), np.uint8)


def turn_hue(image: Image, angle: float) -> Image:
    """Rotate the colours of an image (H, W, 3) about the grey axis by ``angle`` radians; greys stay."""
    cosine, sine = np.cos(angle), np.sin(angle) / np.sqrt(3.0)
    third = (1.0 - cosine) / 3.0
    turn = np.full((3, 3), third) + np.diag((cosine,) * 3)
    turn += sine * np.array(((0, -1, 1), (1, 0, -1), (-1, 1, 0)))
    return np.asarray(cv2.transform(image, turn), np.uint8)


def photographs(first: Image, second: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """Add the photometric effects of a camera to two rendered frames.

    Both share a change of tone and, in a third of the pairs, of hue; each has its own small change of tone (automatic
    exposure), blur and noise (:func:`spoil`).
    """
    shared = tone_table(rng, 1.0)
    angle = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 1 / 3 else 0.0
    pictures = []
    for image in (first, second):
        own = tone_table(rng, 0.15)
        table = np.stack([own[shared[:, channel], channel] for channel in range(3)], 1)
        toned = np.asarray(cv2.LUT(image, table[None]), np.uint8)
        if angle:
            toned = turn_hue(toned, angle)
        pictures.append(spoil(toned, rng))
    return pictures[0], pictures[1]


class FlowPair(NamedTuple):
    """Two frames and the flow from the first to the second; a batch has one more dimension in front."""

    first: Tensor
    """(3, H, W) uint8 RGB."""
    second: Tensor
    """(3, H, W) uint8 RGB."""
    flow: Tensor
    """(2, H, W) float32, u right and v down, pixels; exact, also where ``seen`` is false."""
    seen: Tensor
    """(1, H, W) bool: whether the point is visible in the second frame too."""


@dataclass(frozen=True)
class FlowPairOptions:
    """How a rendered pair is made."""

    size: tuple[int, int] = (256, 320)
    """(height, width) of the frames, pixels."""
    largest_gap: float = 4.0
    """Largest time between the two images, frames; uniform from 0.2 to this, of either sign."""
    pairs_per_scene: int = 2
    """Pairs cut from one scene, alternately forward and backward; more is faster, but less varied."""
    deformation: float = 0.5
    """Share of pairs with an additional smooth displacement, as of deforming objects."""
    photometric: bool = True
    """Whether tone, hue, blur and noise of a camera are added (:func:`photographs`)."""
    scene: SceneOptions = field(default_factory=lambda: SceneOptions(objects=(1, 6), standing=(0, 4), parallax=0.4))


class RenderedFlowPairs(Dataset[FlowPair]):
    """Two views of a rendered scene at two times."""

    def __init__(self, seed: int, options: FlowPairOptions) -> None:
        self._seed, self._options = seed, options
        height, width = options.size
        # A margin, so that crops differ and most points that leave a crop are still rendered.
        self._rendered = (height + height // 8, width + width // 8)
        # A cache of one scene, since its pairs are requested in sequence.
        self._last: tuple[int, tuple[Instant, Instant]] | None = None

    def __getitem__(self, index: int) -> FlowPair:
        number, view = divmod(index, self._options.pairs_per_scene)
        source, target = self._instants(number)
        if view % 2:
            source, target = target, source
        return self._view(source, target, np.random.default_rng((self._seed, number, 1 + view)))

    def _instants(self, number: int) -> tuple[Instant, Instant]:
        if self._last is None or self._last[0] != number:
            rng = np.random.default_rng((self._seed, number, 0))
            scene = random_scene((self._seed, number), replace(self._options.scene, size=self._rendered))
            begin = float(rng.uniform(0, 20))
            end = begin + float(rng.uniform(0.2, self._options.largest_gap)) * float(rng.choice((-1, 1)))
            self._last = number, (scene.instant(begin), scene.instant(end))
        return self._last[1]

    def _view(self, source: Instant, target: Instant, rng: np.random.Generator) -> FlowPair:
        """Crop, flip and deform a pair: ``source`` is sampled at ``at``, ``target`` at ``place``."""
        height, width = self._options.size
        top, left = (
            int(rng.integers(whole - part + 1)) for whole, part in zip(self._rendered, (height, width), strict=True)
        )
        flip_x, flip_y = (bool(rng.random() < 0.5) for _ in range(2))
        # Pixel (x, y) of the view is pixel (columns[x], rows[y]) of the rendering.
        columns = np.arange(left, left + width, dtype=np.float32)[:: -1 if flip_x else 1]
        rows = np.arange(top, top + height, dtype=np.float32)[:: -1 if flip_y else 1]
        place_x, place_y = np.broadcast_to(columns, (height, width)), np.broadcast_to(rows[:, None], (height, width))
        bend = _smooth_field(rng, (height, width)) if rng.random() < self._options.deformation else None
        # Positions clipped to the border repeat its pixels, and their flow is still exact.
        at_x = place_x if bend is None else (place_x + bend[:, :, 0]).clip(0, self._rendered[1] - 1)
        at_y = place_y if bend is None else (place_y + bend[:, :, 1]).clip(0, self._rendered[0] - 1)

        then_x, then_y, layer = moved(source, target.poses, at_x, at_y)
        signs = np.array((-1 if flip_x else 1, -1 if flip_y else 1), np.float32)
        flow = np.stack(((then_x - place_x) * signs[0], (then_y - place_y) * signs[1]))
        seen = visible(target, then_x, then_y, layer, (top, left, height, width))

        part = slice(top, top + height), slice(left, left + width)
        first, second = (instant.image[part][:: int(signs[1]), :: int(signs[0])] for instant in (source, target))
        if bend is not None:
            first = np.asarray(cv2.remap(source.image, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
        if self._options.photometric:
            first, second = photographs(np.ascontiguousarray(first), np.ascontiguousarray(second), rng)
        return FlowPair(_planes(first), _planes(second), torch.from_numpy(flow), torch.from_numpy(seen[None]))


def _planes(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _smooth_field(rng: np.random.Generator, size: tuple[int, int]) -> Field:
    """Return a smooth random displacement (H, W, 2), pixels, interpolated from a grid of 2 x 2 to 5 x 5 values."""
    cells = int(rng.integers(2, 6))
    # The gradient stays below about a half, so that the displacement never folds.
    amplitude = float(np.exp(rng.uniform(np.log(0.2), np.log(0.06 * min(size) / cells + 0.3))))
    grid = rng.normal(0, amplitude, (cells, cells, 2)).astype(np.float32)
    return np.asarray(cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.float32)
