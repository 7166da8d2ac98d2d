"""Pairs of real frames with a teacher's flow, from the flow cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.augment import crop_resize, crop_resize_flow, flip, flip_flow, random_crop
from moving_object_detector.training.cached_pairs import PairSource


class VideoPair(NamedTuple):
    """Two frames and a teacher's flow from the first to the second; a batch has one more dimension in front."""

    first: Tensor
    """(3, H, W) uint8 RGB."""
    second: Tensor
    """(3, H, W) uint8 RGB."""
    flow: Tensor
    """(2, H, W) float32, pixels."""


@dataclass(frozen=True)
class VideoPairOptions:
    """How a pair is made from a clip."""

    size: tuple[int, int]
    """(height, width) of the item, pixels."""
    least_crop: float = 0.6
    """Least side of a random crop, as a share of the image's; the most is 1."""


class VideoFlowPairs(Dataset[VideoPair]):
    """Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same ones.

    Args:
        clips: Where pairs come from, each frame with all its gaps as likely as any other frame.
        seed: At least 0.
        options: How a pair is made.

    Raises:
        UserError: No clip has a pair.

    """

    def __init__(self, clips: Sequence[PairSource], seed: int, options: VideoPairOptions) -> None:
        self._clips = tuple(clips)
        self._seed = seed
        self._options = options
        self._starts = np.cumsum([0, *(clip.frame_count for clip in self._clips)])
        if not any(clip.neighbours(frame) for clip in self._clips for frame in range(clip.frame_count)):
            raise UserError('no clip has two frames to make a pair of; give longer clips, without gaps in time')

    def __getitem__(self, index: int) -> VideoPair:
        rng = np.random.default_rng((self._seed, index))
        clip, frame, gaps = self._draw(rng)
        gap = int(rng.choice(gaps))
        images = torch.stack([_pixels(clip.image(position)) for position in (frame, frame + gap)]).float()
        flow = torch.from_numpy(np.ascontiguousarray(clip.flow(frame, gap), np.float32))[None]
        crop = random_crop(rng, (images.shape[2], images.shape[3]), self._options.least_crop)
        mirrored, upside_down = (bool(draw < 0.5) for draw in rng.random(2))
        images = flip(crop_resize(images, crop, self._options.size), horizontal=mirrored, vertical=upside_down)
        flow = flip_flow(crop_resize_flow(flow, crop, self._options.size), horizontal=mirrored, vertical=upside_down)
        first, second = images.round().clamp(0, 255).to(torch.uint8)
        return VideoPair(first, second, flow[0])

    def _draw(self, rng: np.random.Generator) -> tuple[PairSource, int, tuple[int, ...]]:
        """Draw a frame that has a neighbour."""
        while True:
            place = int(rng.integers(self._starts[-1]))
            number = int(np.searchsorted(self._starts, place, 'right')) - 1
            clip, frame = self._clips[number], place - int(self._starts[number])
            gaps = clip.neighbours(frame)
            if gaps:
                return clip, frame, gaps


def _pixels(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
