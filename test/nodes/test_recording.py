"""Stamps in serialised messages against those that rosbags writes."""

from __future__ import annotations

import pytest

pytest.importorskip('sensor_msgs', reason="ROS 2's message packages are not installed here")
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.nodes.record import header_stamp


def test_header_stamps_are_found_in_serialised_messages():
    types = get_typestore(Stores.ROS2_JAZZY)
    for stamp in (1, 1_700_000_000_123_456_789, 2**31 * 10**9 - 1):
        moment = types.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
        message = types.types['std_msgs/msg/Header'](stamp=moment, frame_id='x')
        for little in (True, False):
            data = bytes(types.serialize_cdr(message, 'std_msgs/msg/Header', little_endian=little))
            assert header_stamp(data) == stamp
