"""Pairs under ideal conditions: one constant flow inside and another outside of the annotated mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotations import Annotation
from moving_object_detector.datasets.layouts import ClipFiles
from moving_object_detector.flow.upload import centred
from moving_object_detector.media.pixels import resize_image
from moving_object_detector.training.augment import crop_resize, flip, random_crop
from moving_object_detector.training.losses import UNIT_PIXELS, UNIT_SIZE

MOST_FRAMES: Final = 600
"""Annotated frames that are kept in memory, evenly spread."""
LARGEST: Final = 1.0
"""Each component of a constant flow is uniform within plus and minus this, motion units (an eighth of the width)."""


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame at the networks' size, with its mask."""

    clip: int
    number: int
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    mask: NDArray[np.bool_]
    """(H, W)."""
    annotation: Annotation
    """At its own size."""


def annotated_frames(
    clips: Sequence[ClipFiles], size: tuple[int, int], most: int = MOST_FRAMES
) -> list[AnnotatedFrame]:
    """Read frames that have an object and a background, evenly spread over the clips and within each.

    Args:
        clips: Those without annotations are passed over.
        size: (height, width) to which frames and masks are resized.
        most: About how many to read.

    Raises:
        UserError: There is none, or a file cannot be read.

    """
    frames = []
    for place, clip in enumerate(clips):
        numbers = [number for number, annotation in enumerate(clip.annotations) if annotation is not None]
        wanted = {
            numbers[k] for k in np.linspace(0, len(numbers) - 1, max(most // len(clips), 1)).astype(int) if numbers
        }
        for number, frame in enumerate(clip.source() if wanted else ()):
            annotation = clip.annotations[number] if number in wanted else None
            if annotation is None:
                continue
            image = resize_image(frame.image, size)
            mask = resize_image(annotation.read().astype(np.float32), size) > 0.5
            if mask.any() and not mask.all():
                frames.append(AnnotatedFrame(place, number, np.asarray(image, np.uint8), mask, annotation))
    if not frames:
        raise UserError('--ideal needs annotated footage with objects; give data.root=PATH of such a data set')
    return frames


def constant_flows(rng: np.random.Generator, mask: Tensor) -> Tensor:
    """Return a constant flow inside a mask (1, H, W) and another one outside, (2, H, W) pixels."""
    height, width = mask.shape[-2:]
    pixel = UNIT_PIXELS * np.array((width / UNIT_SIZE[1], height / UNIT_SIZE[0]))
    inside, outside = torch.from_numpy((rng.uniform(-LARGEST, LARGEST, (2, 2)) * pixel).astype(np.float32))
    return torch.where(mask > 0.5, inside[:, None, None], outside[:, None, None])


def as_input(image: NDArray[np.uint8]) -> Tensor:
    """Return an image (H, W, 3) as (3, H, W) in [-0.5, 0.5]."""
    return centred(torch.from_numpy(image).permute(2, 0, 1))


class IdealPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pair k is a function of ``(seed, k)`` alone; items are those of ``CachedPairs``, with constant flows.

    Args:
        frames: From which to draw.
        seed: At least 0.
        least_crop: Least side of a random crop, as a share of the image.

    """

    def __init__(self, frames: Sequence[AnnotatedFrame], seed: int, least_crop: float) -> None:
        self._frames = tuple(frames)
        self._seed = seed
        self._least_crop = least_crop

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self._seed, index))
        frame = self._frames[int(rng.integers(len(self._frames)))]
        size = (frame.mask.shape[0], frame.mask.shape[1])
        both = torch.cat((as_input(frame.image), torch.from_numpy(frame.mask)[None].float()))[None]
        mirrored, upside_down = (bool(draw < 0.5) for draw in rng.random(2))
        view = crop_resize(both, random_crop(rng, size, self._least_crop), size)
        view = flip(view, horizontal=mirrored, vertical=upside_down)[0]
        return view[:3], constant_flows(rng, view[3:]), torch.tensor((frame.clip, frame.number, 0))
