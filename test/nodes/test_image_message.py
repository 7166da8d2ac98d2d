"""Images into messages and back."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('sensor_msgs', reason="ROS 2's message packages are not installed here")
from rclpy.serialization import serialize_message
from std_msgs.msg import Header

from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.messages import decode_image, decode_message
from moving_object_detector.nodes.messages import compressed_message, image_message, read_message


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
    assert np.abs(decode_message(message).astype(int) - pictures[2]).mean() < 8


@pytest.mark.parametrize('compressed', [False, True])
def test_a_message_is_read_as_rclpy_reads_it(pictures, compressed):
    header = Header(frame_id='links ä')
    header.stamp.sec, header.stamp.nanosec = -5, 7
    kind = 'CompressedImage' if compressed else 'Image'
    build = compressed_message if compressed else image_message
    message = build(*([encode_jpeg(pictures[1])] if compressed else [pictures[1], 'bgr8']), header)
    found = read_message(f'sensor_msgs/msg/{kind}', bytes(serialize_message(message)))
    assert found.data.tobytes() == message.data.tobytes()
    for name in ('format',) if compressed else ('height', 'width', 'encoding', 'step', 'is_bigendian'):
        assert getattr(found, name) == getattr(message, name)
    assert (found.header.frame_id, found.header.stamp.sec, found.header.stamp.nanosec) == ('links ä', -5, 7)
