"""Converts image messages to pixels and back, for any object with the fields of sensor_msgs/Image.

``rosbags-image`` is not used: it ignores ``step``, which shears images with padded rows, reads nv12 as grey, and fails
with an assertion on compressed grey images and on truncated data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import ImageError, foreign, shown
from moving_object_detector.media.codecs import decode_objects, decode_pixels, kind_of, stated_kinds
from moving_object_detector.media.frames import LARGEST_SIDE, SampleScale, SizeError, check_size

RAW_TYPE: Final = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE: Final = 'sensor_msgs/msg/CompressedImage'
TYPES: Final = get_typestore(Stores.ROS2_HUMBLE)
"""Message definitions; image messages are the same in every ROS 2 distribution."""

Decoded = TypeVar('Decoded', bound=NDArray[Any])


class EncodedImage(NamedTuple):
    """Fields of a sensor_msgs/Image; ``data`` is flat uint8."""

    height: int
    width: int
    encoding: str
    step: int
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """Memory layout of an encoding, and the OpenCV conversion of its 8-bit form to RGB."""

    sample: str  # NumPy type without byte order
    channels: int
    to_rgb: int | None = None  # OpenCV's conversion code
    colour: bool = True  # a picture, not labels or floats
    plain: bool = True  # each pixel has its own samples: neither Bayer mosaic nor YUV
    chroma_plane: bool = False  # half as many rows of chroma follow the luma, so the height must be even too

    @property
    def size(self) -> int:
        """Bytes of a pixel."""
        return self.channels * np.dtype(self.sample).itemsize


_COLOURS: Final = {
    'rgb': (3, None),
    'bgr': (3, cv2.COLOR_BGR2RGB),
    'rgba': (4, cv2.COLOR_RGBA2RGB),
    'bgra': (4, cv2.COLOR_BGRA2RGB),
    'mono': (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer mosaic by its second row and column: ROS rggb is OpenCV BG.
    'bayer_rggb': (1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr': (1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg': (1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg': (1, cv2.COLOR_BayerGB2RGB),
}
# OpenCV's type names have no colour order; its convention is BGR.
_GENERIC: Final = {'8UC1': 'mono', '8UC3': 'bgr', '8UC4': 'bgra', '16UC1': 'mono'}
_YUV: Final = {
    'yuv422': _Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, plain=False),
    'uyvy': _Layout('u1', 2, cv2.COLOR_YUV2RGB_UYVY, plain=False),
    'yuv422_yuy2': _Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, plain=False),
    'yuyv': _Layout('u1', 2, cv2.COLOR_YUV2RGB_YUY2, plain=False),
    'nv12': _Layout('u1', 1, cv2.COLOR_YUV2RGB_NV12, plain=False, chroma_plane=True),
    'nv21': _Layout('u1', 1, cv2.COLOR_YUV2RGB_NV21, plain=False, chroma_plane=True),
}
_LAYOUTS: Final[dict[str, _Layout]] = {
    f'{name}{8 * depth}': _Layout(f'u{depth}', channels, to_rgb, plain='bayer' not in name)
    for depth in (1, 2) for name, (channels, to_rgb) in _COLOURS.items()
} | {
    name: _Layout(f'u{int(name.partition("U")[0]) // 8}', *_COLOURS[colours]) for name, colours in _GENERIC.items()
} | _YUV | {
    f'{8 * depth}{letter}C{channels}': _Layout(f'{sample}{depth}', channels, colour=False)
    for depth in (1, 2, 4, 8) for letter, sample in zip('USF', 'uif', strict=True) for channels in (1, 2, 3, 4)
    if f'{8 * depth}{letter}C{channels}' not in _GENERIC and f'{sample}{depth}' != 'f1'
}  # fmt: skip

SUPPORTED_ENCODINGS = tuple(name for name, layout in _LAYOUTS.items() if layout.colour)


def _samples(message: Any, layout: _Layout) -> NDArray[Any]:
    """Return (H, W, channels), or (H, W) for one channel, in the encoding's sample type; bytes are not copied."""
    height, width, step, encoding = int(message.height), int(message.width), int(message.step), message.encoding
    if height < 1 or width < 1:
        raise ImageError(f'image of size zero ({width}x{height}, {encoding}); check the camera driver')
    if encoding in _YUV and (width % 2 or (layout.chroma_plane and height % 2)):
        even = 'an even width and height' if layout.chroma_plane else 'an even width'
        raise ImageError(f'{encoding} needs {even}, but the image is {width}x{height}; publish it as rgb8 or bgr8')
    row = width * layout.size
    if step < row:
        raise ImageError(
            f'step is {step}, but a row of {width} pixels in {encoding} takes {row} bytes; '
            f'the publisher must set step to {row} or more'
        )
    rows = height * 3 // 2 if layout.chroma_plane else height
    data = np.frombuffer(message.data, np.uint8)
    # Some drivers leave out the padding of the last row.
    needed = step * (rows - 1) + row
    if data.size < needed:
        raise ImageError(
            f'data has {data.size} bytes, but {width}x{height} {encoding} with step {step} takes {step * rows}; '
            f'the image is cut short'
        )
    pixels = np.lib.stride_tricks.as_strided(data, (rows, row), (step, 1), writeable=False)
    sample = np.dtype(layout.sample).newbyteorder('>' if message.is_bigendian else '<')
    if sample.itemsize > 1:
        pixels = np.ascontiguousarray(pixels).view(sample)
    return pixels.reshape(rows, -1, layout.channels) if layout.channels > 1 else pixels


