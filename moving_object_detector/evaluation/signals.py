"""Signals of quality that need no annotation: whether masks keep to what they were on, frame after frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.evaluation.method import Finding
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.evaluation.results import Column

if TYPE_CHECKING:
    from moving_object_detector.evaluation.information import Information

HALF: Final = 0.5
"""Of a pixel: what must come to rest on a place to count."""


def at_size(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W), non-zero is True, to size (height, width): True where it covers half a pixel or more."""
    share = (mask > 0).astype(np.float32)
    if share.shape != size:
        shrinks = size[0] < share.shape[0] and size[1] < share.shape[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        share = np.asarray(cv2.resize(share, (size[1], size[0]), interpolation=way), np.float32)
    return np.asarray(share >= HALF, np.bool_)


def carry(mask: NDArray[np.bool_], flow: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Push a mask along the flow; each pixel spreads over the four places that it comes to lie between.

    Where parts of the image meet, the mask is taken to be in front, as what moves mostly is.

    Args:
        mask: (H, W).
        flow: (H, W, 2), to the next frame, pixels.

    Returns:
        (H, W), where the mask comes to lie, and (H, W), where anything does: elsewhere new things come into view,
        of which this frame says nothing.

    """
    height, width = mask.shape
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = xs + flow[..., 0], ys + flow[..., 1]
    # Flow that is not finite fails both comparisons.
    stays = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y, pushed = x[stays], y[stays], mask[stays]
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    places, weights = [], []
    # A border of one pixel takes what comes to lie half outside.
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        places.append((top + down + 1) * (width + 2) + left + right + 1)
        weights.append((1 - np.abs(x - left - right)) * (1 - np.abs(y - top - down)))
    place, weight = np.concatenate(places), np.concatenate(weights)
    count = (height + 2) * (width + 2)

    def reached(weight: NDArray[np.float32]) -> NDArray[np.bool_]:
        total = np.bincount(place, weight, count).reshape(height + 2, width + 2)
        return np.asarray(total[1:-1, 1:-1] >= HALF, np.bool_)

    return reached(weight * np.tile(pushed, 4)), reached(weight)


class Signals:
    """Columns of signals for a clip, from the findings of one variant; of the findings only the last is kept.

    - ``consistency``: Jaccard index of the mask carried along the flow to the next frame and the mask there, over what
      both frames show. None where a frame has no finding, the flow is not known or both masks are empty.
    - ``flip``: 1 where the complement of the carried mask agrees with the next mask on more pixels than the carried
      mask, so that inside and outside have changed places; 0 elsewhere. None as above, and where one mask is empty.
    - ``information``: see :class:`~moving_object_detector.evaluation.information.Information`; only with one.

    Each value stands at the earlier of the two frames.
    """

    def __init__(self, information: Information | None = None) -> None:
        self._information = information
        self.start()

    def start(self) -> None:
        """Begin a clip."""
        self._last: Finding | None = None
        self._values: dict[str, dict[int, float]] = {'consistency': {}, 'flip': {}}
        if self._information is not None:
            self._values['information'] = {}

    def add(self, finding: Finding) -> None:
        """Take the finding of the next frame; frames may be left out."""
        last, self._last = self._last, finding
        if last is not None and finding.index == last.index + 1:
            self._compare(last, finding)
        if self._information is not None:
            reduction = self._information.of(finding)
            if reduction is not None:
                self._values['information'][finding.index] = reduction

    def _compare(self, last: Finding, finding: Finding) -> None:
        if last.flow is None or not (last.mask.any() or finding.mask.any()):
            return
        size = (last.flow.shape[0], last.flow.shape[1])
        mask, following = at_size(last.mask, size), at_size(finding.mask, size)
        carried, known = carry(mask, last.flow)
        if not known.any():
            return
        carried, following = carried[known], following[known]
        self._values['consistency'][last.index] = jaccard(carried, following)
        if mask.any() and following.any():
            self._values['flip'][last.index] = float((carried == following).mean() < HALF)

    def columns(self, frame_count: int) -> dict[str, Column]:
        """Return the signals of the clip so far, each with one entry for each frame."""
        return {name: tuple(map(values.get, range(frame_count))) for name, values in self._values.items()}
