"""Pictures of what was evaluated: the mask and the truth on the frame, and the frames that are worth showing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.files import write_atomically
from moving_object_detector.detection.regions import draw_overlay
from moving_object_detector.evaluation.results import Picture
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.pictures import evenly_spaced
from moving_object_detector.media.pixels import resize_image

TRUTH: Final = (64, 196, 255)
"""Outline of the truth: a blue that the colour-blind, too, tell from the mask's red and white."""
_CASING: Final = (0, 24, 48)
"""Dark on both sides of the truth's outline, so that it is seen on a bright sky."""
WIDTH: Final = 640
"""Of the pictures that are kept, at most; pixels."""
SPREAD: Final = 8
"""Frames spread over a sequence that are shown."""
_CANDIDATES: Final = 4 * SPREAD
"""For these; the more, the more evenly they are spread."""
_QUALITY: Final = 82
"""Of their JPEG, per cent."""


def draw_judged(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Draw a mask on an image (H, W, 3) as the overlay has it, and the truth's outline; both are fitted to it."""
    picture = draw_overlay(image, _fit(mask, image))
    if truth is None:
        return picture
    contours, _ = cv2.findContours(_fit(truth.astype(np.uint8), image), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(image.shape[1] / 400))
    cv2.drawContours(picture, contours, -1, _CASING, 2 * thickness, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, TRUTH, thickness, cv2.LINE_AA)
    return picture


class PicturePicker:
    """Picks the frames of one sequence that are worth showing, while they pass; memory does not grow with their number.

    Frames that the protocol does not score are given without J, and are then neither the best nor the worst.
    """

    def __init__(self) -> None:
        self._extremes: dict[str, tuple[float, int, bytes]] = {}
        self._spread: list[tuple[int, bytes]] = []
        self._stride = 1
        self._count = 0

    def take(self, index: int, j: float | None, draw: Callable[[], NDArray[np.uint8]]) -> None:
        """Look at the next frame: its number, its J (None: not scored), and what draws it if it is kept."""
        kinds = []
        if j is not None:
            kinds = [
                kind
                for kind, sign in (('best', 1), ('worst', -1))
                if kind not in self._extremes or sign * j > sign * self._extremes[kind][0]
            ]
        spread = self._count % self._stride == 0
        self._count += 1
        if not (kinds or spread):
            return
        picture = _jpeg(draw())
        self._extremes |= {kind: (j, index, picture) for kind in kinds if j is not None}
        if spread:
            self._spread.append((index, picture))
            if len(self._spread) > _CANDIDATES:
                # Every second one is given up, so that those left are as evenly spread over twice the time.
                self._spread = self._spread[::2]
                self._stride *= 2

    def write(self, folder: Path, sequence: str) -> tuple[Picture, ...]:
        """Write the best, the worst and the spread frames to ``pictures/SEQUENCE/`` in the run's folder."""
        chosen = [(kind, kind, index, data) for kind, (_, index, data) in self._extremes.items()]
        if len(chosen) == 2 and chosen[0][2] == chosen[1][2]:
            chosen.pop()
        for number, place in enumerate(evenly_spaced(len(self._spread), SPREAD)):
            chosen.append(('spread', f'spread_{number:02d}', *self._spread[place]))
        pictures = []
        for kind, name, index, data in chosen:
            file = Path('pictures', sequence, f'{name}.jpg')
            write_atomically(folder / file, data)
            pictures.append(Picture(file.as_posix(), index, kind))
        return tuple(pictures)


def _fit(mask: NDArray[np.uint8], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if mask.shape == (height, width):
        return mask
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    height, width = picture.shape[:2]
    if width > WIDTH:
        picture = resize_image(picture, (max(1, round(height * WIDTH / width)), WIDTH))
    return encode_jpeg(picture, _QUALITY).tobytes()
