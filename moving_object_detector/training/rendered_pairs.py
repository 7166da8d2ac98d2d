"""Training pairs rendered on the fly: image, flow as the detector would estimate it, exact mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.upload import network_image
from moving_object_detector.media.pixels import resize_image
from moving_object_detector.synthetic.flight import FlightOptions, flight
from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene


@dataclass(frozen=True)
class PairOptions:
    """How a rendered pair is made."""

    size: tuple[int, int] = (96, 192)
    """(height, width) of the generator's input, pixels."""
    largest_gap: int = 5
    """Frames between the two images, uniform in 1..largest_gap, of either sign."""
    empty_share: float = 0.1
    """Share of scenes in which nothing moves on its own."""
    image_dropout: float = 0.2
    """Share of pairs whose image is blanked, so that rendered appearance is not what decides."""
    scene: SceneOptions = field(default_factory=SceneOptions)
    flights: float = 0.0
    """Share of pairs that are flights (see ``synthetic/flight.py``), at the scene's size."""
    still_flights: float = 1 / 3
    """Share of flights in which nothing moves on its own."""


def spoil(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add what a real camera adds: blur, exposure drift and sensor noise; uint8 (H, W, 3) to the same."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.5))), np.uint8)
    noise = rng.normal(0, float(rng.uniform(0, 5)), (*image.shape[:2], 1))
    return np.asarray(np.clip(image * float(rng.uniform(0.95, 1.05)) + noise, 0, 255), np.uint8)


_Pair = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]
"""Two images, and the mask of the first."""


class RenderedPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same ones.

    An item is image (3, H, W) in [-0.5, 0.5], flow (2, H, W) in pixels of that size, mask (1, H, W) in [0, 1].

    Args:
        seed: At least 0.
        options: How a pair is made.
        make_flow: Makes the estimator of the flow, once in each process; by default DIS at the scene's size.

    """

    def __init__(
        self, seed: int, options: PairOptions | None = None, make_flow: Callable[[], FlowBackend] | None = None
    ) -> None:
        self._seed = seed
        self._options = options or PairOptions()
        self._make_flow = make_flow or partial(DisFlow, self._options.scene.size)
        self._flow: FlowBackend | None = None

    def __getstate__(self) -> dict[str, Any]:
        # An estimator, once made, cannot be sent to another process.
        return {**self.__dict__, '_flow': None}

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        options = self._options
        key = (self._seed, index)
        rng = np.random.default_rng((*key, 1))
        draws = self._flight if options.flights and rng.random() < options.flights else self._sheets
        first, second, mask = draws(key, rng)
        # Made where it is used: a network is not sent to the processes that render.
        backend = self._flow = self._flow or self._make_flow()
        flow = backend.estimate([backend.features(first)], [backend.features(second)], options.size)[0]
        image = network_image(first, options.size)
        if rng.random() < options.image_dropout:
            image = torch.zeros_like(image)
        item = image, flow, torch.from_numpy(resize_image(mask.astype(np.float32), options.size))[None]
        if rng.random() < 0.5:
            sign = torch.tensor((-1.0, 1.0))[:, None, None]
            item = item[0].flip(2), item[1].flip(2) * sign, item[2].flip(2)
        return item

    def _times(self, rng: np.random.Generator, latest: float) -> tuple[float, float]:
        time = float(rng.uniform(0, latest))
        return time, time + int(rng.integers(1, self._options.largest_gap + 1)) * (1 if rng.random() < 0.5 else -1)

    def _sheets(self, key: tuple[int, int], rng: np.random.Generator) -> _Pair:
        options = self._options
        empty = rng.random() < options.empty_share
        scene = random_scene(key, replace(options.scene, objects=(0, 0)) if empty else options.scene)
        time, target = self._times(rng, 20)
        noise_seed = int(rng.integers(2**31))
        first = spoil(scene.image(time), np.random.default_rng((noise_seed, 0)))
        second = spoil(scene.image(target), np.random.default_rng((noise_seed, 1)))
        return first, second, scene.mask(time)

    def _flight(self, key: tuple[int, int], rng: np.random.Generator) -> _Pair:
        options = self._options
        still = bool(rng.random() < options.still_flights)
        # So short that what moves is in view.
        scene = flight(key, FlightOptions(size=options.scene.size, still=still, frames=12))
        time, target = self._times(rng, 12)
        return scene.image(time), scene.image(target), scene.mask(time)
