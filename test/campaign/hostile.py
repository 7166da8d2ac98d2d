"""Images that nobody should send, by kind; each with whether it must be refused (None: either will do)."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

RNG = np.random.default_rng(12)
PICTURE = cv2.resize(RNG.integers(0, 256, (12, 16, 3), np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)


def encoded(suffix, *options, image=PICTURE):
    return cv2.imencode(suffix, image, [*options])[1].tobytes()


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(width, height, rows, *, depth=8, colour=2, extra=b''):
    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
    return start + extra + chunk(b'IDAT', zlib.compress(rows, 9)) + chunk(b'IEND', b'')


def jpeg_sized(width, height, *options):
    data = bytearray(encoded('.jpg', *options))
    place = next(data.index(marker) for marker in (b'\xff\xc0', b'\xff\xc2') if marker in data) + 5
    data[place : place + 4] = struct.pack('>HH', height, width)
    return bytes(data)


def files():
    """Yield name, bytes, stated format, must be refused."""
    jpeg, rgb = encoded('.jpg'), encoded('.png')
    progressive = encoded('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    restarts = encoded('.jpg', cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    rows = bytes((3 * 30000 + 1) * 30000 // 200)
    yield 'empty', b'', 'jpeg', True
    yield 'nothing but a beginning', b'\xff\xd8\xff', 'jpeg', True
    yield 'text', b'no image at all' * 9, 'jpeg', True
    yield 'zeros', bytes(5000), 'png', True
    yield 'bomb, jpeg', jpeg_sized(65500, 16000), 'jpeg', True
    yield 'bomb, progressive jpeg', jpeg_sized(65500, 65500, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), 'jpeg', True
    yield 'bomb, png', png(30000, 30000, rows), 'png', True
    yield 'largest numbers, png', png(2**31 - 1, 2**31 - 1, b'\0'), 'png', True
    yield 'negative size, png', png(2**32 - 1, 4, b'\0'), 'png', True
    yield 'size zero, jpeg', jpeg_sized(0, 96), 'jpeg', True
    yield 'size zero, png', png(0, 96, b'\0'), 'png', True
    yield 'larger than its data, jpeg', jpeg_sized(1024, 1024), 'jpeg', True
    yield 'larger than its data, png', png(128, 96, bytes(385 * 50)), 'png', True
    yield (
        'many scans',
        progressive[:-2] + progressive[progressive.rindex(b'\xff\xda') : -2] * 300 + b'\xff\xd9',
        'jpeg',
        True,
    )
    yield 'jpeg, middle missing', jpeg[: len(jpeg) // 3] + jpeg[2 * len(jpeg) // 3 :], 'jpeg', True
    yield 'jpeg, middle zero', jpeg[: len(jpeg) // 3] + bytes(len(jpeg) // 3) + jpeg[2 * len(jpeg) // 3 :], 'jpeg', True
    yield 'restarts, middle missing', restarts[: len(restarts) // 3] + restarts[2 * len(restarts) // 3 :], 'jpeg', True
    yield 'progressive, end missing', progressive[: len(progressive) // 2] + b'\xff\xd9', 'jpeg', True
    yield 'jpeg, cut', jpeg[:-200], 'jpeg', True
    yield 'jpeg, no tables', jpeg[:2] + jpeg[jpeg.index(b'\xff\xc0') :], 'jpeg', True
    yield 'jpeg, twice', jpeg + jpeg, 'jpeg', None
    yield "jpeg, a camera's padding", jpeg + bytes(4096), 'jpeg', False
    yield 'png, cut', rgb[:-200], 'png', True
    yield 'png, no end', rgb[:-12], 'png', True
    yield 'png, wrong checksum', rgb[:-20] + bytes([rgb[-20] ^ 1]) + rgb[-19:], 'png', True
    yield 'png, endless chunk', rgb[:33] + b'\xff\xff\xff\xf0IDAT' + rgb[41:], 'png', True
    yield (
        'png, broken stream',
        png(128, 96, b'')[:33] + chunk(b'IDAT', b'\x78\x9c' + bytes(99)) + chunk(b'IEND', b''),
        'png',
        True,
    )
    yield (
        'png, compressed text',
        png(128, 96, bytes(385 * 96), extra=chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(10**8)))),
        'png',
        False,
    )
    yield (
        'png, animated',
        png(128, 96, bytes(385 * 96), extra=chunk(b'acTL', struct.pack('>II', 2**31 - 1, 0))),
        'png',
        None,
    )
    yield 'png, one bit', png(128, 96, bytes(17 * 96), depth=1, colour=0), 'png', False
    yield 'png, strange depth', png(128, 96, bytes(17 * 96), depth=3, colour=0), 'png', True
    yield 'png, palette without colours', png(128, 96, bytes(129 * 96), colour=3), 'png', True
    yield 'one pixel', encoded('.png', image=PICTURE[:1, :1]), 'png', True
    for suffix in ('.gif', '.jp2', '.avif', '.webp', '.bmp', '.ppm'):
        yield f'another codec, {suffix}', encoded(suffix), suffix[1:], True
        yield f'another codec as jpeg, {suffix}', encoded(suffix), 'jpeg', True
    yield 'tiff without its name', encoded('.tiff'), 'jpeg', True
    yield 'tiff under its name', encoded('.tiff'), 'bgr8; tiff compressed bgr8', True
    yield 'png as jpeg', rgb, 'jpeg', True
    yield 'jpeg as png', jpeg, 'rgb8; png compressed bgr8', True
    yield 'jpeg without a format', jpeg, '', False
    yield 'jpeg as image_transport names it', jpeg, 'rgb8; jpeg compressed bgr8', False
    yield 'format of a megabyte', jpeg[:-200], 'x\x1b[31m\n' * 150_000, True


def raw():
    """Yield name and the fields of a sensor_msgs/Image that must be refused."""
    fields = {'height': 96, 'width': 128, 'encoding': 'rgb8', 'step': 384, 'is_bigendian': 0}
    whole = bytes(96 * 384)
    for name, changes in {
        'no encoding': {'encoding': ''},
        'encoding of a megabyte': {'encoding': 'rgb8\x1b[31m\nroot: ' * 60_000},
        'encoding of other letters': {'encoding': 'rgb\uff18'},
        'floats': {'encoding': '32FC1'},
        'largest numbers': {'height': 2**32 - 1, 'width': 2**32 - 1, 'step': 2**32 - 1},
        'step too large': {'step': 2**32 - 1},
        'step times height wraps': {'height': 2**31, 'step': 4, 'width': 1},
        'step zero': {'step': 0},
        'step of one less': {'step': 383},
        'height of one more': {'height': 97},
        'width zero': {'width': 0},
        'too thin': {'width': 15},
        'too long': {'width': 4097, 'height': 16, 'step': 12291, 'data': bytes(16 * 12291)},
        'no data': {'data': b''},
        'one byte': {'data': b'\0'},
        'wider encoding': {'encoding': 'rgba16'},
        'odd yuv': {'encoding': 'yuv422', 'width': 127},
        'odd nv12': {'encoding': 'nv12', 'height': 95, 'step': 128},
        'nv12 without its colours': {'encoding': 'nv12', 'step': 128, 'data': bytes(96 * 128)},
    }.items():
        yield name, {'data': whole, **fields, **changes}
