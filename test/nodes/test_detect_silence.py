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
    wait_reason(
        detect,
        'nobody publishes /image; image topics that are published: none; start the camera, and check ROS_DOMAIN_ID',
    )


def test_only_compressed_is_published(detect, advertise):
    advertise(CompressedImage, '/image/compressed')
    wait_reason(
        detect, 'nobody publishes /image; /image/compressed is published: set the parameter transport to compressed'
    )


def test_another_topic_would_fit(detect, advertise):
    advertise(Image, '/front/image_raw')
    advertise(CompressedImage, '/front/image_raw/compressed')
    wait_reason(
        detect,
        'nobody publishes /image; /front/image_raw would fit: start with the argument image_topic:=/front/image_raw '
        '(ros2 launch) or -r image:=/front/image_raw (ros2 run)',
    )


def test_the_type_is_another(detect, advertise):
    advertise(String, '/image')
    advertise(Image, '/front/image_raw')
    wait_reason(
        detect,
        '/bench publishes /image as std_msgs/msg/String, but sensor_msgs/msg/Image is needed; /front/image_raw would',
    )


def test_the_quality_of_service_does_not_match(detect, advertise):
    publisher = advertise(Image, '/image', qos_profile_sensor_data)
    detect.wait_status(lambda message, _: 'Best effort publisher and reliable subscription' in message, 'the policy')
    assert 'the QoS of /bench on /image does not match' in detect.status.message
    assert 'start again with -p qos_overrides./image.subscription.reliability:=best_effort' in detect.status.message
    publisher.publish(detect.message())
    detect.wait_status(lambda _, values: values['frames received'] == '0', 'nothing received')


def test_all_matches_but_nothing_is_sent(detect, advertise):
    publisher = advertise(Image, '/image', QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
    wait_reason(detect, '/bench advertises /image with a QoS that matches, but sends nothing; is the camera running?')
    lines = len(detect.lines)
    detect.wait_line(r'images come again on /image', lines, lambda: publisher.publish(detect.message()))


def test_it_is_logged_every_ten_seconds(detect):
    pattern = r'\[WARN\] \[([0-9.]+)\] \[detect\]: no image for \d+ s: '

    def moments():
        return [float(found[1]) for found in (re.search(pattern, line) for line in detect.lines) if found]

    detect.wait(lambda: len(moments()) > 1, 'reminder')
    assert all(later - earlier > 9 for earlier, later in itertools.pairwise(moments()))


def test_the_raw_topic_is_there_instead_of_the_compressed(start_detect):
    arguments = ['-r', '__node:=other', '-r', 'image:=/front/image_raw']
    detect = start_detect({'transport': 'compressed', 'input.timeout': 0.5}, arguments, node='/other')
    publisher = detect.node.create_publisher(Image, '/front/image_raw', 10)
    reason = (
        'nobody publishes /front/image_raw/compressed; /front/image_raw is published: set the parameter transport to'
    )
    detect.wait_status(lambda message, _: reason in message, reason)
    detect.node.destroy_publisher(publisher)
