"""Whether a frame continues the stream before it."""

from __future__ import annotations

from enum import Enum


class Step(Enum):
    """What a frame is to the one before it."""

    CONTINUES = 'continues the stream'
    REPEATS = 'has the stamp of the frame before it'
    GOES_BACK = 'is older than the frame before it'
    AFTER_GAP = 'comes after a gap'
    NEW_SIZE = 'has another size'

    @property
    def starts_anew(self) -> bool:
        """Whether the frames before it must be forgotten."""
        return self in (Step.GOES_BACK, Step.AFTER_GAP, Step.NEW_SIZE)


class Continuity:
    """Compares each frame with the last one; ``max_gap`` is in nanoseconds."""

    def __init__(self, max_gap: int) -> None:
        self._max_gap = max_gap
        self._last: tuple[int, tuple[int, ...]] | None = None

    def forget(self) -> None:
        """Take the next frame as the first of a stream."""
        self._last = None

    def follow(self, stamp: int, shape: tuple[int, ...]) -> Step:
        """Say what the frame with this stamp (nanoseconds) and shape is, and remember it."""
        last, self._last = self._last, (stamp, shape)
        if last is None:
            return Step.CONTINUES
        if shape != last[1]:
            return Step.NEW_SIZE
        if stamp == last[0]:
            return Step.REPEATS
        if stamp < last[0]:
            return Step.GOES_BACK
        return Step.AFTER_GAP if stamp - last[0] > self._max_gap else Step.CONTINUES
