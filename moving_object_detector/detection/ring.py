"""The frames that can still give or take a vote."""

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
"""Thousandths of the image width a frame: what is slower is seen better between frames that are farther apart."""
HOLD: Final = 1.25
CAMERA: Final = 4.0
KEPT: Final = 0.3
"""Weight of a new pair in the moving average."""


class Side(NamedTuple):
    """What a generator of both sides sees of one neighbour."""

    seen: Tensor
    """(8, h, w), see ``generator_flow``."""
    moves: Tensor
    """Scalar, whether anything moves on its own in it."""


@dataclass
class WindowFrame:
    """One frame: what was computed from it once, and its masks."""

    index: int
    stamp: int
    """Nanoseconds."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB as it came."""
    network_image: Tensor
    """(3, h, w), RGB in [-0.5, 0.5] at the generator's size."""
    grey: NDArray[np.uint8]
    """(h, w), its grey levels."""
    features: Any
    """What the flow backend keeps of the frame."""
    inferred: bool
    """Whether masks are wanted of it; if not, it is only a neighbour of others."""
    tag: object = None
    """The caller's own, given back with the results."""
    votes: int = 0
    """Neighbours that voted."""
    masks: dict[int, Tensor] = field(default_factory=dict)
    """(h, w), by frames to the neighbour; of a generator that sees both sides, by frames to both."""
    sides: dict[int, Side | None] = field(default_factory=dict)
    """What such a generator sees of each neighbour, by frames to it; None where nothing moves."""
    finished: bool = False
    """Whether its refined result is out, so that nobody votes on it any more."""
    motions: list[Tensor] = field(default_factory=list)
    """How much moves on its own in each vote's flow, scalars, thousandths of the image width."""
    flows: dict[int, Tensor] = field(default_factory=dict)
    """(2, h, w), flow to the nearest earlier (-1) and later (1) neighbour that voted."""
    back: NDArray[np.float32] | None = None
    """(2, h, w), flow from the nearest earlier neighbour that voted to this frame; None: not known."""
    gaps: dict[int, int] = field(default_factory=dict)
    """Frames to these neighbours."""
    travels: dict[int, PairTravel] = field(default_factory=dict)
    """How the camera travelled to these neighbours."""

    @cached_property
    def texture(self) -> Texture:
        """Where flow is known, at the generator's size."""
        return Texture.of(self.grey)

    @property
    def aspect(self) -> float:
        """Width of the image to its height."""
        return self.image.shape[1] / self.image.shape[0]

    def vote(self, key: int, mask: Tensor | None, motion: Tensor) -> None:
        """Count one neighbour's vote, a mask (h, w), in place of one with the same key; None: it is made later."""
        if mask is not None:
            self.masks[key] = mask
        self.votes += 1
        self.motions.append(motion)

    @property
    def average(self) -> Tensor:
        """P_t of equation 14, the mean of the masks so far, (h, w)."""
        masks = iter(self.masks.values())
        total = next(masks)
        for mask in masks:
            total = total + mask
        return total / len(self.masks)


class Pace:
    """Whether all that moves is slow, by the motion in the pairs that the frames so far brought.

    It is slow under :data:`SLOW` until it is faster than that and a quarter. A camera's own motion counts for a
    quarter, so that the frames of a fast one still overlap.
    """

    def __init__(self) -> None:
        self.slow = False
        """Whether it is."""
        self._speed: float | None = None

    def take(self, motions: Tensor, lengths: Tensor, gaps: Tensor) -> None:
        """Take note of a frame's pairs; the fastest counts, since an estimator that loses something fast finds less.

        Flow that is not finite says nothing.

        Args:
            motions: (B,), what moves on its own in each, thousandths of the image width.
            lengths: (B,), mean length of each flow, in the same unit.
            gaps: (B,), frames between the two of each.

        """
        speed = float((motions.maximum(lengths / CAMERA) / gaps).max())
        if not math.isfinite(speed):
            return
        self._speed = speed if self._speed is None else self._speed + KEPT * (speed - self._speed)
        self.slow = self._speed < SLOW * (HOLD if self.slow else 1.0)


Pair = tuple[WindowFrame, WindowFrame]
"""A frame that is voted on, and its neighbour."""


class Ring:
    """The last ``reach + 1`` frames of the largest window there will be."""

    def __init__(self, largest: WindowConfig) -> None:
        self.reach = largest.reach
        """How many frames back the oldest one may be."""
        self._frames: deque[WindowFrame] = deque()

    def __iter__(self) -> Iterator[WindowFrame]:
        return iter(self._frames)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()

    def push(self, frame: WindowFrame) -> None:
        """Add the newest frame and let go of those that it and later ones cannot reach."""
        self._frames.append(frame)
        while self._frames[0].index < frame.index - self.reach:
            self._frames.popleft()

    def at(self, index: int) -> WindowFrame | None:
        """Return the frame with this index, or None when it is no longer or not yet there."""
        if not self._frames:
            return None
        position = index - self._frames[0].index
        return self._frames[position] if 0 <= position < len(self._frames) else None

    def pairs(self, newest: WindowFrame, window: WindowConfig) -> list[Pair]:
        """Return the pairs that the newest frame brings, each seen only once.

        Another window than before may be given at every frame.
        """
        backward = (self.at(newest.index - k * window.stride) for k in range(1, window.past + 1))
        forward = (self.at(newest.index - k * window.stride) for k in range(1, window.future + 1))
        votes_now = [(newest, other) for other in backward if other]
        return votes_now + [(other, newest) for other in forward if other and other.inferred and not other.finished]

    def finish(self, last: int) -> list[WindowFrame]:
        """Close the votes on all frames up to index ``last``; return those that were still open, oldest first."""
        closed = [frame for frame in self._frames if frame.index <= last and not frame.finished]
        for frame in closed:
            frame.finished = True
        return closed
