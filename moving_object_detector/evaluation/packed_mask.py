"""Masks in memory: those of a whole bag take less than one of its images."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedMask:
    """A mask, one bit a pixel and compressed; an :class:`~moving_object_detector.datasets.annotation.Annotation`."""

    shape: tuple[int, int]
    """(height, width)."""
    data: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """Pack a mask (H, W)."""
        height, width = mask.shape
        return cls((height, width), zlib.compress(np.packbits(mask).tobytes(), 1))

    def read(self) -> NDArray[np.bool_]:
        """Unpack it, bool (H, W)."""
        height, width = self.shape
        bits = np.unpackbits(np.frombuffer(zlib.decompress(self.data), np.uint8), count=height * width)
        return bits.reshape(self.shape).astype(np.bool_)
