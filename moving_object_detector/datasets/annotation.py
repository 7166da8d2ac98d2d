"""What a data set says about a frame: which pixels move. Read for scoring alone, never for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.errors import UserError


class Annotation(Protocol):
    """The annotation of one frame, on disk."""

    def read(self) -> NDArray[np.bool_]:
        """Read it, bool (H, W), True on any object.

        Raises:
            UserError: A file is missing, is not an image, or does not fit the others.

        """


def read_label(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read an annotation file as it is stored: (H, W), or (H, W, C) in OpenCV's order BGR.

    Raises:
        UserError: The file is missing or not an image.

    """
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    label = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if label is None:
        raise UserError(f'{path} cannot be read as an image; is it damaged?')
    return label  # type: ignore[return-value]


@dataclass(frozen=True)
class MaskFiles:
    """The union of masks in which any value but zero is object."""

    paths: tuple[Path, ...]
    """One or more, of one size."""

    def read(self) -> NDArray[np.bool_]:
        """Read the union; see :class:`Annotation`."""
        union: NDArray[np.bool_] | None = None
        for path in self.paths:
            label = read_label(path)
            mask = (label if label.ndim == 2 else label[:, :, :3].max(2)) > 0
            if union is not None and union.shape != mask.shape:
                raise UserError(f'{path} is {mask.shape[1]}x{mask.shape[0]}, but {self.paths[0]} is not')
            union = mask if union is None else union | mask
        if union is None:
            raise ValueError('an annotation of no files')
        return union


@dataclass(frozen=True)
class RegionFile:
    """Regions told apart by codes, all but one of which are objects.

    The code of a pixel is its grey value, or R * 65536 + G * 256 + B in a colour image.
    """

    path: Path
    background: int
    """The code that is no object."""

    def read(self) -> NDArray[np.bool_]:
        """Read the objects' union; see :class:`Annotation`."""
        label = read_label(self.path).astype(np.int64)
        codes = label if label.ndim == 2 else label[:, :, 2] * 65536 + label[:, :, 1] * 256 + label[:, :, 0]
        return np.asarray(codes != self.background, np.bool_)
