"""Decodes and encodes image files, and refuses damaged ones; JPEG and PNG are checked before they are decoded.

OpenCV reports damage only on stderr, or not at all, and fills missing parts with grey. So JPEG is decoded by
libjpeg-turbo through simplejpeg, which raises what OpenCV's copy prints, and PNG checksums are verified.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from typing import Any, Final

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.media.frames import LARGEST_SIDE, SMALLEST_SIDE, check_size

_MOST_SCANS: Final = 100
"""Scans of a progressive JPEG; cameras write about ten, and each is a pass over the whole image."""
_PADDING: Final = 8
"""Padding bytes that cameras may write before the end marker; damage leaves more."""
_KINDS: Final = re.compile(
    rb'(?P<jpeg>\xff\xd8\xff)|(?P<png>\x89PNG\r\n\x1a\n)|(?P<bmp>BM)|(?P<pnm>P[1-6]\s)|(?P<tiff>II\*\0|MM\0\*)'
    rb'|(?P<webp>RIFF.{4}WEBP)',
    re.DOTALL,
)
_CODECS: Final = {'jpeg': 'jpeg', 'jpg': 'jpeg', 'mjpeg': 'jpeg', 'png': 'png'}
_OTHER_CODECS: Final = frozenset(
    {'avif', 'bmp', 'exr', 'gif', 'h264', 'h265', 'hdr', 'hevc', 'jp2', 'tif', 'tiff', 'vp9', 'webp'}
)

_JPEG_THRESHOLD: Final = 127
"""Threshold for masks stored as JPEG, above the artefacts of black next to white."""

# Failures show in OpenCV's results; its own messages would fill the log at the camera's rate.
with suppress(AttributeError):  # a distribution's OpenCV may be older than this function
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def kind_of(data: bytes) -> str:
    """Return jpeg, png, bmp, pnm, tiff or webp, judging by the first bytes; empty for anything else."""
    found = _KINDS.match(data)
    return found.lastgroup or '' if found else ''


def stated_kinds(stated: str) -> frozenset[str]:
    """Return the codecs named in a CompressedImage's format (``rgb8; jpeg compressed bgr8``); if none, JPEG and PNG."""
    words = set(re.findall(r'[a-z0-9]+', stated[:200].lower()))
    named = frozenset(_CODECS[word] for word in words & _CODECS.keys())
    return named or (frozenset() if words & _OTHER_CODECS else frozenset({'jpeg', 'png'}))


def _checked(data: bytes, largest: int, smallest: int) -> tuple[str, bytes]:
    """Return the format and the data to decode; raises ImageError if it is damaged, too large or too small.

    JPEG and PNG are checked by their headers, other formats once decoded.
    """
    kind = kind_of(data)
    if not kind:
        raise ImageError(f'not an image that can be decoded ({len(data)} bytes)')
    if kind not in {'jpeg', 'png'}:
        return kind, data
    try:
        if kind == 'jpeg':
            height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        else:
            name, width, height = struct.unpack_from('>4sII', data, 12)
            if name != b'IHDR':
                raise ValueError('no header')
    except (ValueError, KeyError, struct.error) as error:
        raise ImageError(f'the header of this {kind} is damaged or cut short') from error
    check_size(int(height), int(width), largest, smallest)
    if kind == 'jpeg' and data.count(b'\xff\xda') > _MOST_SCANS:
        raise ImageError(f'a JPEG with more than {_MOST_SCANS} scans, which no camera writes')
    return kind, _png_essence(data) if kind == 'png' else data


def _png_essence(data: bytes) -> bytes:
    """Return a PNG without ancillary chunks, about which libpng may print warnings; verifies the others' checksums."""
    kept, place, name = [data[:8]], 8, b''
    while name != b'IEND':
        # RFC 2083, section 3.2: length, name, data, checksum of name and data.
        whole = place + 12 <= len(data)
        length, name = struct.unpack_from('>I4s', data, place) if whole else (len(data), b'')
        chunk = data[place : place + 12 + length]
        place += 12 + length
        if place > len(data):
            raise ImageError('a PNG that is cut short')
        if name in {b'IHDR', b'PLTE', b'IDAT', b'IEND'}:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], 'big'):
                raise ImageError(f'a PNG with a wrong checksum in {foreign(name)}: its data is damaged')
            kept.append(chunk)
    return b''.join(kept)


