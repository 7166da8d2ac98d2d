"""The rule by which a frame continues its stream or starts a new one."""

from __future__ import annotations

from enum import Enum


class Step(Enum):
    """Relation of a frame to the one before it."""

    CONTINUES = 'continues the stream'
    REPEATS = 'has the stamp of the frame before it'
    GOES_BACK = 'is older than the frame before it'
    AFTER_GAP = 'comes after a gap'
    NEW_SIZE = 'has another size'

    @property
    def starts_anew(self) -> bool:
        """Whether the frame starts a new stream, so that all earlier frames must be forgotten."""
        return self in (Step.GOES_BACK, Step.AFTER_GAP, Step.NEW_SIZE)


class Continuity:
    """Compares each frame with the one before it; ``max_gap`` is in nanoseconds."""

    def __init__(self, max_gap: int) -> None:
        self._max_gap = max_gap
        self._last: tuple[int, tuple[int, ...]] | None = None
        self._frames = 0
        self._restarts = 0

    def forget(self) -> None:
        """Treat the next frame as the first of a stream."""
        self._last = None

    def follow(self, stamp: int, shape: tuple[int, ...]) -> Step:
        """Compare the next frame, with this stamp (nanoseconds) and shape, with the last one, and remember it."""
        step = self._compare(stamp, shape)
        self._frames += 1
        self._restarts += step.starts_anew
        return step

    @property
    def trouble(self) -> str:
        """A warning if more than half of the frames so far started a new stream; else empty."""
        if 2 * self._restarts <= self._frames:
            return ''
        return (
            f'{self._restarts} of {self._frames} frames start the stream anew, since their size changes or their '
            f'stamps go back or leave a gap of more than {self._max_gap / 1e9:g} s; check the frame rate and clock of '
            'the recording'
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
