"""Why nothing comes: what the real node says when no image arrives."""

from __future__ import annotations

import itertools
import re

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import LOSSLESS
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String


@pytest.fixture(scope='module')
def detect(start_detect):
    """With a reliable subscription, as the parameters say."""
    return start_detect({**LOSSLESS, 'input.timeout': 0.5})


@pytest.fixture
def advertise(detect):
    """Advertise topics for the length of a test."""
    publishers = []

    def begin(kind, topic, qos=10):
        publishers.append(detect.node.create_publisher(kind, topic, qos))
        return publishers[-1]

    yield begin
    for publisher in publishers:
        detect.node.destroy_publisher(publisher)


def wait_reason(detect, reason):
    """Wait until the diagnostics give a reason; the log repeats it only every ten seconds."""
    detect.wait_status(lambda message, _: reason in message, reason)
    assert detect.status.level == DiagnosticStatus.WARN


def test_nobody_publishes(detect):
    wait_reason(detect, 'nobody publishes /camera/image_raw; no image topic is published')


def test_another_topic_would_fit(detect, advertise):
    advertise(Image, '/front/image_raw')
    advertise(CompressedImage, '/front/image_raw/compressed')
    wait_reason(detect, '-r image:=/front/image_raw (ros2 run)')


def test_the_type_is_another(detect, advertise):
    advertise(String, '/camera/image_raw')
    wait_reason(
        detect, '/bench publishes /camera/image_raw as std_msgs/msg/String, but this node needs sensor_msgs/msg/Image'
    )


def test_the_quality_of_service_does_not_match(detect, advertise):
    publisher = advertise(Image, '/camera/image_raw', qos_profile_sensor_data)
    wait_reason(detect, 'the QoS of /bench on /camera/image_raw does not match')
    assert 'qos_overrides./camera/image_raw.subscription.reliability' in detect.status.message
    detect.wait_status(lambda _, values: values['publishers with another QoS'] == '1', 'the mismatch counted')
    publisher.publish(detect.message())
    detect.wait_status(lambda _, values: values['frames received'] == '0', 'nothing received')


def test_all_matches_but_nothing_is_sent(detect, advertise):
    publisher = advertise(Image, '/camera/image_raw', QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
    wait_reason(detect, '/bench advertises /camera/image_raw with a QoS that matches, but nothing has arrived')
    lines = len(detect.lines)
    detect.wait_line(
        r'images are arriving again on /camera/image_raw', lines, lambda: publisher.publish(detect.message())
    )


def test_it_is_logged_every_ten_seconds(detect):
    pattern = r'\[WARN\] \[([0-9.]+)\] \[detect\]: no image for \d+ s: '

    def moments():
        return [float(found[1]) for found in (re.search(pattern, line) for line in detect.lines) if found]

    detect.wait(lambda: len(moments()) > 1, 'reminder')
    assert all(later - earlier > 9 for earlier, later in itertools.pairwise(moments()))
