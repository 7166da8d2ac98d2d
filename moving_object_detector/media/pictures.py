"""Flow files (Middlebury .flo), flow as colours, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.frames import FrameSource, resize_image


def write_flow(path: Path, flow: NDArray[np.floating[Any]]) -> None:
    """Write a flow field (H, W, 2), pixels, as .flo; raises UserError if it cannot be written."""
    if not cv2.writeOpticalFlow(str(path), np.ascontiguousarray(flow, np.float32)):
        raise UserError(f'{path} cannot be written; give a path in a folder you own')


def read_flow(path: Path) -> NDArray[np.float32]:
    """Read a .flo file as float32 (H, W, 2), pixels; raises UserError if it is missing, not .flo, or cut short."""
    flow = None
    with suppress(cv2.error):  # the header claims more than memory holds
        flow = cv2.readOpticalFlow(str(path))
    if flow is None:
        raise UserError(f'{path} cannot be read as a .flo file: it is missing, of another kind, or cut short')
    return np.asarray(flow, np.float32)


def flow_colours(flow: NDArray[np.float32], full: float | None = None) -> NDArray[np.uint8]:
    """Paint flow (H, W, 2), pixels, as (H, W, 3) uint8 RGB; ``full`` is the speed of full colour.

    Hue is the direction: red to the right, green downwards, cyan to the left, violet upwards. White is no motion,
    darkened colours are faster than ``full`` (default: the field's 99th percentile). Black is not finite or beyond 1e9
    (Middlebury's "unknown").
    """
    known = np.asarray((np.abs(flow) < 1e9).all(2))  # False for NaN
    field = np.where(known[:, :, None], flow, 0)
    speed = np.linalg.norm(field, axis=2)
    if full is None:
        full = float(np.percentile(speed[known], 99)) if known.any() else 0.0
    share = speed / max(full, 1e-6)
    hue = np.degrees(np.arctan2(field[:, :, 1], field[:, :, 0])) % 360
    colours = np.dstack((hue, np.minimum(share, 1), np.where(share <= 1, 1.0, 0.75) * known))
    return np.asarray(255 * cv2.cvtColor(colours.astype(np.float32), cv2.COLOR_HSV2RGB), np.uint8)


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Return ``wanted`` frame numbers (at most ``total``), evenly spaced from 0 to ``total - 1``, both included."""
    if wanted >= total:
        return list(range(total))
    return [round(k * (total - 1) / max(wanted - 1, 1)) for k in range(wanted)]


def draw_sheet(images: Sequence[tuple[int, NDArray[np.uint8]]], columns: int, width: int) -> NDArray[np.uint8]:
    """Draw numbered images (H, W, 3) uint8 RGB in a grid of cells ``width`` pixels wide, in the first one's shape."""
    height = max(1, round(width * images[0][1].shape[0] / images[0][1].shape[1]))
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    gap = 4
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for cell, (number, image) in enumerate(images):
        scale = min(width / image.shape[1], height / image.shape[0])
        size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        picture: NDArray[np.uint8] = resize_image(image, size).copy()
        # White with a black outline is readable on any picture.
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, str(number), (5, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
        top, left = gap + cell // columns * (height + gap), gap + cell % columns * (width + gap)
        sheet[top : top + size[0], left : left + size[1]] = picture
    return sheet


def select_frames(source: FrameSource, wanted: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """Read a source once or twice and return evenly spaced frames with their numbers."""
    total = source.frame_count
    if total is None:
        total = sum(1 for _ in source)
    chosen = set(evenly_spaced(total, wanted))
    return [(number, frame.image) for number, frame in enumerate(source) if number in chosen]
