"""Images in their files' bytes: good ones to the pixel, all others refused, quickly and in silence."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.codecs import decode_labels, decode_pixels, kind_of, stated_kinds

RNG = np.random.default_rng(8)
PICTURE = cv2.resize(RNG.integers(0, 256, (30, 40, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
SUFFIXES = {'.jpg': 'jpeg', '.png': 'png', '.bmp': 'bmp', '.ppm': 'pnm', '.tiff': 'tiff', '.webp': 'webp'}


def encoded(suffix, image=PICTURE, *options):
    return cv2.imencode(suffix, image, [*options])[1].tobytes()


def chunk(name, content):
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def opencv(data):
    """What OpenCV makes of it, which is the second opinion on good data."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(('suffix', 'kind'), SUFFIXES.items())
@pytest.mark.parametrize('grey', [False, True])
def test_every_kind_is_decoded(suffix, kind, grey):
    data = encoded('.pgm' if grey and suffix == '.ppm' else suffix, PICTURE[:, :, 0] if grey else PICTURE)
    assert kind_of(data) == kind
    assert np.array_equal(decode_pixels(data), opencv(data))


@pytest.mark.parametrize(
    'options',
    [
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ],
)
def test_forms_of_jpeg(options):
    data = encoded('.jpg', PICTURE, *options)
    assert np.array_equal(decode_pixels(data), opencv(data))
    # A camera's buffer is longer than its picture.
    assert np.array_equal(decode_pixels(data + bytes(500)), opencv(data))
    assert np.array_equal(decode_pixels(data[:-2] + b'\x12\x34\x56' + data[-2:]), opencv(data))