def _opencv(data: bytes, flags: int, largest: int, smallest: int) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f'it does not decode ({foreign(error.err)})') from error
    if image is None:
        raise ImageError(f'it does not decode ({len(data)} bytes)')
    if image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise ImageError(f'its samples are {image.dtype}; store it with 8 or 16 bits')
    check_size(image.shape[0], image.shape[1], largest, smallest)
    return np.asarray(image)


def _turbojpeg(data: bytes) -> NDArray[np.uint8]:
    stored = simplejpeg.decode_jpeg_header(data, strict=False)[2]
    colours = 'CMYK' if stored in {'CMYK', 'YCCK'} else 'RGB'
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colours))
    except ValueError as error:
        padding = re.search(r'(\d+) extraneous bytes before marker 0xd9', str(error))
        if padding is None or int(padding[1]) > _PADDING:
            raise ImageError(f'a damaged JPEG ({foreign(error)})') from error
    return np.asarray(simplejpeg.decode_jpeg(data, colours, strict=False))


def decode_pixels(data: bytes, *, largest: int = LARGEST_SIDE, oriented: bool = True) -> NDArray[Any]:
    """Decode an image to (H, W, 3) RGB, uint8 or uint16 (see :class:`SampleScale`); transparency is dropped.

    ``largest`` is the longest side allowed, pixels; ``oriented`` applies the Exif orientation. Raises ImageError if the
    format is unknown or the image too large, too small, cut short or damaged.
    """
    kind, data = _checked(data, largest, SMALLEST_SIDE)
    if kind == 'jpeg':
        image = _turbojpeg(data)
        if image.shape[2] == 3 and not (oriented and b'Exif\0\0' in data[:65536]):
            return image
        # OpenCV converts CMYK and applies the orientation; its pixels are the same, since both use libjpeg-turbo.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (0 if oriented else cv2.IMREAD_IGNORE_ORIENTATION)
    return np.asarray(cv2.cvtColor(_opencv(data, flags, largest, SMALLEST_SIDE), cv2.COLOR_BGR2RGB))


def decode_labels(data: bytes) -> NDArray[Any]:
    """Decode the stored values, (H, W) or (H, W, C) BGR, 8 or 16 bits; no orientation, a palette as colours."""
    kind, data = _checked(data, LARGEST_SIDE, smallest=1)
    if kind == 'jpeg':
        _turbojpeg(data)
    return _opencv(data, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, LARGEST_SIDE, smallest=1)


def decode_objects(data: bytes) -> NDArray[np.bool_]:
    """Decode a mask (H, W): True where any colour is not zero (in a JPEG: above half); alpha is ignored."""
    label = decode_labels(data)
    values = label if label.ndim == 2 else label[:, :, :3].max(2)
    return np.asarray(values > (_JPEG_THRESHOLD if kind_of(data) == 'jpeg' else 0), np.bool_)


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> NDArray[np.uint8]:
    """Encode an (H, W, 3) uint8 RGB image; returns the file as flat uint8."""
    return _encode('.jpg', image, cv2.IMWRITE_JPEG_QUALITY, quality)


def encode_png(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode an (H, W, 3) RGB or (H, W) uint8 image without loss; returns the file as flat uint8."""
    return _encode('.png', image)


def _encode(suffix: str, image: NDArray[np.uint8], *options: int) -> NDArray[np.uint8]:
    done, data = cv2.imencode(suffix, image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ImageError(f'an image of {image.shape[1]}x{image.shape[0]} pixels cannot be stored as {suffix}')
    return np.asarray(data, np.uint8).reshape(-1)
