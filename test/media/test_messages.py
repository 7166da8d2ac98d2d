"""Every encoding against pixels worked out by hand or by its definition."""

from __future__ import annotations

import array
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.messages import (
    SUPPORTED_ENCODINGS,
    decode_image,
    decode_message,
    encode_image,
)

# 2 rows of 4 pixels: red, green, blue, white; black, grey, orange, teal.
RGB = np.array(
    [
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]],
        [[0, 0, 0], [90, 90, 90], [250, 140, 20], [10, 120, 130]],
    ],
    np.uint8,
)
GREY = np.array([[0, 50, 100, 255], [1, 2, 3, 254]], np.uint8)
# Not too small for a file.
LARGE_RGB, LARGE_GREY = RGB.repeat(16, 0).repeat(16, 1), GREY.repeat(16, 0).repeat(16, 1)


def message(encoding, rows, *, width, height=None, padding=0, big=False, data=array.array):
    """Build a message from rows of bytes, each followed by ``padding`` bytes of rubbish."""
    content = b''.join(bytes(row) + b'\xaa' * padding for row in rows)
    data = {array.array: lambda: array.array('B', content), bytes: lambda: content}.get(
        data, lambda: np.frombuffer(content, np.uint8)
    )()
    step = len(bytes(rows[0])) + padding
    return SimpleNamespace(
        height=height or len(rows), width=width, encoding=encoding, is_bigendian=int(big), step=step, data=data
    )


def yuv_to_rgb(y, u, v):
    """ITU-R BT.601 with limited range, as cameras send it."""
    luma = 1.164383 * (y - 16)
    red = luma + 1.596027 * (v - 128)
    green = luma - 0.391762 * (u - 128) - 0.812968 * (v - 128)
    blue = luma + 2.017232 * (u - 128)
    return np.clip(np.round([red, green, blue]), 0, 255)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('data', [array.array, bytes, np.ndarray])
