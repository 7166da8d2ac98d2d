"""Masks in messages, against arrays laid out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.messages import decode_mask, is_jpeg

TRUTH = np.zeros((6, 8), bool)
TRUTH[1:4, 2:7] = True
TRUTH[5, 0] = True


def raw(samples, encoding, *, padding=3, big=False):
    """A sensor_msgs/Image of an array (H, W) or (H, W, C) with rows padded by rubbish."""
    samples = samples.astype(samples.dtype.newbyteorder('>' if big else '<'))
    rows = np.ascontiguousarray(samples).view(np.uint8).reshape(samples.shape[0], -1)
    padded = np.hstack([rows, np.full((rows.shape[0], padding), 0xEE, np.uint8)])
    return SimpleNamespace(
        height=samples.shape[0],
        width=samples.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


@pytest.mark.parametrize(
    ('encoding', 'kind', 'value'),
    [
        ('mono8', np.uint8, 255), ('mono8', np.uint8, 1), ('8UC1', np.uint8, 7), ('8SC1', np.int8, -1),
        ('mono16', np.uint16, 1), ('16UC1', np.uint16, 256), ('16SC1', np.int16, -2), ('32SC1', np.int32, 65536),
        ('32FC1', np.float32, 0.25), ('64FC1', np.float64, 1e-9),
    ],
)  # fmt: skip
@pytest.mark.parametrize('big', [False, True])
def test_any_value_but_zero_is_object(encoding, kind, value, big):
    samples = np.where(TRUTH, value, 0).astype(kind)
    np.testing.assert_array_equal(decode_mask(raw(samples, encoding, big=big)), TRUTH)


def test_minus_zero_is_zero():
    samples = np.where(TRUTH, np.float32(1), np.float32(-0.0))
    np.testing.assert_array_equal(decode_mask(raw(samples, '32FC1')), TRUTH)


@pytest.mark.parametrize('channel', [0, 1, 2])
@pytest.mark.parametrize(
    ('encoding', 'channels'), [('rgb8', 3), ('bgra8', 4), ('8UC3', 3), ('16UC4', 4), ('rgba16', 4)]
)
def test_any_colour_is_object_and_opacity_is_not(encoding, channels, channel):
    samples = np.zeros((*TRUTH.shape, channels), np.uint16 if '16' in encoding else np.uint8)
    samples[TRUTH, channel] = 3
    if channels == 4:
        samples[:, :, 3] = 255
    np.testing.assert_array_equal(decode_mask(raw(samples, encoding)), TRUTH)


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_png(kind):
    data = cv2.imencode('.png', TRUTH.astype(kind))[1].reshape(-1)
    message = SimpleNamespace(format='mono8; png compressed', data=data)
    np.testing.assert_array_equal(decode_mask(message), TRUTH)
    assert not is_jpeg(message)


def test_jpeg_is_cut_at_half():
    large = np.kron(TRUTH, np.ones((16, 16), bool))
    data = cv2.imencode('.jpg', large.astype(np.uint8) * 255, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].reshape(-1)
    message = SimpleNamespace(format='jpeg', data=data)
    assert is_jpeg(message)
    np.testing.assert_array_equal(decode_mask(message), large)


def test_a_mosaic_is_read_as_a_picture():
    assert not decode_mask(raw(np.zeros((6, 8), np.uint8), 'bayer_rggb8')).any()


def test_what_cannot_be_read_is_told():
    image = raw(TRUTH.astype(np.uint8), 'mono8')
    image.data = image.data[:20]
    with pytest.raises(ImageError, match='cut short'):
        decode_mask(image)
    with pytest.raises(ImageError, match="'strange' is not supported"):
        decode_mask(raw(TRUTH.astype(np.uint8), 'strange'))
    for data in (b'', b'nothing', b'\xff\xd8\xff'):
        with pytest.raises(ImageError, match='compressed image'):
            decode_mask(SimpleNamespace(format='png', data=np.frombuffer(data, np.uint8)))
