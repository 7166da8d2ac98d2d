"""Choosing among candidate generators, by default without any label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.flow.upload import network_image
from moving_object_detector.networks.weights import FlowInput

THRESHOLD: Final = 0.5
# Of a frame's gaps those that are judged, where it has them.
JUDGED_GAPS: Final = (-2, -1, 1, 2)
LEAST_MOTION: Final = 1.0
"""As the detector's gate: thousandths of the width below which nothing moves on its own."""


class JudgedClip(Protocol):
    """What of a clip in the flow cache is judged."""

    @property
    def frame_count(self) -> int:
        """How many frames it has."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, (H, W, 3) RGB."""

    def flow(self, index: int, gap: int) -> NDArray[np.float32]:
        """Return the flow from a frame to the one ``gap`` frames later, (2, H, W), pixels."""

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Return the gaps whose flow there is for a frame."""

    def annotation(self, index: int) -> NDArray[np.bool_] | None:
        """Return where the truth has an object, (H, W) of its own size."""


@dataclass(frozen=True)
class Judgement:
    """How good a generator is on some frames; means over them."""

    agreement: float
    """Intersection over union of masks of one frame from different gaps; two empty masks agree on nothing (0)."""
    empty: float
    """Share of masks that are empty."""
    jaccard: float | None
    """J of the average over the gaps, where there are annotations; never used unless asked for."""


def spread_frames(clips: Sequence[JudgedClip], count: int) -> list[tuple[int, int]]:
    """Return about ``count`` (clip, frame) numbers of frames with neighbours, spread evenly over clips and in each."""
    each = max(count // len(clips), 1)
    spread = []
    for number, clip in enumerate(clips):
        paired = [frame for frame in range(clip.frame_count) if clip.neighbours(frame)]
        places = np.linspace(0, len(paired) - 1, each + 2)[1:-1].round().astype(int) if paired else ()
        spread += [(number, paired[place]) for place in np.unique(places).tolist()]
    return spread


def _overlap(first: Tensor, second: Tensor) -> float:
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


@torch.inference_mode()
def judge(
    generator: nn.Module,
    clips: Sequence[JudgedClip],
    frames: Sequence[tuple[int, int]],
    size: tuple[int, int],
    flow_input: FlowInput,
    *,
    truth: bool = False,
) -> Judgement:
    """Judge a generator.

    Args:
        generator: On any device; put into no other mode.
        clips: Of the flow cache.
        frames: Numbers of clip and frame.
        size: (height, width) of the generator's input.
        flow_input: How it sees flow.
        truth: Compare with the annotations too.

    """
    device = next(generator.parameters()).device
    agreements, empties, overlaps = [], [], []
    for number, frame in frames:
        clip = clips[number]
        gaps = [gap for gap in clip.neighbours(frame) if gap in JUDGED_GAPS] or list(clip.neighbours(frame)[:2])
        image = network_image(clip.image(frame), size, device)[None]
        fields = torch.from_numpy(np.stack([clip.flow(frame, gap) for gap in gaps])).to(device)
        flow = torch.nn.functional.interpolate(fields, size, mode='bilinear', antialias=True, align_corners=False)
        flow *= flow.new_tensor((size[1] / fields.shape[3], size[0] / fields.shape[2]))[:, None, None]
        prepared = prepare_flow(flow, flow_input)
        mask = cast('Tensor', generator(image.expand(len(gaps), -1, -1, -1), prepared.flow)).float()
        mask = resolve_sign(mask) * (prepared.motion >= LEAST_MOTION)[:, None, None, None]
        found = mask[:, 0] > THRESHOLD
        agreements += [_overlap(found[a], found[b]) for a in range(len(gaps)) for b in range(a)]
        empties += [float(not one.any()) for one in found]
        exact = clip.annotation(frame) if truth else None
        if exact is not None:
            average = mask.mean(0)[0].cpu().numpy()
            whole = cv2.resize(average, (exact.shape[1], exact.shape[0]), interpolation=cv2.INTER_LINEAR) > THRESHOLD
            union = np.count_nonzero(whole | exact)
            overlaps.append(np.count_nonzero(whole & exact) / union if union else 1.0)
    return Judgement(
        float(np.mean(agreements)) if agreements else 0.0,
        float(np.mean(empties)),
        float(np.mean(overlaps)) if overlaps else None,
    )