@pytest.mark.parametrize('options', [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)])
@pytest.mark.parametrize('lost', [300, 2000, 10000])
def test_a_jpeg_whose_middle_is_missing(options, lost):
    data = encoded('.jpg', PICTURE, *options)
    middle = len(data) // 2
    for damaged in (
        data[: middle - lost // 2] + data[middle + lost // 2 :],
        data[: middle - lost // 2] + bytes(lost) + data[middle + lost // 2 :],
    ):
        assert damaged.endswith(b'\xff\xd9')
        with pytest.raises(ImageError, match='JPEG'):
            decode_pixels(damaged)
        with pytest.raises(ImageError, match='JPEG'):
            decode_labels(damaged)


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('part', [0.0, 0.002, 0.2, 0.6, 0.95])
def test_what_is_cut_short(suffix, part):
    data = encoded(suffix)
    with pytest.raises(ImageError):
        decode_pixels(data[: int(len(data) * part)])


def test_a_png_is_held_to_its_checksums_and_freed_of_what_is_no_pixel():
    data = encoded('.png')
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match='IDAT'):
        decode_pixels(bytes(flipped))
    talkative = (
        data[:33] + chunk(b'iCCP', b'x\0\0rubbish') + b'\0\0\0\1tEXtaXXXX' + chunk(b'acTL', bytes(8)) + data[33:]
    )
    assert np.array_equal(decode_pixels(talkative), opencv(data))
    length, *_ = struct.unpack('>I', data[33:37])
    endless = data[:33] + struct.pack('>I', 0xFFFFFFF0) + data[37:]
    assert length != 0xFFFFFFF0
    with pytest.raises(ImageError, match='cut short'):
        decode_pixels(endless)


@pytest.mark.parametrize(('depth', 'colour', 'channels'), [
    (1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (1, 3, 1), (2, 3, 1), (4, 3, 1),
    (8, 3, 1), (8, 4, 2), (16, 4, 2), (8, 6, 4), (16, 6, 4),
])  # fmt: skip
@pytest.mark.parametrize('width', [21, 32])
def test_every_form_of_png_by_opencvs_own_eyes(depth, colour, channels, width):
    rows = b''.join(b'\0' + RNG.bytes((width * channels * depth + 7) // 8) for _ in range(18))
    header = struct.pack('>IIBBBBB', width, 18, depth, colour, 0, 0, 0)
    palette = chunk(b'PLTE', RNG.bytes(3 * 2**depth)) if colour == 3 else b''
    whole = zlib.compress(rows)
    split = chunk(b'IDAT', whole[:40]) + chunk(b'IDAT', whole[40:])
    data = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + palette + split + chunk(b'IEND', b'')
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(decode_labels(data), theirs)
    assert np.array_equal(decode_pixels(data)[:, :, ::-1], cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH))  # fmt: skip


def test_an_interlaced_png():
    """Adam7 by hand: one level for each of the seven passes."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    expected = np.zeros((19, 21), np.uint8)
    rows = b''
    for level, (y, x, down, right) in enumerate(passes, 10):
        part = expected[y::down, x::right]
        part[:] = level
        rows += b''.join(b'\0' + row.tobytes() for row in part)
    header = struct.pack('>IIBBBBB', 21, 19, 8, 0, 0, 0, 1)
    start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
    data = start + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
    assert np.array_equal(decode_labels(data), expected)


def test_a_png_that_is_wrong_under_right_checksums_is_refused():

    def png(stream, interlaced=0, depth=8):
        header = struct.pack('>IIBBBBB', 32, 24, depth, 0, 0, 0, interlaced)
        return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', stream) + chunk(b'IEND', b'')

    row = b'\0' + bytes(32)
    wrong = [
        png(zlib.compress(row * 23)),
        png(zlib.compress(row * 23 + b'\x05' + bytes(32))),
        png(zlib.compress(row * 24)[:-9] + bytes(9)),
        png(b'\x78\x9c' + bytes(50)),
        png(b''),
        png(zlib.compress(row * 23), interlaced=1),
        png(zlib.compress(row * 24), depth=3),
    ]
    for data in wrong:
        with pytest.raises(ImageError):
            decode_pixels(data)
    assert decode_pixels(png(zlib.compress(row * 24))).shape == (24, 32, 3)


def test_sixteen_bits_stay_and_more_are_refused():
    deep = np.arange(240 * 320, dtype=np.uint16).reshape(240, 320) * 200
    for suffix in ('.png', '.tiff', '.pgm'):
        pixels = decode_pixels(encoded(suffix, deep))
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, np.dstack([deep] * 3))
        assert np.array_equal(decode_labels(encoded(suffix, deep)), deep)
    with pytest.raises(ImageError, match='float32'):
        decode_pixels(encoded('.tiff', PICTURE.astype(np.float32)))


def sized(kind, width, height):
    """A small file whose header promises a large picture."""
    jpeg = bytearray(encoded('.jpg', PICTURE[:32, :32]))
    place = jpeg.index(b'\xff\xc0') + 5
    jpeg[place : place + 4] = struct.pack('>HH', height & 0xFFFF, width & 0xFFFF)
    if kind == 'png':
        header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
        rows = zlib.compress(bytes(3 * width + 1) * 40)
        return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    return bytes(jpeg)


@pytest.mark.parametrize('kind', ['jpeg', 'png'])
@pytest.mark.parametrize('size', [(65500, 16000), (30000, 30000), (5000, 100), (100, 5000)])
def test_the_size_is_held_to_before_decoding(kind, size):
    data = sized(kind, *size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=f'size {size[0]}x{size[1]} is too large'):
        decode_pixels(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    with pytest.raises(ImageError, match='too small'):
        decode_pixels(encoded('.png', PICTURE[:15, :40]))


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_the_size_of_every_kind_is_held_to(suffix):
    wide = np.zeros((20, 5000, 3), np.uint8)
    for image, said in ((wide, '5000x20 is too large'), (wide[:, :12], '12x20')):
        with pytest.raises(ImageError, match=said):
            decode_pixels(encoded(suffix, image))


def test_opencv_takes_no_memory_for_what_states_too_many_pixels():
    data = bytearray(encoded('.tiff', PICTURE))
    start = struct.unpack_from('<I', data, 4)[0]
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from('<H', data, start)[0], 12):
        tag, kind = struct.unpack_from('<HH', data, place)
        if tag in {256, 257}:  # width and height
            struct.pack_into('<I' if kind == 4 else '<H', data, place + 8, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError):
        decode_pixels(bytes(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_jpeg_of_many_scans():
    data = encoded('.jpg', PICTURE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    start = data.rindex(b'\xff\xda')
    with pytest.raises(ImageError, match='scans'):
        decode_pixels(data[:start] + data[start:-2] * 200 + data[-2:])


@pytest.mark.parametrize(
    ('stated', 'kinds'),
    [
        ('jpeg', {'jpeg'}),
        ('jpg', {'jpeg'}),
        ('png', {'png'}),
        ('rgb8; jpeg compressed bgr8', {'jpeg'}),
        ('mono16; png compressed ', {'png'}),
        ('mono16; tiff compressed ', set()),
        ('JPEG', {'jpeg'}),
        ('', {'jpeg', 'png'}),
        ('rgb8', {'jpeg', 'png'}),
        ('h264', set()),
        ('gif', set()),
    ],
)
def test_what_a_format_field_allows(stated, kinds):
    assert stated_kinds(stated) == kinds


@pytest.mark.parametrize('suffix', ['.gif', '.hdr', '.jp2', '.avif'])
def test_other_codecs_are_not_tried(suffix):
    data = encoded(suffix, PICTURE.astype(np.float32) if suffix == '.hdr' else PICTURE)
    assert kind_of(data) == ''
    with pytest.raises(ImageError, match='not an image'):
        decode_pixels(data)


def test_decoders_write_nothing_to_stderr(tmp_path):
    """Their own lines would come at a camera's rate."""
    jpeg, png = encoded('.jpg'), encoded('.png')
    files = {
        'extra.jpg': jpeg[:-2] + b'\0\0' + jpeg[-2:],
        'middle.jpg': jpeg[:3000] + jpeg[9000:],
        'cut.jpg': jpeg[:5000],
        'cut.png': png[:5000],
        'profile.png': png[:33] + chunk(b'iCCP', b'x\0\0rubbish') + png[33:],
        'cut.tiff': encoded('.tiff')[:5000],
        'cut.webp': encoded('.webp')[:2000],
        'cut.bmp': encoded('.bmp')[:2000],
        'cut.ppm': encoded('.ppm')[:2000],
        'huge.png': sized('png', 30000, 30000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = (
        'import sys, pathlib\n'
        'from moving_object_detector.common.errors import ImageError\n'
        'from moving_object_detector.media.codecs import decode_pixels\n'
        'for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n'
        '    try:\n        decode_pixels(path.read_bytes()); print(path.name)\n'
        '    except ImageError:\n        pass\n'
    )
    done = subprocess.run([sys.executable, '-c', program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr == ''
    assert done.stdout.split() == ['extra.jpg', 'profile.png']
