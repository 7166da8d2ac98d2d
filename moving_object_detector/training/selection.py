"""Label-free choice among candidate generators, by the agreement of their masks on cached clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector.detection.config import GateConfig
from moving_object_detector.detection.pair_masks import resolve_polarity
from moving_object_detector.detection.regions import draw_overlay
from moving_object_detector.flow.base import network_image, resize_flow
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.media.pictures import draw_sheet
from moving_object_detector.networks.weights import FlowInput
from moving_object_detector.training.flow_cache import CachedClip
from moving_object_detector.training.pairs import clip_flow

THRESHOLD: Final = 0.5
JUDGED_GAPS: Final = (-2, -1, 1, 2)
"""Gaps that are judged; a frame with none of them is judged by its first two."""
SHEET: Final = (3, 4)
"""Rows and columns of a picture of masks."""


@dataclass(frozen=True)
class Judgement:
    """A generator's quality, averaged over some frames."""

    agreement: float
    """Intersection over union of a frame's masks from different gaps; 0 for two empty masks."""
    empty: float
    """Share of masks that are empty."""


def spread_frames(clips: Sequence[CachedClip], count: int) -> list[tuple[int, int]]:
    """Return the (clip, frame) numbers of about ``count`` paired frames, evenly spaced over and within the clips."""
    each = max(count // len(clips), 1)
    spread = []
    for number, clip in enumerate(clips):
        paired = [frame for frame in range(clip.frame_count) if clip.neighbours(frame)]
        places = np.linspace(0, len(paired) - 1, each + 2)[1:-1].round().astype(int)
        spread += [(number, paired[place]) for place in np.unique(places).tolist()]
    return spread


def _overlap(first: Tensor, second: Tensor) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


@dataclass(frozen=True)
class Judge:
    """Judges generators with a given input on given ``frames``, (clip, frame) numbers."""

    clips: Sequence[CachedClip]
    frames: Sequence[tuple[int, int]]
    size: tuple[int, int]
    """(height, width), pixels."""
    flow_input: FlowInput

    @torch.inference_mode()
    def _masks(self, generator: nn.Module, clip: CachedClip, frame: int) -> Tensor:
        """Return a frame's masks from its gaps, (gaps, 1, H, W) on the network's device, empty without motion."""
        gaps = [gap for gap in clip.neighbours(frame) if gap in JUDGED_GAPS] or list(clip.neighbours(frame)[:2])
        device = next(generator.parameters()).device
        image = network_image(clip.image(frame), self.size, device)[None]
        flow = resize_flow(clip_flow(clip, frame, gaps, self.flow_input).to(device), self.size)
        prepared = prepare_flow(flow, self.flow_input)
        mask = cast('Tensor', generator(image.expand(len(gaps), -1, -1, -1), prepared.flow)).float()
        return resolve_polarity(mask) * (prepared.motion >= GateConfig.min_motion)[:, None, None, None]

    def judge(self, generator: nn.Module) -> Judgement:
        """Judge a generator, on any device; its training mode is left as it is."""
        agreements, empties = [], []
        for number, frame in self.frames:
            found = self._masks(generator, self.clips[number], frame)[:, 0] > THRESHOLD
            agreements += [_overlap(found[a], found[b]) for a in range(len(found)) for b in range(a)]
            empties += [float(not one.any()) for one in found]
        return Judgement(float(np.mean(agreements)) if agreements else 0.0, float(np.mean(empties)))

    def draw(self, generator: nn.Module) -> NDArray[np.uint8]:
        """Draw a generator's masks of some frames, averaged over gaps, as a contact sheet (H, W, 3) RGB."""
        places = np.unique(np.linspace(0, len(self.frames) - 1, SHEET[0] * SHEET[1]).round().astype(int))
        tiles = []
        for place, (number, frame) in enumerate(self.frames[place] for place in places):
            image = self.clips[number].image(frame)
            mean = self._masks(generator, self.clips[number], frame).mean(0)[0].cpu().numpy()
            fitted = cv2.resize(mean, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
            tiles.append((place, draw_overlay(image, np.where(fitted > THRESHOLD, 255, 0).astype(np.uint8))))
        return draw_sheet(tiles, SHEET[1], tiles[0][1].shape[1])
