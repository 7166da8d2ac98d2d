"""Signals of quality that need no annotation: whether masks keep to what they were on, and what moves on its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.common.files import file_hash
from moving_object_detector.evaluation.methods import Prediction
from moving_object_detector.evaluation.metrics import jaccard
from moving_object_detector.evaluation.results import Column
from moving_object_detector.flow.base import UNIT_PIXELS, UNIT_SIZE, motion_units, network_image, resize_field
from moving_object_detector.flow.egomotion import fit_camera_motion
from moving_object_detector.media.frames import resize_image
from moving_object_detector.networks.weights import load_network

HALF: Final = 0.5
"""Of a pixel: what must come to rest on a place to count."""
SMALLEST_FLOW: Final = 0.001 * UNIT_SIZE[1] / UNIT_PIXELS
"""Flow that counts as none, motion units: a thousandth of the width, as for the detector (gate.min_motion)."""
LEAST_SIDE: Final = 0.001
"""Least share of the image inside and outside of a mask for its score to mean something."""


def at_size(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask (H, W), non-zero is True, to size (height, width): True where it covers half a pixel or more."""
    return np.asarray(resize_image((mask > 0).astype(np.float32), size) >= HALF, np.bool_)


def push_mask(mask: NDArray[np.bool_], flow: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Push a mask (H, W) along flow (H, W, 2), pixels; each pixel spreads over the four places it comes to lie between.

    Returns (H, W), where the mask comes to lie, and (H, W), where anything does: elsewhere new things come into view.
    Where parts of the image meet, the mask is taken to be in front, as what moves mostly is.
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


def information_reduction(flow: Tensor, mask: Tensor, guess: Tensor) -> float:
    """Return gamma, the share of a region's flow that is told from outside of it: a term of equation 7 of the paper.

    1 - sum |chi (u - phi)|^2 / sum |chi u|^2, not below 0, with SMALLEST_FLOW^2 added to |u|^2: near 0 for a
    region that moves on its own, near 1 for a part of what surrounds it. Takes u and phi (1, 2, H, W), motion units,
    and chi (1, 1, H, W), not all 0.
    """
    side = mask.square()
    error = side * (flow - guess).square().sum(1, keepdim=True)
    energy = side * (flow.square().sum(1, keepdim=True) + SMALLEST_FLOW**2)
    return max(1.0 - float(error.sum() / energy.sum()), 0.0)


class InpaintingScore:
    """The information reduction rate of masks, by an inpainter that the trainer has left; raises ModelError.

    An inpainter of the whole flow (``game.target=raw``) also tells what an object shares with a moving camera, so rates
    compare masks of one clip, not clips under cameras of different speed. Only frames whose number is a multiple of
    ``every`` are looked at; one takes about 30 ms of one core at 96x192.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self._network, metadata = load_network(path, 'inpainter')
        self._size = int(metadata['height']), int(metadata['width'])
        self._residual = metadata.get('game.target') == 'residual'
        self._every = every
        self.identity: Mapping[str, Any] = {'inpainter': file_hash(path), 'inpainter_every': every}
        """What decides the rates, but for masks and flow."""

    def of(self, prediction: Prediction) -> float | None:
        """Return the rate of a mask; None without flow, between its turns, or where it is nearly all or nothing."""
        if prediction.flow is None or prediction.index % self._every:
            return None
        inside = at_size(prediction.mask, self._size)
        if not LEAST_SIDE <= inside.mean() <= 1 - LEAST_SIDE:
            return None
        image = network_image(prediction.image, self._size)[None]
        flow = torch.from_numpy(np.nan_to_num(resize_field(prediction.flow, self._size))).permute(2, 0, 1)[None]
        flow = motion_units(flow - fit_camera_motion(flow) if self._residual else flow)
        mask = torch.from_numpy(inside)[None, None].float()
        with torch.inference_mode():
            guess = self._network(image, flow * (1.0 - mask), mask)
        return information_reduction(flow, mask, guess)


class Signals:
    """Columns of signals for a clip, from the predictions of one variant, of which only the last is kept.

    ``consistency`` is the Jaccard index of the mask carried along the flow to the next frame and the mask there, over
    what both show; ``flip`` is 1 where the complement of the carried mask agrees with the next mask on more pixels, so
    that inside and outside have changed places, else 0. Both stand at the earlier frame, and are None where a frame has
    no mask, the flow is not known or both masks are empty; ``flip`` also where one is. ``information``: see
    :class:`InpaintingScore`.
    """

    def __init__(self, inpainting: InpaintingScore | None = None) -> None:
        self._inpainting = inpainting
        self.start()

    def start(self) -> None:
        """Begin a clip."""
        self._last: Prediction | None = None
        self._values: dict[str, dict[int, float]] = {'consistency': {}, 'flip': {}}
        if self._inpainting is not None:
            self._values['information'] = {}

    def add(self, prediction: Prediction) -> None:
        """Take the prediction of the next frame; frames may be left out."""
        last, self._last = self._last, prediction
        if last is not None and prediction.index == last.index + 1:
            self._compare(last, prediction)
        rate = None if self._inpainting is None else self._inpainting.of(prediction)
        if rate is not None:
            self._values['information'][prediction.index] = rate

    def _compare(self, last: Prediction, prediction: Prediction) -> None:
        if last.flow is None or not (last.mask.any() or prediction.mask.any()):
            return
        size = (last.flow.shape[0], last.flow.shape[1])
        mask, following = at_size(last.mask, size), at_size(prediction.mask, size)
        carried, known = push_mask(mask, last.flow)
        if not known.any():
            return
        carried, following = carried[known], following[known]
        self._values['consistency'][last.index] = jaccard(carried, following)
        if mask.any() and following.any():
            self._values['flip'][last.index] = float((carried == following).mean() < HALF)

    def columns(self, frame_count: int) -> dict[str, Column]:
        """Return the signals of the clip so far, each with one entry for each frame."""
        return {name: tuple(map(values.get, range(frame_count))) for name, values in self._values.items()}
