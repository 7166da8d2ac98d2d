"""Ring buffer of the frames that can still vote or be voted on, and the rule for the stride of the window."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.rigid import PairTravel
from moving_object_detector.flow.rigid_scene import Texture

SLOW: Final = 10.0
"""Speed in thousandths of the image width per frame, below which frames farther apart show motion better."""
HOLD: Final = 1.25
CAMERA: Final = 4.0
KEPT: Final = 0.3
"""Weight of a new pair in the moving average."""


class Side(NamedTuple):
    """One neighbour's part of the input of a two-sided generator."""

    seen: Tensor
    """(8, h, w), from ``generator_flow``."""
    moves: Tensor
    """Scalar bool, whether anything moves on its own."""


@dataclass
class WindowFrame:
    """A frame with everything computed from it once, and its votes."""

    index: int
    stamp: int
    """Nanoseconds."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, as received."""
    network_image: Tensor
    """(3, h, w), RGB in [-0.5, 0.5] at the generator's size."""
    grey: NDArray[np.uint8]
    """(h, w), grey levels at the same size."""
    features: Any
    """The flow backend's features of the frame."""
    inferred: bool
    """Whether the frame gets masks; if not, it is only a neighbour of others."""
    tag: object = None
    """The caller's own object, returned with the results."""
    votes: int = 0
    """Number of votes so far."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """(h, w) each, by signed distance to the neighbour in frames; from a two-sided generator, by distance."""
    sides: dict[int, Side | None] = field(default_factory=dict)
    """Inputs of a two-sided generator, by signed distance to the neighbour; None if nothing moves."""
    finished: bool = False
    """Whether the refined result is out, which ends the voting."""
    motions: list[Tensor] = field(default_factory=list)
    """Coherent motion of each vote, scalars, thousandths of the image width."""
    flows: dict[int, Tensor] = field(default_factory=dict)
    """Flow (2, h, w), pixels, to the nearest earlier (-1) and later (1) neighbour that voted."""
    back: NDArray[np.float32] | None = None
    """Flow (2, h, w), pixels, from the nearest earlier neighbour that voted to this frame; None: not known."""
    gaps: dict[int, int] = field(default_factory=dict)
    """Distance to these neighbours, frames."""
    travels: dict[int, PairTravel] = field(default_factory=dict)
    """Camera motion to these neighbours."""

    @cached_property
    def texture(self) -> Texture:
        """Texture of the image at the generator's size, which tells where flow is reliable."""
        return Texture.of(self.grey)

    @property
    def aspect(self) -> float:
        """Width of the image divided by its height."""
        return self.image.shape[1] / self.image.shape[0]

    def vote(self, key: int, mask: Tensor | None, motion: Tensor) -> None:
        """Add a vote, a mask (h, w) that replaces one with the same key; None: the mask is computed later."""
        if mask is not None:
            self.masks[key] = mask
        self.votes += 1
        self.motions.append(motion)

    @property
    def average(self) -> Tensor:
        """P_t of equation 14: the mean of the masks so far, (h, w)."""
        masks = iter(self.masks.values())
        total = next(masks)
        for mask in masks:
            total = total + mask
        return total / len(self.masks)


class Pace:
    """Decides from a moving average of the speed whether all motion is slow.

    Slow begins below :data:`SLOW` and ends 25 % above it. The camera's own motion counts a quarter, so that the frames
    of a fast camera still overlap.
    """

    def __init__(self) -> None:
        self.slow = False
        """Whether all motion is slow at present."""
        self._speed: float | None = None

    def take(self, motions: Tensor, lengths: Tensor, gaps: Tensor) -> None:
        """Add the pairs of a frame; the fastest counts, since an estimator that loses a fast object finds less motion.

        A frame with flow that is not finite is ignored.

        Args:
            motions: (B,), coherent motion of each pair, thousandths of the image width.
            lengths: (B,), mean length of each flow, in the same unit.
            gaps: (B,), distance between the two frames of each pair, frames.

        """
        speed = float((motions.maximum(lengths / CAMERA) / gaps).max())
        if not math.isfinite(speed):
            return
        self._speed = speed if self._speed is None else self._speed + KEPT * (speed - self._speed)
        self.slow = self._speed < SLOW * (HOLD if self.slow else 1.0)


Pair = tuple[WindowFrame, WindowFrame]
"""A frame that is voted on, and its neighbour."""


class Ring:
    """The last ``reach + 1`` frames, enough for the largest window."""

    def __init__(self, largest: WindowConfig) -> None:
        self.reach = largest.reach
        """Greatest distance of a kept frame from the newest, frames."""
        self._frames: deque[WindowFrame] = deque()

    def __iter__(self) -> Iterator[WindowFrame]:
        return iter(self._frames)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def push(self, frame: WindowFrame) -> None:
        """Add the newest frame and drop those out of reach."""
        self._frames.append(frame)
        while self._frames[0].index < frame.index - self.reach:
            self._frames.popleft()

    def at(self, index: int) -> WindowFrame | None:
        """Return the frame with this index, or None if it is dropped or not yet added."""
        if not self._frames:
            return None
        position = index - self._frames[0].index
        return self._frames[position] if 0 <= position < len(self._frames) else None

    def pairs(self, newest: WindowFrame, window: WindowConfig) -> list[Pair]:
        """Return the pairs added by the newest frame, each exactly once; the window may differ from frame to frame."""
        backward = (self.at(newest.index - k * window.stride) for k in range(1, window.past + 1))
        forward = (self.at(newest.index - k * window.stride) for k in range(1, window.future + 1))
        votes_now = [(newest, other) for other in backward if other]
        return votes_now + [(other, newest) for other in forward if other and other.inferred and not other.finished]

    def finish(self, last: int) -> list[WindowFrame]:
        """End the voting on all frames up to index ``last``; return those that were still open, oldest first."""
        closed = [frame for frame in self._frames if frame.index <= last and not frame.finished]
        for frame in closed:
            frame.finished = True
        return closed
