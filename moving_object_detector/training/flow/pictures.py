"""A picture of flow beside the exact one."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.media.pictures import flow_colours

ROWS: Final = 4


def _channels_last(tensor: Tensor) -> NDArray[np.generic]:
    return np.ascontiguousarray(tensor.cpu().numpy().transpose(1, 2, 0))


def flow_picture(first: Tensor, second: Tensor, flow: Tensor, truth: Tensor) -> NDArray[np.uint8]:
    """Draw a row for each of the first pairs: both frames, exact flow, flow, error.

    Colours are full at the 99th percentile of the exact speed, and so is the white of the error.

    Args:
        first: (B, 3, H, W) uint8 RGB.
        second: The same.
        flow: (B, 2, H, W), pixels.
        truth: (B, 2, H, W), pixels.

    Returns:
        (rows x H, 5 x W, 3) RGB.

    """
    rows = []
    for index in range(min(ROWS, first.shape[0])):
        full = max(float(truth[index].norm(dim=0).quantile(0.99)), 1e-6)
        error = ((flow[index] - truth[index]).norm(dim=0) / full).clamp(0, 1).cpu().numpy()
        rows.append(
            np.hstack(
                (
                    _channels_last(first[index]),
                    _channels_last(second[index]),
                    *(flow_colours(_channels_last(field[index]).astype(np.float32), full) for field in (truth, flow)),
                    np.repeat(np.rint(255 * error).astype(np.uint8)[:, :, None], 3, 2),
                )
            )
        )
    return np.asarray(np.vstack(rows), np.uint8)
