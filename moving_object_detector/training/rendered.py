"""Rendered training pairs with exact masks, rendered anew each time or once and stored on disk.

Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same pairs. An item is image
(3, H, W) in [-0.5, 0.5], flow (C, H, W) as in :class:`RenderedPair`, and mask (1, H, W) in [0, 1].
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.flow.base import SIDE_CHANNELS, FlowBackend, centred, scale_vectors
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.evidence import with_evidence
from moving_object_detector.flow.generator_input import reverse_side
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.weights import FlowInput, sees_both_sides, takes_evidence
from moving_object_detector.synthetic.flight import FlightOptions, flight
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene, followed_scene, random_scene
from moving_object_detector.training.chunks import Chunks, done_chunks, fill, read_item, to_half
from moving_object_detector.training.pairs import View, random_crop
from moving_object_detector.training.setup import Setup

KEPT_CHUNK: Final = 32
"""Pairs per file; a killed run loses at most these."""
KEPT_FORMAT: Final = 4
"""Version of the files and of the rendering, part of the folder's name."""
KINDS: Final = ('images', 'flow', 'masks')
GAIN: Final = (0.75, 1.25)
"""Range of the random brightness factor on stored images."""
NEAR: Final = (0.15, 0.15, 0.15, 0.5, 1.0, 2.0)
"""Largest parallax of a scene's standing things, drawn uniformly; above 0.15 there are more of them."""

FIGURES: Final = 0.35
"""Share of the sheet scenes' objects that are figures with limbs."""


@dataclass(frozen=True)
class RenderedOptions:
    """How rendered pairs are made."""

    size: tuple[int, int] = (96, 192)
    """(height, width) of the generator's input, pixels."""
    largest_gap: int = 5
    """Largest distance between the two images, frames; uniform in 1..largest_gap, of either sign."""
    empty_share: float = 0.2
    """Share of sheet scenes without moving objects; in half of them the camera flies steadily."""
    image_dropout: float = 0.2
    """Share of pairs whose image is blanked, so that the generator does not rely on rendered appearance."""
    scene: SceneOptions = field(default_factory=partial(SceneOptions, figures=FIGURES))
    flights: float = 0.0
    """Share of pairs that are flights (see ``synthetic/flight.py``), at the scene's size."""
    still_flights: float = 1 / 3
    """Share of flights without moving objects."""
    followed: float = 0.0
    """Share of sheet scenes, and of flights with movers, in which the camera follows a mover."""
    flow_input: FlowInput = 'residual'
    """The generator's flow input, which decides the channels of flow: 2, 7 with evidence, 14 for both sides."""
    one_side: float = 0.35
    """Share of two-sided items reduced to one side, as for the newest frame of a stream."""


def spoil(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add a camera's blur, exposure drift and sensor noise to an image (H, W, 3), uint8."""
    if rng.random() < 0.5:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.5))), np.uint8)
    noise = rng.normal(0, float(rng.uniform(0, 5)), (*image.shape[:2], 1))
    return np.asarray(np.clip(image * float(rng.uniform(0.95, 1.05)) + noise, 0, 255), np.uint8)


_Rendered = tuple[list[NDArray[np.uint8]], NDArray[np.bool_]]
"""Images of a frame and its neighbours, and the frame's mask."""


class RenderedPair(NamedTuple):
    """A rendered pair before augmentation."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB, the frame on which the flow is defined."""
    flow: NDArray[np.float32]
    """(2, H, W) pixels, (7, H, W) with evidence, (14, H, W) for both sides; estimated as in the detector."""
    mask: NDArray[np.float32]
    """(H, W) in [0, 1], exact."""


def some_one_sided(flow: Tensor, rng: np.random.Generator, options: RenderedOptions) -> Tensor:
    """Return an item's flow (C, H, W); of a two-sided one sometimes replace the second side by the first, reversed."""
    if not sees_both_sides(options.flow_input) or rng.random() >= options.one_side:
        return flow
    first = flow[:SIDE_CHANNELS]
    return torch.cat((first, reverse_side(first)))


class RenderedPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pairs rendered on demand.

    ``make_flow`` creates the flow estimator, once per process; by default DIS at the scene's size.
    """

    def __init__(self, seed: int, options: RenderedOptions, make_flow: Callable[[], FlowBackend] | None = None) -> None:
        self.seed, self.options = seed, options
        self._make_flow = make_flow or partial(DisFlow, options.scene.size)

    @cached_property
    def _flow(self) -> FlowBackend:
        return self._make_flow()

    def __getstate__(self) -> dict[str, Any]:
        # The estimator cannot be pickled; each process creates its own.
        return {name: value for name, value in self.__dict__.items() if name != '_flow'}

    def pair(self, index: int) -> RenderedPair:
        """Render a pair, neither mirrored nor blanked."""
        return self._made(index)[0]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        pair, rng = self._made(index)
        image, mask = centred(torch.from_numpy(pair.image).permute(2, 0, 1)), torch.from_numpy(pair.mask)[None]
        flow = some_one_sided(torch.from_numpy(pair.flow), rng, self.options)
        if rng.random() < self.options.image_dropout:
            image = torch.zeros_like(image)
        if rng.random() < 0.5:
            return image.flip(2), scale_vectors(flow[None], -1, 1)[0].flip(2), mask.flip(2)
        return image, flow, mask

    def _made(self, index: int) -> tuple[RenderedPair, np.random.Generator]:
        options = self.options
        key = (self.seed, index)
        rng = np.random.default_rng((*key, 1))
        draws = self._flight if options.flights and rng.random() < options.flights else self._sheets
        images, mask = draws(key, rng)
        one, *others = map(self._flow.features, images)
        if takes_evidence(options.flow_input):
            sources, targets = [one] * len(others) + others, others + [one] * len(others)
            flows = self._flow.estimate(sources, targets, options.size).cpu().numpy()
            both = zip(flows[: len(others)], flows[len(others) :], strict=True)
            flow = np.concatenate([with_evidence(images[0], forward, backward) for forward, backward in both])
        else:
            flow = self._flow.estimate([one], others, options.size)[0].cpu().numpy()
        image = resize_image(images[0], options.size)
        return RenderedPair(image, flow, resize_image(mask.astype(np.float32), options.size)), rng

    def _times(self, rng: np.random.Generator, latest: float) -> tuple[float, ...]:
        """Draw the times of a frame, its neighbour and, for two-sided input, the neighbour on the other side."""
        time = float(rng.uniform(0, latest))
        gap = int(rng.integers(1, self.options.largest_gap + 1)) * (1 if rng.random() < 0.5 else -1)
        if not sees_both_sides(self.options.flow_input):
            return time, time + gap
        # Unequal distances imitate uneven motion of camera and objects.
        return time, time + gap, time - gap * float(np.clip(rng.normal(1, 0.25), 0.4, 1.6))

    def _sheets(self, key: tuple[int, int], rng: np.random.Generator) -> _Rendered:
        options = self.options
        if options.followed and rng.random() < options.followed:
            near = float(rng.choice((0.15, 0.5, 1.0)))
            scene = followed_scene(key, replace(options.scene, standing=(0, 4), parallax=near, objects=(1, 2)))
            times = self._times(rng, 4)
        else:
            empty = rng.random() < options.empty_share
            near = float(rng.choice(NEAR))
            stands = replace(options.scene, standing=(1, 5), parallax=near) if near > NEAR[0] else options.scene
            if empty and rng.random() < 0.5:
                scene = clip_scene((*key, 2), replace(stands, objects=(0, 0)))
            else:
                scene = random_scene(key, replace(stands, objects=(0, 0)) if empty else stands)
            times = self._times(rng, 20)
        noise_seed = int(rng.integers(2**31))
        images = [spoil(scene.image(time), np.random.default_rng((noise_seed, k))) for k, time in enumerate(times)]
        return images, scene.mask(times[0])

    def _flight(self, key: tuple[int, int], rng: np.random.Generator) -> _Rendered:
        options = self.options
        still = bool(rng.random() < options.still_flights)
        # Short, so that the movers are in view.
        follow = not still and bool(options.followed) and rng.random() < options.followed
        scene = flight(key, FlightOptions(size=options.scene.size, still=still, frames=12, follow=follow))
        times = self._times(rng, 12)
        return [scene.image(time) for time in times], scene.mask(times[0])


class KeptPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pairs stored by :func:`keep_pairs`, with random crop, flip and brightness.

    Items are drawn from the first ``count`` of a ``folder`` and have ``size`` (height, width), pixels; of ``options``
    the image dropout and the share of one-sided items apply.
    """

    def __init__(self, folder: Path, count: int, seed: int, size: tuple[int, int], options: RenderedOptions) -> None:
        self._folder, self._count, self._seed = folder, count, seed
        self._size, self._options = size, options

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self._seed, index))
        number = int(rng.integers(self._count))
        pixels, stored, exact = (
            torch.from_numpy(read_item(self._folder, number, KEPT_CHUNK, kind).astype(np.float32))[None]
            for kind in KINDS
        )
        crop = random_crop(rng, (exact.shape[1], exact.shape[2]))
        view = View(crop, self._size, bool(rng.random() < 0.5))
        image = centred((view.maps(pixels.permute(0, 3, 1, 2)) * float(rng.uniform(*GAIN))).clamp(0, 255))[0]
        if rng.random() < self._options.image_dropout:
            image = torch.zeros_like(image)
        flow = some_one_sided(view.flow(stored)[0], rng, self._options)
        # Rounding in the resize may leave [0, 1].
        return image, flow, view.maps(exact[:, None] / 255.0).clamp(0, 1)[0]


def keep_pairs(pairs: RenderedPairs, count: int, folder: Path, fingerprint: str, workers: int) -> Path:
    """Render the first ``count`` pairs, in whole chunks, into a subfolder of ``folder`` unless stored; return it.

    Its name is a hash of everything that affects the pairs; ``fingerprint`` identifies the flow estimator. ``workers``
    is the number of rendering processes, 0: this one. Raises UserError if writing fails.
    """
    decides = repr((KEPT_FORMAT, f'{pairs.seed} {pairs.options}', fingerprint))
    key = hashlib.blake2b(decides.encode(), digest_size=8).hexdigest()
    subfolder, chunks = folder / f'rendered-{key}', range(-(-count // KEPT_CHUNK))

    def rendered(done: set[int]) -> Chunks:
        missing = [number for number in chunks if number not in done]
        batches = Setup(workers=workers).batches(partial(_kept, pairs), missing, KEPT_CHUNK)
        for number, batch in zip(missing, batches, strict=True):
            yield number, [values.numpy() for values in batch]

    if set(chunks) - done_chunks(subfolder, KINDS):
        fill(subfolder, 'the rendered pairs', KINDS, len(chunks), rendered)
    return subfolder


def _kept(pairs: RenderedPairs, index: int) -> tuple[Tensor, ...]:
    image, flow, mask = pairs.pair(index)
    parts = image, to_half(flow, 'a rendered pair'), (mask * 255).round().astype(np.uint8)
    return tuple(map(torch.from_numpy, parts))
