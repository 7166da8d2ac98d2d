"""Images into messages and back, by our own table and by cv_bridge."""

from __future__ import annotations

import importlib.machinery
import sys
from array import array

import numpy as np
import pytest

pytest.importorskip('sensor_msgs', reason="ROS 2's message packages are not installed here")
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.messages import decode_compressed, decode_image
from moving_object_detector.nodes.messages import BRIDGED, bridge, compressed_message, image_message, read_image


@pytest.fixture
def table_only(monkeypatch):
    monkeypatch.setattr('moving_object_detector.nodes.messages.bridge', lambda: None)


@pytest.fixture
def with_bridge():
    if bridge() is None:
        pytest.skip('no cv_bridge that this NumPy can load is installed here: it comes with a distribution')


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8'])
def test_pixels_arrive_and_are_a_copy(pictures, encoding):
    picture = pictures[0].copy()
    header = Header(frame_id='left')
    header.stamp.sec = 5
    message = image_message(picture, encoding, header)
    picture[:] = 0
    np.testing.assert_array_equal(decode_image(message), pictures[0])
    assert (message.encoding, message.step, message.is_bigendian) == (encoding, 48 * 3, 0)
    assert (message.header.frame_id, message.header.stamp.sec) == ('left', 5)


def test_flow_and_probability():
    flow = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
    message = image_message(flow, '32FC2', Header())
    np.testing.assert_array_equal(np.frombuffer(message.data, '<f4').reshape(3, 4, 2), flow)
    assert (message.height, message.width, message.step) == (3, 4, 32)
    message = image_message(flow[..., 1], '32FC1', Header())
    np.testing.assert_array_equal(np.frombuffer(message.data, '<f4').reshape(3, 4), flow[..., 1])


def test_jpeg(pictures):
    message = compressed_message(encode_jpeg(pictures[2]), Header())
    assert message.format == 'jpeg'
    assert np.abs(decode_compressed(message).astype(int) - pictures[2]).mean() < 8


def raw(encoding: str, height: int, width: int, padding: int = 0, **fields) -> Image:
    step = width * BRIDGED[encoding] + padding
    data = np.random.default_rng(8).integers(0, 256, height * step, np.uint8)
    return Image(encoding=encoding, height=height, width=width, step=step, data=array('B', data.tobytes()), **fields)


@pytest.mark.usefixtures('with_bridge')
@pytest.mark.parametrize('encoding', BRIDGED)
def test_cv_bridge_reads_as_the_table_does(encoding):
    for size in ((32, 48), (17, 6), (3, 4), (9, 8)):
        for message in (raw(encoding, *size), raw(encoding, *size, padding=4), raw(encoding, *size, is_bigendian=1)):
            image = read_image(message)
            np.testing.assert_array_equal(image, decode_image(message))
            assert image.flags.owndata
            assert image.flags.c_contiguous


@pytest.mark.usefixtures('with_bridge')
@pytest.mark.parametrize(('encoding', 'shape', 'kind'), [
    ('rgb8', (5, 7, 3), np.uint8), ('bgr8', (5, 7, 3), np.uint8), ('mono8', (5, 7), np.uint8),
    ('32FC1', (5, 7), np.float32), ('32FC2', (5, 7, 2), np.float32),
])  # fmt: skip
def test_cv_bridge_writes_as_the_table_does(encoding, shape, kind, monkeypatch):
    pixels = np.random.default_rng(4).integers(0, 256, shape).astype(kind)
    theirs = image_message(pixels, encoding, Header(frame_id='left'))
    monkeypatch.setattr('moving_object_detector.nodes.messages.bridge', lambda: None)
    assert theirs == image_message(pixels, encoding, Header(frame_id='left'))


@pytest.mark.parametrize(('names', 'numpy', 'usable'), [
    (b'numpy.core.multiarray', '1.26.4', True), (b'numpy.core.multiarray', '2.2.6', False),
    (b'numpy._core numpy.core', '2.2.6', True), (b'numpy._core numpy.core', '1.26.4', True),
])  # fmt: skip
def test_a_cv_bridge_that_would_crash_is_not_loaded(names, numpy, usable, tmp_path, monkeypatch):
    compiled = tmp_path / 'cv_bridge' / 'boost' / f'cv_bridge_boost{importlib.machinery.EXTENSION_SUFFIXES[0]}'
    compiled.parent.mkdir(parents=True)
    compiled.write_bytes(b'\x7fELF' + names)
    (tmp_path / 'cv_bridge' / '__init__.py').write_text('class CvBridge: pass\n')
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.partition('.')[0] == 'cv_bridge']:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(np, '__version__', numpy)
    bridge.cache_clear()
    try:
        assert (type(bridge()).__name__ == 'CvBridge') == usable
    finally:
        bridge.cache_clear()
        for module in [name for name in sys.modules if name.partition('.')[0] == 'cv_bridge']:
            del sys.modules[module]


@pytest.mark.usefixtures('table_only')
def test_without_cv_bridge_the_table_reads():
    message = raw('bgr8', 4, 6)
    np.testing.assert_array_equal(read_image(message), decode_image(message))
