"""Flow fields in Middlebury's .flo format (Baker et al., IJCV 2011)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError

TAG: Final = 202021.25


def write_flow(path: Path, flow: NDArray[np.float32]) -> None:
    """Write a flow field, float32 (H, W, 2), pixels."""
    height, width = flow.shape[:2]
    header = np.array((TAG,), '<f4').tobytes() + np.array((width, height), '<i4').tobytes()
    path.write_bytes(header + np.ascontiguousarray(flow, '<f4').tobytes())


def read_flow(path: Path) -> NDArray[np.float32]:
    """Read a flow field, float32 (H, W, 2), pixels.

    Raises:
        UserError: The file is missing, not a .flo file, or cut short.

    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    if len(data) < 12 or np.frombuffer(data, '<f4', 1)[0] != np.float32(TAG):
        raise UserError(f'{path} is not a .flo file: it does not begin with {TAG}')
    width, height = (int(value) for value in np.frombuffer(data, '<i4', 2, 4))
    if width < 1 or height < 1 or len(data) < 12 + 8 * width * height:
        raise UserError(f'{path} is cut short: {width}x{height} takes {12 + 8 * width * height} bytes, not {len(data)}')
    return np.frombuffer(data, '<f4', 2 * width * height, 12).reshape(height, width, 2).astype(np.float32)
