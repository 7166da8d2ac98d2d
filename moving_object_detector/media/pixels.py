"""What holds for every image, wherever it comes from: its least and largest size, and how 16 bits become 8."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError

SMALLEST_SIDE: Final = 16
"""Pixels: images with a shorter side are refused."""
LARGEST_SIDE: Final = 4096
"""Pixels: images with a longer side are refused before they are decoded, unless another limit is given."""

Levels: TypeAlias = tuple[int, int]
"""Black and white of 16-bit samples."""
AUTOMATIC: Final[Levels] = (0, 0)
"""By the images."""

_MARGIN: Final = 1 / 8
"""Of the first image's range, left free at either end."""
_LEAST_RANGE: Final = 256
"""Levels: of an image that is all one grey, noise is not to become a picture."""
_OUTSIDE: Final = 0.01
"""Share of an image beyond the range from which the range grows."""


class SizeError(ImageError):
    """An image is too large or too small."""


def check_size(
    height: int, width: int, largest: int = LARGEST_SIDE, smallest: int = SMALLEST_SIDE, name: str = ''
) -> None:
    """Refuse an image by its size, before anything is done with its pixels; raises SizeError."""
    if min(height, width) < smallest:
        raise SizeError(
            f'{name}size {width}x{height} is too small; both sides must be at least {smallest} pixels, '
            'check the camera driver'
        )
    if max(height, width) > largest:
        raise SizeError(
            f'{name}size {width}x{height} is too large; the longest side allowed is {largest}: scale the images down '
            'before they are published or stored, or raise the parameter input.max_side of the node'
        )


class SampleScale:
    """How samples of 16 bits become 8: one linear scale for a whole stream, since flow compares brightness.

    The first image's range, without the extreme thousandths at either end and with an eighth of it as margin, becomes
    0 to 255. Where a hundredth of a later image is outside, the range grows to hold it, and never shrinks.

    Args:
        black: Level shown as 0.
        white: Level shown as 255; above ``black`` it fixes the scale, otherwise the images say it.

    """

    def __init__(self, black: int = 0, white: int = 0) -> None:
        self.range: tuple[float, float] | None = None
        """Levels that are shown as 0 and 255; None before the first image."""
        self._fixed = white > black
        if self._fixed:
            self._set(black, white)

    def __call__(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """Return 16-bit samples (H, W) or (H, W, C) as 8 bits; 8-bit ones as they are."""
        if samples.dtype == np.uint8:
            return np.asarray(samples, np.uint8)
        if not self._fixed:
            self._look(samples)
        return np.asarray(self._table[samples], np.uint8)

    def _set(self, black: float, white: float) -> None:
        self.range = black, white
        scaled = (np.arange(65536) - black) * 255 / (white - black)
        self._table = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

    def _look(self, samples: NDArray[Any]) -> None:
        # Every fourth row and column tells the range well enough.
        some = samples[::4, ::4] if min(samples.shape[:2]) >= 64 else samples
        if self.range is not None:
            black, white = self.range
            if np.mean((some < black) | (some > white)) < _OUTSIDE:
                return
        low, high = (float(level) for level in np.percentile(some, (0.1, 99.9)))
        if self.range is not None:
            low, high = min(low, self.range[0]), max(high, self.range[1])
        margin = max(_MARGIN * (high - low), (_LEAST_RANGE - (high - low)) / 2)
        self._set(max(low - margin, 0.0), min(high + margin, 65535.0))


def resize_image(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resize an image (H, W) or (H, W, C) to (height, width): by area where both sides shrink, else linearly."""
    import cv2  # the sizes above are wanted where it is not loaded

    height, width = size
    if image.shape[:2] == size:
        return image
    shrinks = height < image.shape[0] and width < image.shape[1]
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
