"""Pictures of what the players do, for TensorBoard and the run's folder."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.media.pictures import flow_colours

ROWS: Final = 4
OUTLINE: Final = (255, 40, 40)


def _image(image: Tensor) -> NDArray[np.uint8]:
    """Return an image (3, H, W) in [-0.5, 0.5] as (H, W, 3)."""
    pixels = ((image.float().cpu().numpy().transpose(1, 2, 0) + 0.5) * 255.0).clip(0, 255)
    return np.ascontiguousarray(pixels.round().astype(np.uint8))


def _grey(values: Tensor) -> NDArray[np.uint8]:
    """Return values (H, W) in [0, 1] as (H, W, 3)."""
    levels = (values.float().cpu().numpy().clip(0, 1) * 255).round().astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, 2)


def _flow(flow: Tensor, largest: float) -> NDArray[np.uint8]:
    return flow_colours(np.ascontiguousarray(flow.float().cpu().numpy().transpose(1, 2, 0)), largest)


def game_picture(image: Tensor, flow: Tensor, mask: Tensor, guessed: Tensor) -> NDArray[np.uint8]:
    """Draw a row for each of the first samples: image with the mask's outline, flow, mask, guessed flow, error.

    Args:
        image: (B, 3, H, W) in [-0.5, 0.5].
        flow: (B, 2, H, W).
        mask: (B, 1, H, W) in [0, 1].
        guessed: (B, 2, H, W), the flow with what is under the mask guessed by the inpainter.

    Returns:
        (rows x H, 5 x W, 3) RGB.

    """
    rows = []
    for number in range(min(ROWS, image.shape[0])):
        picture = _image(image[number])
        found = (mask[number, 0] > 0.5).cpu().numpy().astype(np.uint8)
        outlines = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(picture, outlines, -1, OUTLINE, 1)
        largest = float(flow[number].norm(dim=0).quantile(0.99))
        error = (flow[number] - guessed[number]).norm(dim=0) / max(largest, 1e-6)
        shown = (_flow(flow[number], largest), _grey(mask[number, 0]), _flow(guessed[number], largest), _grey(error))
        rows.append(np.hstack((picture, *shown)))
    return np.asarray(np.vstack(rows), np.uint8)


def mask_picture(image: Tensor, flow: Tensor, mask: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """Draw a row for each of the first samples: image, the generator's flow input, its mask, the exact mask.

    Args:
        image: (B, 3, H, W) in [-0.5, 0.5].
        flow: (B, 2, H, W).
        mask: (B, 1, H, W) in [0, 1].
        truth: (B, 1, H, W) in [0, 1].

    Returns:
        (rows x H, 4 x W, 3) RGB.

    """
    rows = []
    for number in range(min(ROWS, image.shape[0])):
        largest = float(flow[number].norm(dim=0).quantile(0.99))
        shown = (_flow(flow[number], largest), _grey(mask[number, 0]), _grey(truth[number, 0]))
        rows.append(np.hstack((_image(image[number]), *shown)))
    return np.asarray(np.vstack(rows), np.uint8)
