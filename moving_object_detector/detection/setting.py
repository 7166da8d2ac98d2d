"""How much is computed: which neighbours vote, at which size, which frames get a mask, which images are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from moving_object_detector.detection.config import WindowConfig


@dataclass(frozen=True)
class Setting:
    """A window, the generator's size, and how many images share the cost of a mask."""

    window: WindowConfig
    every: int = 1
    """Every how-manieth frame gets a mask; those between are neighbours that vote."""
    take: int = 1
    """Every how-manieth image is made a frame; the others never reach the detector."""
    half: bool = False
    """Whether the generator's input has half the configured height and width."""

    @property
    def delay(self) -> int:
        """Frames that the refined result waits for."""
        return self.window.future * self.window.stride

    @cached_property
    def batches(self) -> tuple[int, ...]:
        """How many pairs each of ``every`` consecutive frames brings, the one that gets a mask first."""
        forward = [k * self.window.stride for k in range(1, self.window.future + 1)]
        return tuple(
            (0 if after else self.window.past) + sum((after - offset) % self.every == 0 for offset in forward)
            for after in range(self.every)
        )

    def __str__(self) -> str:
        """Return for example ``window -2..+2, stride 1, every frame`` or ``..., every frame, half size``."""
        frames = 'every frame' if self.every == 1 else f'one frame in {self.every}'
        images = '' if self.take == 1 else f', one image in {self.take}'
        size = ', half size' if self.half else ''
        return f'window -{self.window.past}..+{self.window.future}, stride {self.window.stride}, {frames}{images}{size}'


def half_of(size: tuple[int, int]) -> tuple[int, int]:
    """Return half a generator's (height, width), in the multiples of 4 that it takes."""
    height, width = (4 * round(side / 8) for side in size)
    return height, width
