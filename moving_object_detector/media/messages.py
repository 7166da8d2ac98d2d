"""Image messages to pixels and back, for any object with the fields of sensor_msgs/Image.

``rosbags-image`` is not used: it ignores ``step``, so padded rows come out sheared, takes nv12 for
grey, and fails on compressed grey images and on truncated data with an assertion.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, shown
from moving_object_detector.media.codecs import decode_labels, decode_objects, decode_pixels, kind_of, stated_kinds
from moving_object_detector.media.pixels import LARGEST_SIDE, SampleScale, SizeError, check_size

Pixels = TypeVar('Pixels', bound=NDArray[Any])


class EncodedImage(NamedTuple):
    """What to put into the fields of a sensor_msgs/Image; ``data`` is flat uint8."""

    height: int
    width: int
    encoding: str
    step: int
    data: NDArray[np.uint8]


@dataclass(frozen=True)
class _Layout:
    """How one encoding lies in memory, and OpenCV's conversion of its 8-bit form to RGB."""

    channels: int
    to_rgb: int | None
    depth: int = 1  # bytes a sample
    even_width: bool = False
    chroma_plane: bool = False  # half as many rows again below the luma, so the height is even too


_COLOURS = {
    'rgb': _Layout(3, None),
    'bgr': _Layout(3, cv2.COLOR_BGR2RGB),
    'rgba': _Layout(4, cv2.COLOR_RGBA2RGB),
    'bgra': _Layout(4, cv2.COLOR_BGRA2RGB),
    'mono': _Layout(1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a mosaic by its second row and second column: ROS rggb is OpenCV BG.
    'bayer_rggb': _Layout(1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr': _Layout(1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg': _Layout(1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg': _Layout(1, cv2.COLOR_BayerGB2RGB),
}
_UYVY = _Layout(2, cv2.COLOR_YUV2RGB_UYVY, even_width=True)
_YUYV = _Layout(2, cv2.COLOR_YUV2RGB_YUY2, even_width=True)

_LAYOUTS: dict[str, _Layout] = {
    **{f'{name}8': layout for name, layout in _COLOURS.items()},
    **{f'{name}16': _Layout(layout.channels, layout.to_rgb, depth=2) for name, layout in _COLOURS.items()},
    # OpenCV's names carry no colour order; its own is blue first.
    '8UC1': _COLOURS['mono'],
    '8UC3': _COLOURS['bgr'],
    '8UC4': _COLOURS['bgra'],
    '16UC1': _Layout(1, cv2.COLOR_GRAY2RGB, depth=2),
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    'nv12': _Layout(1, cv2.COLOR_YUV2RGB_NV12, even_width=True, chroma_plane=True),
    'nv21': _Layout(1, cv2.COLOR_YUV2RGB_NV21, even_width=True, chroma_plane=True),
}

# Channels and sample type of the encodings that are published.
_PUBLISHED = {'rgb8': (3, 'u1'), 'bgr8': (3, 'u1'), 'mono8': (1, 'u1'), '32FC1': (1, '<f4'), '32FC2': (2, '<f4')}

SUPPORTED_ENCODINGS = tuple(_LAYOUTS)


def _flat_bytes(data: Any) -> NDArray[np.uint8]:
    """View bytes, array.array or numpy data as flat uint8 without copying."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _checked_rows(message: Any, layout: _Layout) -> NDArray[np.uint8]:
    """Return the pixels as (rows, bytes of a row) without the padding, still without copying."""
    height, width, step, encoding = int(message.height), int(message.width), int(message.step), message.encoding
    if height < 1 or width < 1:
        raise ImageError(f'image of size zero ({width}x{height}, {encoding}); check the camera driver')
    if (layout.even_width and width % 2) or (layout.chroma_plane and height % 2):
        what = 'an even width and height' if layout.chroma_plane else 'an even width'
        raise ImageError(f'{encoding} needs {what}, but the image is {width}x{height}; publish it as rgb8 or bgr8')
    row = width * layout.channels * layout.depth
    if step < row:
        raise ImageError(
            f'step is {step}, but a row of {width} pixels in {encoding} takes {row} bytes; '
            f'the publisher must set step to {row} or more'
        )
    rows = height * 3 // 2 if layout.chroma_plane else height
    data = _flat_bytes(message.data)
    # The last row's padding may be missing: some drivers leave it out, and no pixel is in it.
    needed = step * (rows - 1) + row
    if data.size < needed:
        raise ImageError(
            f'data has {data.size} bytes, but {width}x{height} {encoding} with step {step} takes {step * rows}; '
            f'the image is cut short'
        )
    return np.lib.stride_tricks.as_strided(data, (rows, row), (step, 1), writeable=False)


def decode_message(
    message: Any,
    scale: SampleScale | None = None,
    largest: int = LARGEST_SIDE,
    raw: Callable[[Any, SampleScale | None], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Turn a camera's message into RGB, by ``raw`` (:func:`decode_image`) or :func:`decode_compressed`.

    The size is held to ``largest`` before any pixel is touched.
    """
    if not hasattr(message, 'encoding'):
        return decode_compressed(message, scale, largest)
    if min(message.height, message.width) > 0:  # else a better reason is given below
        check_size(message.height, message.width, largest)
    return (raw or decode_image)(message, scale)


def decode_image(message: Any, scale: SampleScale | None = None) -> NDArray[np.uint8]:
    """Turn a sensor_msgs/Image into RGB.

    Padding after each row is skipped and data beyond the last row ignored. 16-bit samples are read in
    the byte order that ``is_bigendian`` states. 8UC3 and 8UC4 are taken as blue first.

    Args:
        message: Any object with the message's fields; ``data`` may be bytes, an ``array.array`` or a numpy array.
        scale: Of the stream, for samples of 16 bits; None: the image's own range.

    Returns:
        (H, W, 3) uint8 RGB that owns its memory.

    Raises:
        ImageError: The encoding is none of :data:`SUPPORTED_ENCODINGS`, or size, step and data do not fit it.

    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(
            f'encoding {shown(message.encoding)} is not supported; publish one of {", ".join(SUPPORTED_ENCODINGS)}'
        )
    rows = _checked_rows(message, layout)
    if layout.depth == 2:
        samples = np.ascontiguousarray(rows).view('>u2' if message.is_bigendian else '<u2')
        rows = (scale or SampleScale())(samples)
    pixels = rows.reshape(rows.shape[0], -1, layout.channels) if layout.channels > 1 else rows
    if layout.to_rgb is None:
        return np.array(pixels, order='C')
    if 'bayer' in message.encoding and min(pixels.shape[:2]) < 3:
        raise ImageError(
            f'{message.encoding} needs at least 3x3 pixels, but the image is {message.width}x{message.height}'
        )
    return np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)


def _decompressed(message: Any, decode: Callable[[bytes], Pixels]) -> Pixels:
    """Decode the data of a CompressedImage, if its format field does not name another codec."""
    data = _flat_bytes(message.data).tobytes()
    stated = f'compressed image (format {shown(message.format)}, {len(data)} bytes)'
    if not data:
        raise ImageError(f'{stated} is empty; check the camera driver')
    kinds, kind = stated_kinds(message.format), kind_of(data)
    if kind and kind not in kinds:
        taken = f'its format says {" or ".join(sorted(kinds))}' if kinds else 'JPEG and PNG are taken'
        raise ImageError(f'{stated} holds {kind}, but {taken}; publish JPEG or PNG under its own name')
    try:
        return decode(data)
    except SizeError:
        raise
    except ImageError as error:
        raise ImageError(f'{stated} does not decode: {error}; publish JPEG or PNG, whole') from error


def decode_compressed(message: Any, scale: SampleScale | None = None, largest: int = LARGEST_SIDE) -> NDArray[np.uint8]:
    """Turn a sensor_msgs/CompressedImage (JPEG or PNG, TIFF where so named; colour or grey, 8 or 16 bit) into RGB.

    What the format field says of colours is not looked at, since image_transport stores blue first in files that state
    the right order themselves. An orientation in the file is not applied, as in the camera's uncompressed stream.

    Args:
        message: Any object with the message's fields.
        scale: As of :func:`decode_image`.
        largest: Longest side that is accepted, pixels.

    Returns:
        As :func:`decode_image`.

    Raises:
        ImageError: The data is empty, damaged, too large or too small, or not of the codec that the format field names.

    """
    return (scale or SampleScale())(_decompressed(message, partial(decode_pixels, largest=largest, oriented=False)))


def encode_image(array: NDArray[Any], encoding: str) -> EncodedImage:
    """Turn pixels into the fields of a sensor_msgs/Image without padding.

    Args:
        array: For rgb8 and bgr8 (H, W, 3) uint8 **RGB**; for mono8 (H, W) uint8; for 32FC1 (H, W)
            float32; for 32FC2 (H, W, 2) float32. Floats are stored little-endian.
        encoding: One of those five.

    Returns:
        The fields; ``is_bigendian`` is 0. The data shares the array's memory where it can.

    Raises:
        ValueError: The array does not have the encoding's shape and type.

    """
    channels, dtype = _PUBLISHED[encoding]
    shape_fits = array.ndim == 2 if channels == 1 else array.ndim == 3 and array.shape[2] == channels
    if not shape_fits or array.dtype != np.dtype(dtype):
        raise ValueError(f'{encoding} cannot hold an array of shape {array.shape} and type {array.dtype}')
    pixels = cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if encoding == 'bgr8' else array
    height, width = array.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return EncodedImage(height, width, encoding, width * channels * array.itemsize, data)


_NAMED: Final = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
_GENERIC: Final = re.compile(r'(8|16|32|64)([USF])C([1-4])')


def _samples_of(encoding: str) -> tuple[str, int] | None:
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
    return not hasattr(message, 'encoding') and kind_of(bytes(memoryview(message.data)[:3])) == 'jpeg'


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
        return _decompressed(message, decode_objects)
    samples_of = _samples_of(message.encoding)
    if samples_of is None:
        return _any_colour(decode_image(message))
    sample, channels = samples_of
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


def is_picture(message: Any) -> bool:
    """Tell whether a message may be a camera's image: a mask has two values, and floats are no colours."""
    encoding = getattr(message, 'encoding', '')
    if encoding.startswith(('32', '64')):
        return False
    try:
        values = decode_image(message)[:, :, 0] if encoding else _decompressed(message, decode_labels)
    except ImageError:
        return True
    several = values.ndim == 3 or encoding not in {'', 'mono8', '8UC1'}
    return several or bool(np.any((values != 0) & (values != 255)))
