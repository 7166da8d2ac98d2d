"""Definitions made from ROS's classes against the hashes that rosbags carries."""

from __future__ import annotations

import pytest

pytest.importorskip('sensor_msgs', reason="ROS 2's message packages are not installed here")
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.record import header_stamp, register_type


@pytest.mark.parametrize(
    'name',
    [
        'sensor_msgs/msg/Image',
        'sensor_msgs/msg/CameraInfo',  # fixed arrays
        'diagnostic_msgs/msg/DiagnosticArray',  # nested sequences, constants
        'geometry_msgs/msg/PoseWithCovariance',
        'std_msgs/msg/Float32MultiArray',
        'std_msgs/msg/Byte',
        'std_msgs/msg/Bool',
        'std_msgs/msg/String',
        'rcl_interfaces/msg/ParameterDescriptor',  # bounded sequences
    ],
)
def test_hashes_agree(name):
    made = get_typestore(Stores.EMPTY)
    register_type(made, name)
    assert made.hash_rihs01(name) == get_typestore(Stores.ROS2_JAZZY).hash_rihs01(name)


@pytest.mark.parametrize('name', ['nobody_msgs/msg/Thing', 'sensor_msgs/msg/Thing', 'nonsense'])
def test_types_that_are_not_there(name):
    with pytest.raises(UserError, match='not installed'):
        register_type(get_typestore(Stores.EMPTY), name)


def test_header_stamps_are_found_in_serialised_messages():
    types = get_typestore(Stores.ROS2_JAZZY)
    for stamp in (1, 1_700_000_000_123_456_789, 2**31 * 10**9 - 1):
        moment = types.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
        message = types.types['std_msgs/msg/Header'](stamp=moment, frame_id='x')
        for little in (True, False):
            data = bytes(types.serialize_cdr(message, 'std_msgs/msg/Header', little_endian=little))
            assert header_stamp(data) == stamp