def decode_message(message: Any, scale: SampleScale | None = None, largest: int = LARGEST_SIDE) -> NDArray[np.uint8]:
    """Decode a camera's message, at most ``largest`` pixels on a side, to (H, W, 3) uint8 RGB; raises only ImageError.

    A sensor_msgs/Image is decoded by :func:`decode_image`; a CompressedImage must be JPEG or PNG, colour or grey, 8 or
    16 bits. The colour order in its format field is ignored: the file itself states it. The Exif orientation is not
    applied, as in the camera's uncompressed stream.
    """
    try:
        if not hasattr(message, 'encoding'):
            pixels = _decompressed(message, partial(decode_pixels, largest=largest, oriented=False))
            return (scale or SampleScale())(pixels)
        if min(message.height, message.width) > 0:  # otherwise decode_image gives a better reason
            check_size(message.height, message.width, largest)
        return decode_image(message, scale)
    except ImageError:
        raise
    except Exception as error:
        # A decoder may raise anything; a malformed message must not look like a fault of the node.
        raise ImageError(f'undecodable: {type(error).__name__}: {foreign(error)}') from error


def decode_image(message: Any, scale: SampleScale | None = None) -> NDArray[np.uint8]:
    """Decode a sensor_msgs/Image (any object with its fields) to (H, W, 3) uint8 RGB that owns its memory.

    Row padding and data beyond the last row are skipped. 16-bit samples have the byte order of ``is_bigendian`` and are
    scaled by the stream's ``scale``, or by their own range without one. 8UC3 and 8UC4 are BGR and BGRA. Raises
    ImageError if the encoding is not in :data:`SUPPORTED_ENCODINGS`, or size, step and data do not fit it.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None or not layout.colour:
        raise ImageError(
            f'encoding {shown(message.encoding)} is not supported; publish one of {", ".join(SUPPORTED_ENCODINGS)}'
        )
    pixels = (scale or SampleScale())(_samples(message, layout))
    if layout.to_rgb is None:
        return np.array(pixels, order='C')
    if 'bayer' in message.encoding and min(pixels.shape[:2]) < 3:
        raise ImageError(
            f'{message.encoding} needs at least 3x3 pixels, but the image is {message.width}x{message.height}'
        )
    return np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)


def _decompressed(message: Any, decode: Callable[[bytes], Decoded]) -> Decoded:
    """Decode the data of a CompressedImage, unless its format field names another codec."""
    data = bytes(message.data)
    stated = f'compressed image (format {shown(message.format)}, {len(data)} bytes)'
    if not data:
        raise ImageError(f'{stated} is empty; check the camera driver')
    kinds, kind = stated_kinds(message.format), kind_of(data)
    if kind and kind not in kinds:
        expected = f'its format says {" or ".join(sorted(kinds))}' if kinds else 'only JPEG and PNG are supported'
        raise ImageError(f'{stated} holds {kind}, but {expected}; publish JPEG or PNG and name it in the format field')
    try:
        return decode(data)
    except SizeError:
        raise
    except ImageError as error:
        raise ImageError(f'{stated} does not decode: {error}; publish complete JPEG or PNG files') from error


def encode_image(array: NDArray[Any], encoding: str) -> EncodedImage:
    """Encode pixels as the fields of a sensor_msgs/Image without padding; shares their memory if possible.

    Takes uint8 (H, W, 3) **RGB** for rgb8 and bgr8, uint8 (H, W) for mono8, little-endian float32 (H, W) for 32FC1 and
    (H, W, 2) for 32FC2. Raises ValueError if shape or type does not fit the encoding.
    """
    layout = _LAYOUTS[encoding]
    if array.shape[2:] != (() if layout.channels == 1 else (layout.channels,)) or array.dtype != f'<{layout.sample}':
        raise ValueError(f'{encoding} cannot hold an array of shape {array.shape} and type {array.dtype}')
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if encoding == 'bgr8' else array
    height, width = array.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return EncodedImage(height, width, encoding, width * layout.size, data)


def is_jpeg(message: Any) -> bool:
    """Return whether a message holds a JPEG, which blurs outlines."""
    return not hasattr(message, 'encoding') and kind_of(bytes(memoryview(message.data)[:3])) == 'jpeg'


def decode_mask(message: Any) -> NDArray[np.bool_]:
    """Decode a sensor_msgs/Image or CompressedImage to a mask, bool (H, W): True where any colour is not zero.

    Accepts integer and float samples of every width, so also labels such as 16UC1 or 32SC1. In a JPEG the mask is what
    is brighter than half. Raises ImageError if the message cannot be decoded.
    """
    if not hasattr(message, 'encoding'):
        return _decompressed(message, decode_objects)
    layout = _LAYOUTS.get(message.encoding)
    objects = (_samples(message, layout) if layout and layout.plain else decode_image(message)) != 0
    # Ignores alpha, the fourth channel.
    return np.asarray(objects if objects.ndim == 2 else objects[:, :, :3].any(2), np.bool_)
