"""Pictures of what a training does, for TensorBoard and the run's folder: a row for each of the first samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.media.pictures import flow_colours

ROWS: Final = 4
OUTLINE_COLOUR: Final = (255, 40, 40)

Picture = NDArray[np.uint8]


def _image(image: Tensor) -> Picture:
    """Return an image (3, H, W) in [-0.5, 0.5], or of uint8, as (H, W, 3)."""
    pixels = image.cpu().numpy().transpose(1, 2, 0)
    if pixels.dtype != np.uint8:
        pixels = ((pixels.astype(np.float32) + 0.5) * 255.0).clip(0, 255).round()
    return np.ascontiguousarray(pixels.astype(np.uint8))


def _grey(values: Tensor) -> Picture:
    """Return values (H, W) in [0, 1] as (H, W, 3)."""
    levels = (values.float().cpu().numpy().clip(0, 1) * 255).round().astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, 2)


def _flow(flow: Tensor, largest: float) -> Picture:
    return flow_colours(np.ascontiguousarray(flow.float().cpu().numpy().transpose(1, 2, 0)), largest)


def _largest(flow: Tensor) -> float:
    """Return the speed at which colours are full."""
    return float(flow.norm(dim=0).quantile(0.99))


def _stacked(rows: Sequence[tuple[Picture, ...]]) -> Picture:
    return np.asarray(np.vstack([np.hstack(row) for row in rows]), np.uint8)


def game_picture(image: Tensor, flow: Tensor, mask: Tensor, guessed: Tensor) -> Picture:
    """Draw image (B, 3, H, W) in [-0.5, 0.5] with the mask's outline, flow (B, 2, H, W), mask, guessed flow, error.

    The mask is (B, 1, H, W) in [0, 1]; in the guessed flow the inpainter has guessed what is under it.
    """
    rows = []
    for number in range(min(ROWS, image.shape[0])):
        picture = _image(image[number])
        found = (mask[number, 0] > 0.5).cpu().numpy().astype(np.uint8)
        outlines = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(picture, outlines, -1, OUTLINE_COLOUR, 1)
        largest = _largest(flow[number])
        error = (flow[number] - guessed[number]).norm(dim=0) / max(largest, 1e-6)
        shown = (_flow(flow[number], largest), _grey(mask[number, 0]), _flow(guessed[number], largest), _grey(error))
        rows.append((picture, *shown))
    return _stacked(rows)


def mask_picture(image: Tensor, flow: Tensor, mask: Tensor, truth: Tensor) -> Picture:
    """Draw image, the generator's flow input, its mask, the exact mask; shapes as in :func:`game_picture`."""
    return _stacked(
        [
            (_image(image[k]), _flow(flow[k], _largest(flow[k])), _grey(mask[k, 0]), _grey(truth[k, 0]))
            for k in range(min(ROWS, image.shape[0]))
        ]
    )


def flow_picture(first: Tensor, second: Tensor, flow: Tensor, truth: Tensor) -> Picture:
    """Draw both frames (B, 3, H, W) uint8, exact flow (B, 2, H, W), flow, error; white is the 99th percentile."""
    rows = []
    for k in range(min(ROWS, first.shape[0])):
        largest = max(_largest(truth[k]), 1e-6)
        error = (flow[k] - truth[k]).norm(dim=0) / largest
        frames = _image(first[k]), _image(second[k])
        rows.append((*frames, _flow(truth[k], largest), _flow(flow[k], largest), _grey(error)))
    return _stacked(rows)
