"""Pictures of what a training does, for TensorBoard and the run's folder: a row for each of the first samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.media.pictures import flow_colours

ROWS: Final = 4
OUTLINE_COLOUR: Final = (255, 40, 40)

Picture = NDArray[np.uint8]


def draw_batch(batch: Mapping[str, Tensor]) -> Picture:
    """Draw a column for each tensor (B, C, H, W) of a batch, (H', W', 3) RGB.

    Of three channels is an image, uint8 or in [-0.5, 0.5], drawn with the outline of ``mask``; of two is flow, in
    colours that are full at the 99th percentile of the first flow's speed; of one is something in [0, 1]. Of two flows
    the last column is by how much they differ, white at that speed.
    """
    rows = range(min(ROWS, len(next(iter(batch.values())))))
    samples = ({name: values[k].cpu() for name, values in batch.items()} for k in rows)
    return np.asarray(np.vstack([np.hstack([*_columns(sample)]) for sample in samples]), np.uint8)


def _columns(sample: Mapping[str, Tensor]) -> Iterator[Picture]:
    flows = [value.float() for value in sample.values() if len(value) == 2]
    full = max(float(flows[0].norm(dim=0).quantile(0.99)), 1e-6)
    for value in sample.values():
        if len(value) == 2:
            yield flow_colours(np.ascontiguousarray(value.float().permute(1, 2, 0).numpy()), full)
            continue
        picture = _pixels(value)
        if len(value) == 3 and 'mask' in sample:
            found = (sample['mask'][0] > 0.5).numpy().astype(np.uint8)
            outlines = cv2.findContours(found, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
            cv2.drawContours(picture, outlines, -1, OUTLINE_COLOUR, 1)
        yield picture
    if len(flows) == 2:
        yield _pixels((flows[0] - flows[1]).norm(dim=0, keepdim=True) / full)


def _pixels(value: Tensor) -> Picture:
    """Return an image (3, H, W) or grey levels (1, H, W) as (H, W, 3)."""
    if value.dtype != torch.uint8:
        darkest = -0.5 if len(value) == 3 else 0.0
        value = ((value.float() - darkest).clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(value.expand(3, -1, -1).permute(1, 2, 0).numpy())
