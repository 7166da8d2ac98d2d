"""Masks in image messages: which pixels are object."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.datasets.messages import decode_compressed, decode_compressed_labels, decode_image

JPEG: Final = b'\xff\xd8'
_OF_JPEG: Final = 127
"""Values that JPEG makes of black beside white stay below."""
_NAMED: Final = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
_GENERIC: Final = re.compile(r'(8|16|32|64)([USF])C([1-4])')


def _layout(encoding: str) -> tuple[str, int] | None:
    """Return type of a sample (numpy, without its byte order) and samples of a pixel; None for mosaics and yuv."""
    generic = _GENERIC.fullmatch(encoding)
    if generic:
        return f'{ {"U": "u", "S": "i", "F": "f"}[generic[2]] }{int(generic[1]) // 8}', int(generic[3])
    named = re.fullmatch(r'([a-z]+)(8|16)', encoding)
    if named and named[1] in _NAMED:
        return f'u{int(named[2]) // 8}', _NAMED[named[1]]
    return None


def _any_colour(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where any channel is not zero, a fourth one, which is opacity, left out."""
    objects = pixels != 0
    return np.asarray(objects if objects.ndim == 2 else objects[:, :, :3].any(2), np.bool_)


def is_jpeg(message: Any) -> bool:
    """Return whether a message holds a JPEG, which blurs outlines."""
    return not hasattr(message, 'encoding') and bytes(memoryview(message.data)[:2]) == JPEG


def decode_mask(message: Any) -> NDArray[np.bool_]:
    """Read a sensor_msgs/Image or CompressedImage as a mask.

    Args:
        message: Any object with the fields of either. Integer and floating samples of every width are understood,
            so that labels such as 16UC1 or 32SC1 are too.

    Returns:
        bool (H, W): True where a pixel is not zero in any colour; of a JPEG, where it is brighter than half.

    Raises:
        ImageError: It cannot be decoded as it says.

    """
    if not hasattr(message, 'encoding'):
        if is_jpeg(message):
            return np.asarray(decode_compressed(message).max(2) > _OF_JPEG, np.bool_)
        return _any_colour(decode_compressed_labels(message))
    layout = _layout(message.encoding)
    if layout is None:
        return _any_colour(decode_image(message))
    sample, channels = layout
    kind = np.dtype(f'{">" if message.is_bigendian else "<"}{sample}')
    # As a wide grey picture, whose rows are checked and freed of their padding.
    wide = SimpleNamespace(
        height=message.height,
        width=int(message.width) * channels * kind.itemsize,
        encoding='mono8',
        is_bigendian=0,
        step=message.step,
        data=message.data,
    )
    octets = np.ascontiguousarray(decode_image(wide)[:, :, 0])
    samples = octets.view(kind)
    return _any_colour(samples if channels == 1 else samples.reshape(samples.shape[0], -1, channels))
