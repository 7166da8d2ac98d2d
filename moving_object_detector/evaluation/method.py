"""What is scored: something that takes the frames of a clip one by one and gives masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.datasets.frames import Frame, FrameSource


@dataclass(frozen=True)
class Finding:
    """What a method says of one frame."""

    index: int
    """Of the frame in its clip, from 0."""
    variant: str
    image: NDArray[np.uint8]
    """(H, W, 3) RGB, as it was given."""
    mask: NDArray[np.uint8]
    """(H, W), 255 where something moves on its own."""
    flow: NDArray[np.float32] | None = None
    """(h, w, 2), flow to the next frame in pixels of its own size; of the variant that counts, where it is known."""
    latency: float | None = None
    """Milliseconds of computing since the frame came, the wait for later frames not counted."""


class Method(Protocol):
    """The detector, or a baseline."""

    name: str
    variants: tuple[str, ...]
    """Kinds of masks that it gives in one pass; the one that counts is the last."""
    identity: Mapping[str, Any]
    """What decides its masks: options, hash of the weights."""
    details: Mapping[str, Any]
    """What else is worth knowing: engine, flow."""

    def start(self, name: str, source: FrameSource) -> Sequence[str]:
        """Begin a clip; nothing of the last one is remembered.

        Args:
            name: Of the clip.
            source: Its frames, which come by :meth:`step` one by one.

        Returns:
            Sentences about what is wrong.

        Raises:
            UserError: The clip cannot be evaluated.

        """

    def step(self, frame: Frame, index: int) -> Iterable[Finding]:
        """Take the next frame; return what is known now, of this frame or earlier ones."""

    def finish(self) -> Iterable[Finding]:
        """Return what was waiting for frames that do not come."""
