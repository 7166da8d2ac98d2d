"""Training pairs from footage in the flow cache, and the crops and flips of all training pairs.

Pair k is a function of ``(seed, k)`` alone, for any k, so that a resumed run sees the same pairs. An item begins with
image (3, H, W) in [-0.5, 0.5] and flow (C, H, W) in pixels of that size, C as in :func:`clip_flow`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.base import centred, resize_maps, scale_vectors
from moving_object_detector.flow.evidence import with_evidence
from moving_object_detector.flow.generator_input import reverse_side
from moving_object_detector.networks.weights import FlowInput, sees_both_sides, takes_evidence
from moving_object_detector.training.flow_cache import CachedClip

LEAST_CROP: Final = 0.6
Targets: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""Returns the teacher's target and certainty for a frame of a clip, uint8 (2, H, W); raises CacheError."""


class Crop(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


def random_crop(rng: np.random.Generator, size: tuple[int, int], least: float = LEAST_CROP) -> Crop:
    """Draw a crop of an image's aspect ratio, with sides of a share uniform in [``least``, 1], at a uniform place."""
    share = float(rng.uniform(least, 1.0))
    height, width = (max(round(side * share), 1) for side in size)
    return Crop(int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1)), height, width)


class View(NamedTuple):
    """How an item is made from stored maps: crop, resize to ``size`` (height, width), flips."""

    crop: Crop
    size: tuple[int, int]
    mirrored: bool
    upside_down: bool = False

    def maps(self, maps: Tensor) -> Tensor:
        """Transform images or masks (B, C, H, W)."""
        top, left, height, width = self.crop
        part = resize_maps(maps[..., top : top + height, left : left + width], self.size)
        return part.flip([axis for axis, wanted in ((-1, self.mirrored), (-2, self.upside_down)) if wanted])

    def flow(self, flow: Tensor) -> Tensor:
        """Transform flow (B, C, H, W), with vectors in pixels of the item."""
        u, v = self.size[1] / self.crop.width, self.size[0] / self.crop.height
        return scale_vectors(self.maps(flow), -u if self.mirrored else u, -v if self.upside_down else v)


@dataclass(frozen=True)
class CachedOptions:
    """How items are made from cached clips."""

    size: tuple[int, int] = (96, 192)
    """(height, width) of the item, pixels."""
    least_crop: float = LEAST_CROP
    """Least side of a random crop, as a share of the image's; the largest is 1."""
    flips: bool = True
    """Whether to flip left-right and upside down, each with probability 1/2."""
    second_gap: bool = False
    """Whether an item has a second flow, with the same frame and view but to another neighbour."""
    flow_input: FlowInput = 'residual'
    """The generator's flow input, which decides the channels of flow: 2, 7 with evidence, 14 for both sides."""


class CachedPairs(Dataset[tuple[Tensor, ...]]):
    """Random pairs from cached clips; raises UserError if no frame has a certain target.

    A clip is drawn in proportion to its pairs, then a frame and a gap uniformly. After image and flow, items have
    (clip, frame, gap), int64 (3,), and with ``second_gap`` the flow of another gap. With ``targets``, one per clip,
    they have target and certainty (1, H, W) in [0, 1] instead; frames without a certain pixel are never drawn.
    """

    def __init__(
        self,
        clips: Sequence[CachedClip],
        seed: int,
        options: CachedOptions,
        targets: Sequence[Targets] | None = None,
    ) -> None:
        self._clips = tuple(clips)
        self._seed = seed
        self._targets = targets
        self._options = options
        # Frames without a neighbour are never drawn.
        self._frames = [
            np.array([i for i in range(clip.frame_count) if clip.neighbours(i) and self._is_certain(k, i)])
            for k, clip in enumerate(self._clips)
        ]
        pairs = [
            sum(len(clip.neighbours(int(i))) for i in frames)
            for clip, frames in zip(self._clips, self._frames, strict=True)
        ]
        if not any(pairs):
            raise UserError('the teacher found no moving object; give other footage, or another teacher.detector')
        self._shares = np.array(pairs) / sum(pairs)

    def _is_certain(self, number: int, frame: int) -> bool:
        return self._targets is None or bool(self._targets[number](frame)[1].any())

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        options = self._options
        rng = np.random.default_rng((self._seed, index))
        number = int(rng.choice(len(self._clips), p=self._shares))
        clip = self._clips[number]
        frame = int(rng.choice(self._frames[number]))
        gaps = rng.permutation(clip.neighbours(frame)).tolist()
        chosen = gaps[:1] if not options.second_gap else (gaps * 2)[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(clip.image(frame))).permute(2, 0, 1)[None].float()
        flows = clip_flow(clip, frame, chosen, options.flow_input)
        crop = random_crop(rng, (pixels.shape[2], pixels.shape[3]), options.least_crop)
        view = View(crop, options.size, *(bool(draw < 0.5) and options.flips for draw in rng.random(2)))
        image, flows = centred(view.maps(pixels)[0]), view.flow(flows)
        if self._targets is not None:
            # Rounding in the resize may leave [0, 1].
            stored = torch.from_numpy(self._targets[number](frame).astype(np.float32))[None]
            taught = view.maps(stored / 255.0)[0].clamp(0, 1)
            return image, flows[0], taught[:1], taught[1:]
        return (image, flows[0], torch.tensor((number, frame, chosen[0])), *flows[1:])


class MixedPairs(Dataset[tuple[Tensor, ...]]):
    """Items with target and certainty of one data set, mixed with a share of another's, whose masks are exact."""

    def __init__(self, taught: Dataset[Any], exact: Dataset[Any], share: float, seed: int) -> None:
        self._taught, self._exact, self._share, self._seed = taught, exact, share, seed

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if np.random.default_rng((self._seed, index)).random() >= self._share:
            item: tuple[Tensor, ...] = self._taught[index]
            return item
        image, flow, mask = self._exact[index]
        return image, flow, mask, torch.ones_like(mask)


def clip_flow(clip: CachedClip, frame: int, gaps: Sequence[int], flow_input: FlowInput) -> Tensor:
    """Return the flows of a frame to its n neighbours at ``gaps``, as ``prepare_flow`` takes them.

    They are (n, 2, h, w), with evidence (n, 7, h, w), or for both sides (n, 14, h, w): the channels of the opposite
    neighbour follow, or, if the clip has none, the same flow reversed.
    """

    def side(gap: int) -> Tensor:
        flow = clip.flow(frame, gap)
        if takes_evidence(flow_input):
            flow = with_evidence(clip.image(frame), flow, clip.flow(frame + gap, -gap))
        return torch.from_numpy(flow).float()

    flows = torch.stack([side(gap) for gap in gaps])
    if not sees_both_sides(flow_input):
        return flows
    paired = clip.neighbours(frame)
    others = [side(-gap) if -gap in paired else reverse_side(flow) for flow, gap in zip(flows, gaps, strict=True)]
    return torch.cat((flows, torch.stack(others)), 1)
