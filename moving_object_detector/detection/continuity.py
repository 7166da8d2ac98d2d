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
        self._frames = 0
        self._anew = 0

    def forget(self) -> None:
        """Take the next frame as the first of a stream."""
        self._last = None

    def follow(self, stamp: int, shape: tuple[int, ...]) -> Step:
        """Say what the frame with this stamp (nanoseconds) and shape is, and remember it."""
        step = self._compare(stamp, shape)
        self._frames += 1
        self._anew += step.starts_anew
        return step

    @property
    def trouble(self) -> str:
        """Where most frames so far started the stream anew, a sentence that says so; else empty."""
        if 2 * self._anew <= self._frames:
            return ''
        return (
            f'{self._anew} of {self._frames} frames start the stream anew, as their size changes or their stamps go '
            f'back or leave a gap of more than {self._max_gap / 1e9:g} s; is the frame rate or the clock of the '
            'recording right?'
        )

    def _compare(self, stamp: int, shape: tuple[int, ...]) -> Step:
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