@pytest.mark.parametrize(('encoding', 'order'), [('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0]), ('8UC3', [2, 1, 0])])
def test_three_channels(encoding, order, data, padding):
    image = decode_image(message(encoding, RGB[..., order], width=4, padding=padding, data=data))
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize(('encoding', 'order'), [('rgba8', [0, 1, 2]), ('bgra8', [2, 1, 0]), ('8UC4', [2, 1, 0])])
def test_alpha_is_dropped(encoding, order, padding):
    pixels = np.dstack([RGB[..., order], np.full((2, 4), 7, np.uint8)])
    np.testing.assert_array_equal(decode_image(message(encoding, pixels, width=4, padding=padding)), RGB)


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey(encoding, padding):
    image = decode_image(message(encoding, GREY, width=4, padding=padding))
    np.testing.assert_array_equal(image, np.dstack([GREY] * 3))


def linear(black, white):
    """What makes 8 bits of 16, with these levels shown as 0 and 255."""

    def scale(samples):
        eight = np.rint((samples.astype(float) - black) * 255 / (white - black)).clip(0, 255).astype(np.uint8)
        return samples if samples.dtype == np.uint8 else eight

    return scale


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
def test_grey_of_16_bit_in_both_byte_orders(encoding, big, padding):
    samples = np.array([[1000, 1010, 1100, 2000], [1255, 3000, 3550, 60000]], np.uint16)
    rows = [row.astype('>u2' if big else '<u2').tobytes() for row in samples]
    image = decode_image(message(encoding, rows, width=4, big=big, padding=padding), linear(1000, 3550))
    expected = np.array([[0, 1, 10, 100], [26, 200, 255, 255]], np.uint8)  # ten levels a step
    np.testing.assert_array_equal(image, np.dstack([expected] * 3))


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(('encoding', 'order'), [('rgb16', [0, 1, 2]), ('bgr16', [2, 1, 0])])
def test_colours_of_16_bit(encoding, order, big):
    samples = RGB[..., order].astype(np.uint16) * 256 + 99
    rows = [row.astype('>u2' if big else '<u2').tobytes() for row in samples]
    raw = message(encoding, rows, width=4, big=big, padding=6)
    np.testing.assert_array_equal(decode_image(raw, linear(99, 99 + 255 * 256)), RGB)


@pytest.mark.parametrize('depth', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_bayer_mosaic_of_one_colour(pattern, depth):
    colour = {'r': 200, 'g': 100, 'b': 50}
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (3, 4)).astype('<u2' if depth == 16 else np.uint8)
    rows = [(row * 256).tobytes() if depth == 16 else row.tobytes() for row in mosaic]
    image = decode_image(message(f'bayer_{pattern}{depth}', rows, width=8, padding=3), linear(0, 255 * 256))
    np.testing.assert_array_equal(image, np.broadcast_to(np.array([200, 100, 50], np.uint8), (6, 8, 3)))


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_yuv422(encoding, padding):
    luma = np.array([[81, 200, 16, 235], [60, 120, 180, 90]])
    chroma = np.array([[[90, 240], [128, 128]], [[240, 110], [54, 34]]])  # (u, v) of each pair of pixels
    rows = []
    for y, pairs in zip(luma, chroma, strict=True):
        row = []
        for k, (u, v) in enumerate(pairs):
            first, second = y[2 * k], y[2 * k + 1]
            row += [u, first, v, second] if encoding in {'yuv422', 'uyvy'} else [first, u, second, v]
        rows.append(bytes(int(sample) for sample in row))
    image = decode_image(message(encoding, rows, width=4, padding=padding)).astype(int)
    expected = np.array([[yuv_to_rgb(luma[i, j], *chroma[i, j // 2]) for j in range(4)] for i in range(2)])
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('encoding', ['nv12', 'nv21'])
def test_nv12_and_nv21(encoding, padding):
    luma = np.array([[81, 200, 16, 235], [60, 120, 180, 90]])
    chroma = [(90, 240), (54, 34)]  # (u, v) of each block of 2x2
    plane = [value for u, v in chroma for value in ((u, v) if encoding == 'nv12' else (v, u))]
    rows = [bytes(luma[0].tolist()), bytes(luma[1].tolist()), bytes(plane)]
    image = decode_image(message(encoding, rows, width=4, height=2, padding=padding)).astype(int)
    expected = np.array([[yuv_to_rgb(luma[i, j], *chroma[j // 2]) for j in range(4)] for i in range(2)])
    assert np.abs(image - expected).max() <= 2


@pytest.mark.parametrize('encoding', SUPPORTED_ENCODINGS)
def test_every_supported_encoding_decodes_a_camera_image(encoding):
    # Rows long enough for the widest encoding: to the others the rest is padding.
    raw = message(encoding, [bytes(64 * 8)] * 72, width=64, height=48)
    assert decode_image(raw).shape == (48, 64, 3)


def test_result_owns_its_memory():
    for encoding in ('rgb8', 'bgr8'):
        raw = message(encoding, RGB, width=4)
        image = decode_image(raw)
        before = image.copy()
        raw.data[:] = array.array('B', bytes(len(raw.data)))
        np.testing.assert_array_equal(image, before)
        image[0, 0] = 1  # writable: rosbags' messages are not


def test_one_pixel_and_a_very_large_image():
    np.testing.assert_array_equal(decode_image(message('rgb8', [b'\x01\x02\x03'], width=1)), [[[1, 2, 3]]])
    large = np.zeros((6000, 8000), np.uint8)
    large[5999, 7999] = 9
    raw = SimpleNamespace(height=6000, width=8000, encoding='mono8', is_bigendian=0, step=8000, data=large.reshape(-1))
    assert decode_image(raw)[5999, 7999].tolist() == [9, 9, 9]


def test_data_beyond_the_image_is_ignored_and_the_last_padding_may_lack():
    raw = message('rgb8', RGB, width=4, padding=5)
    raw.data = raw.data[:-5]
    np.testing.assert_array_equal(decode_image(raw), RGB)
    raw = message('rgb8', RGB, width=4)
    raw.data.extend(b'rubbish')
    np.testing.assert_array_equal(decode_image(raw), RGB)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'encoding': '32FC1'}, ["'32FC1'", 'rgb8', 'mono8']),
        ({'encoding': ''}, ["''", 'not supported']),
        ({'height': 0}, ['size zero', '4x0']),
        ({'width': 0}, ['size zero', '0x2']),
        ({'step': 11}, ['step is 11', '12 bytes', '12 or more']),
        ({'step': 0}, ['step is 0']),
        ({'data': array.array('B', bytes(23))}, ['23 bytes', '24', 'cut short']),
        ({'data': array.array('B')}, ['0 bytes', 'cut short']),
        ({'data': b''}, ['0 bytes', 'cut short']),
        ({'encoding': 'yuv422', 'width': 3}, ['even width', '3x2']),
        ({'encoding': 'nv12', 'height': 1}, ['even', '4x1']),
        ({'encoding': 'bayer_rggb8', 'step': 4}, ['3x3', '4x2']),
        ({'encoding': 'mono16', 'width': 7}, ['step is 12', '14']),
        ({'height': 1_000_000}, ['24 bytes', '12000000']),
    ],
)
def test_bad_messages_are_refused_with_the_values(changes, words):
    raw = message('rgb8', RGB, width=4)
    for name, value in changes.items():
        setattr(raw, name, value)
    with pytest.raises(ImageError) as caught:
        decode_image(raw)
    for word in words:
        assert word in str(caught.value)


def compressed(suffix, pixels, wrap=lambda data: array.array('B', data)):
    return SimpleNamespace(format=suffix, data=wrap(cv2.imencode(suffix, pixels)[1].tobytes()))


@pytest.mark.parametrize(
    'wrap', [lambda data: array.array('B', data), bytes, lambda data: np.frombuffer(data, np.uint8)]
)
def test_png_in_colour(wrap):
    np.testing.assert_array_equal(decode_message(compressed('.png', LARGE_RGB[..., ::-1], wrap)), LARGE_RGB)


def test_png_grey_16_bit_and_transparent():
    np.testing.assert_array_equal(decode_message(compressed('.png', LARGE_GREY)), np.dstack([LARGE_GREY] * 3))
    deep = LARGE_GREY.astype(np.uint16) * 256 + 200
    scaled = decode_message(compressed('.png', deep), linear(200, 200 + 255 * 256))
    np.testing.assert_array_equal(scaled, np.dstack([LARGE_GREY] * 3))
    transparent = np.dstack([LARGE_RGB[..., ::-1], np.zeros((32, 64), np.uint8)])
    np.testing.assert_array_equal(decode_message(compressed('.png', transparent)), LARGE_RGB)


def test_jpeg_in_colour_and_grey(pictures):
    image = decode_message(SimpleNamespace(format='jpeg', data=encode_jpeg(pictures[0], quality=95)))
    assert np.abs(image.astype(int) - pictures[0]).mean() < 4
    grey = pictures[0][..., 0]
    image = decode_message(compressed('.jpg', grey))
    assert np.abs(image.astype(int) - grey[..., None]).mean() < 4
    assert (image[..., 0] == image[..., 2]).all()


def test_orientation_in_a_jpeg_is_not_applied(pictures):
    plain = encode_jpeg(pictures[0]).tobytes()
    # A TIFF directory with one entry: orientation (0x0112), one short, 6 = rotated by 90 degrees.
    directory = b'Exif\0\0II*\0' + struct.pack('<IHHHIHHI', 8, 1, 0x0112, 3, 1, 6, 0, 0)
    rotated = plain[:2] + b'\xff\xe1' + struct.pack('>H', len(directory) + 2) + directory + plain[2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (48, 32, 3)
    assert decode_message(SimpleNamespace(format='jpeg', data=rotated)).shape == (32, 48, 3)


@pytest.mark.parametrize(
    ('data', 'words'),
    [
        (b'', ['empty']),
        (b'this is no image', ["'jpeg'", '16 bytes', 'does not decode']),
        (b'\xff\xd8\xff\xe0', ["'jpeg'", '4 bytes']),
    ],
)
def test_what_does_not_decode_is_refused(data, words):
    with pytest.raises(ImageError) as caught:
        decode_message(SimpleNamespace(format='jpeg', data=data))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('part', [0.2, 0.6, 0.95])
def test_compressed_images_that_are_cut_short_are_refused(pictures, suffix, part):
    whole = compressed(suffix, pictures[0]).data
    with pytest.raises(ImageError, match='compressed image'):
        decode_message(SimpleNamespace(format=suffix, data=whole[: int(len(whole) * part)]))


def test_encode_image_lays_out_what_the_encoding_says():
    assert bytes(encode_image(RGB, 'rgb8').data[:6]) == b'\xff\x00\x00\x00\xff\x00'
    assert bytes(encode_image(RGB, 'bgr8').data[:6]) == b'\x00\x00\xff\x00\xff\x00'
    flow = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    fields = encode_image(flow, '32FC2')
    assert (fields.height, fields.width, fields.step) == (2, 3, 24)
    assert struct.unpack('<4f', bytes(fields.data[:16])) == (0, 1, 2, 3)
    assert encode_image(flow[..., 0], '32FC1').step == 12
    assert encode_image(GREY[:, ::2], 'mono8').data.tolist() == [0, 100, 1, 3]


@pytest.mark.parametrize(
    ('pixels', 'encoding'), [(GREY, 'rgb8'), (RGB, 'mono8'), (GREY, '32FC1'), (RGB.astype(np.float32), 'bgr8')]
)
def test_encode_image_refuses_what_does_not_fit(pixels, encoding):
    with pytest.raises(ValueError, match=encoding):
        encode_image(pixels, encoding)


def test_decode_undoes_encode(pictures):
    for encoding in ('rgb8', 'bgr8'):
        fields = SimpleNamespace(**encode_image(pictures[1], encoding)._asdict(), is_bigendian=0)
        np.testing.assert_array_equal(decode_image(fields), pictures[1])
