"""Training pairs from real video: an image and its flow to a neighbour, from the flow cache, in a random view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.upload import centred
from moving_object_detector.training.augment import (
    crop_resize,
    crop_resize_flow,
    flip,
    flip_flow,
    global_motion,
    random_crop,
    random_motion,
)


class PairSource(Protocol):
    """What of a clip in the flow cache makes pairs."""

    @property
    def name(self) -> str:
        """What the clip is called."""

    @property
    def frame_count(self) -> int:
        """How many frames it has."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, (H, W, 3) RGB."""

    def flow(self, index: int, gap: int) -> NDArray[np.float32]:
        """Return the flow from a frame to the one ``gap`` frames later, (2, H, W), pixels."""

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Return the gaps whose flow there is for a frame."""


@dataclass(frozen=True)
class PairOptions:
    """How a pair is made from a clip."""

    size: tuple[int, int] = (96, 192)
    """(height, width) of the item, pixels."""
    largest_gap: int = 5
    """Frames between the two images, uniform among those up to this, of either sign, that the clip has."""
    least_crop: float = 0.6
    """Least side of a random crop, as a share of the image's; the most is 1."""
    flips: bool = True
    """Whether a pair may be mirrored, left to right and upside down, each half of the time."""
    global_motion: float = 0.0
    """Standard deviation of random camera motion added to the flow, as a share of the width."""
    second_gap: bool = False
    """Whether an item has a second flow, of the same frame and view to another neighbour."""


class CachedPairs(Dataset[tuple[Tensor, ...]]):
    """Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same ones.

    An item is image (3, H, W) in [-0.5, 0.5]; flow (2, H, W) in pixels of that size; (clip, frame, gap) as int64 (3,);
    with ``second_gap`` also the flow of another gap, or of the same one where the frame has no other.

    Args:
        clips: Where pairs come from, each in proportion to how many it has.
        seed: At least 0.
        options: How a pair is made.

    Raises:
        UserError: No clip has a pair.

    """

    def __init__(self, clips: Sequence[PairSource], seed: int, options: PairOptions | None = None) -> None:
        self._clips = tuple(clips)
        self._seed = seed
        self._options = options or PairOptions()
        # Frames without a neighbour (of a clip of one frame) are never drawn.
        self._frames = [np.array([i for i in range(clip.frame_count) if self._gaps(clip, i)]) for clip in self._clips]
        pairs = [
            sum(len(self._gaps(clip, int(i))) for i in frames)
            for clip, frames in zip(self._clips, self._frames, strict=True)
        ]
        if not any(pairs):
            raise UserError('no clip has two frames to make a pair of; give longer clips, without gaps in time')
        self._shares = np.array(pairs) / sum(pairs)

    def _gaps(self, clip: PairSource, index: int) -> list[int]:
        return [gap for gap in clip.neighbours(index) if 0 < abs(gap) <= self._options.largest_gap]

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        options = self._options
        rng = np.random.default_rng((self._seed, index))
        number = int(rng.choice(len(self._clips), p=self._shares))
        clip = self._clips[number]
        frame = int(rng.choice(self._frames[number]))
        gaps = rng.permutation(self._gaps(clip, frame)).tolist()
        chosen = gaps[:1] if not options.second_gap else (gaps * 2)[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(clip.image(frame))).permute(2, 0, 1)[None]
        flows = torch.from_numpy(np.stack([clip.flow(frame, gap) for gap in chosen])).float()
        crop = random_crop(rng, (pixels.shape[2], pixels.shape[3]), options.least_crop)
        mirrored, upside_down = (bool(draw < 0.5) and options.flips for draw in rng.random(2))
        image = flip(crop_resize(pixels.float(), crop, options.size), horizontal=mirrored, vertical=upside_down)
        flows = flip_flow(crop_resize_flow(flows, crop, options.size), horizontal=mirrored, vertical=upside_down)
        if options.global_motion > 0:
            flows = global_motion(flows, random_motion(rng, len(chosen), options.size, options.global_motion))
        return (centred(image[0]), flows[0], torch.tensor((number, frame, chosen[0])), *flows[1:])
