"""Ideal conditions, table 1 of the paper: constant independent flow inside and outside of the true masks.

The only place where the truth enters a training; it checks the objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import Annotation, ClipFiles
from moving_object_detector.detection.pair_masks import resolve_polarity
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.flow.base import UNIT_PIXELS, UNIT_SIZE, network_image, resize_maps
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training.pairs import cut, flip, random_crop

IDEAL_WARNING: Final = (
    'IDEAL CONDITIONS: the annotations enter this training. It checks the objective; its model is not for use.'
)
MOST_IDEAL: Final = 600
"""Annotated frames that are kept in memory, evenly spread."""
LARGEST_IDEAL: Final = 1.0
"""Each component of an ideal flow is uniform within plus and minus this, motion units (an eighth of the width)."""
SCORING_SEED: Final = 2**31
"""Added to the seed of the flows that a generator is scored with: training never draws them."""


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


def annotated_frames(clips: Sequence[ClipFiles], size: tuple[int, int], most: int = MOST_IDEAL) -> list[AnnotatedFrame]:
    """Read about ``most`` frames with an object and a background, evenly spread; a UserError where there is none."""
    frames = []
    for place, clip in enumerate(clips):
        numbers = [number for number, annotation in enumerate(clip.annotations) if annotation is not None]
        places = np.linspace(0, len(numbers) - 1, max(most // len(clips), 1)).astype(int)
        wanted = {numbers[k] for k in places if numbers}
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
    inside, outside = torch.from_numpy((rng.uniform(-LARGEST_IDEAL, LARGEST_IDEAL, (2, 2)) * pixel).astype(np.float32))
    return torch.where(mask > 0.5, inside[:, None, None], outside[:, None, None])


class IdealPairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Views of annotated frames with ideal flow (table 1 of the paper), one constant inside and one outside the mask.

    Items end with (clip, frame, 0), as those of :class:`CachedPairs`.
    """

    def __init__(self, frames: Sequence[AnnotatedFrame], seed: int, least_crop: float) -> None:
        self._frames = tuple(frames)
        self._seed = seed
        self._least_crop = least_crop

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self._seed, index))
        frame = self._frames[int(rng.integers(len(self._frames)))]
        size = (frame.mask.shape[0], frame.mask.shape[1])
        both = torch.cat((network_image(frame.image, size), torch.from_numpy(frame.mask)[None].float()))[None]
        mirrored, upside_down = (bool(draw < 0.5) for draw in rng.random(2))
        view = resize_maps(cut(both, random_crop(rng, size, self._least_crop)), size)
        view = flip(view, horizontal=mirrored, vertical=upside_down)[0]
        return view[:3], constant_flows(rng, view[3:]), torch.tensor((frame.clip, frame.number, 0))


@torch.inference_mode()
def ideal_masks(
    generator: Generator, frames: Sequence[AnnotatedFrame], flow_input: str, seed: int
) -> list[NDArray[np.float32]]:
    """Return what a generator makes of each frame with flows that training never drew, (H, W) in [0, 1] each."""
    device = next(generator.parameters()).device
    masks = []
    for number, frame in enumerate(frames):
        rng = np.random.default_rng((SCORING_SEED + seed, number))
        flow = constant_flows(rng, torch.from_numpy(frame.mask)[None].float())[None].to(device)
        prepared = prepare_flow(flow, cast('FlowInput', flow_input)).flow
        mask = generator(network_image(frame.image, (frame.mask.shape[0], frame.mask.shape[1]), device)[None], prepared)
        masks.append(np.asarray(resolve_polarity(mask.float())[0, 0].cpu().numpy(), np.float32))
    return masks


def ideal_scores(frames: Sequence[AnnotatedFrame], masks: Sequence[NDArray[np.float32]]) -> dict[int, float]:
    """Return the mean J of each clip, at the annotations' own size."""
    scores: dict[int, list[float]] = {}
    for frame, mask in zip(frames, masks, strict=True):
        truth = frame.annotation.read()
        whole = cv2.resize(mask, (truth.shape[1], truth.shape[0]), interpolation=cv2.INTER_LINEAR)
        scores.setdefault(frame.clip, []).append(jaccard(np.asarray(whole > 0.5), truth))
    return {clip: float(np.mean(values)) for clip, values in scores.items()}
