"""The real node among others: namespaces, simulated time, quality of service."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import scene
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image


@pytest.fixture(scope='module')
def cameras(start_detect):
    """Two nodes, each in the namespace of its camera; the front one on simulated time, with overrides."""
    front = start_detect(
        {
            'use_sim_time': True,
            'input.timeout': 1.0,
            'qos_overrides./front/camera/image_raw.subscription.depth': 600,
            'qos_overrides./front/camera/image_raw.subscription.reliability': 'reliable',
            'qos_overrides./front/detect/mask.publisher.reliability': 'best_effort',
            'qos_overrides./front/detect/mask.publisher.depth': 3,
        },
        ['-r', '__ns:=/front'],
        node='/front/detect',
        topic='/front/camera/image_raw',
    )
    rear = start_detect(
        {'input.timeout': 1.0}, ['-r', '__ns:=/rear'], node='/rear/detect', topic='/rear/camera/image_raw'
    )
    return front, rear


def test_it_starts_though_simulated_time_stands_still(cameras):
    front, _ = cameras
    front.wait_line('active: waiting for images on /front/camera/image_raw')
    # So does the watch over the images.
    front.wait_line(r'no image for \d+ s: nobody publishes /front/camera/image_raw')
    front.wait_status(lambda _, values: values['state'] == 'active', 'active')


def test_qos_of_each_topic_is_what_the_parameters_say(cameras):
    front, rear = cameras
    rear.wait_line('active: waiting for images on /rear/camera/image_raw')

    def offered(bench, topic):
        (info,) = bench.node.get_publishers_info_by_topic(topic)
        return info.qos_profile.reliability

    def asked(bench, topic):
        (info,) = bench.node.get_subscriptions_info_by_topic(topic)
        return info.qos_profile.reliability

    front.wait(lambda: front.node.count_publishers('/rear/detect/mask'), 'discovery')
    assert offered(front, '/front/detect/mask') == ReliabilityPolicy.BEST_EFFORT
    assert offered(front, '/rear/detect/mask') == ReliabilityPolicy.RELIABLE
    assert offered(front, '/front/detect/overlay') == ReliabilityPolicy.RELIABLE
    assert asked(front, '/front/camera/image_raw') == ReliabilityPolicy.RELIABLE
    # Until somebody publishes with best effort.
    assert asked(front, '/rear/camera/image_raw') == ReliabilityPolicy.RELIABLE


def test_neither_answers_for_the_other(cameras):
    front, rear = cameras
    front.masks = front.subscribe(Image, '/front/detect/mask', qos_profile_sensor_data)
    rear.masks = rear.subscribe(Image, '/rear/detect/mask')
    small = [scene(index, (64, 80)) for index in range(20)]
    rear.stamp = 5 * 10**12
    front.wait(lambda: front.masks, 'mask', meanwhile=front.send)
    rear.wait(lambda: rear.masks, 'mask', meanwhile=lambda: rear.send(small[rear.index % 20]))
    front.afresh(quiet=1.5)
    rear.afresh(quiet=1.5)
    for index in range(4):
        front.show()
        rear.show(images=[small[index]])
    front.wait(lambda: len(front.masks) == 4, 'four masks')
    rear.wait(lambda: len(rear.masks) == 4, 'four masks')
    assert front.check_masks() == list(front.sent)
    assert rear.check_masks() == list(rear.sent)
    assert {(mask.height, mask.width) for mask in front.masks} == {(96, 128)}
    assert {(mask.height, mask.width) for mask in rear.masks} == {(64, 80)}


def test_simulated_time_runs_and_jumps_back(cameras):
    front, _ = cameras
    clock = front.node.create_publisher(Clock, '/clock', 10)
    front.afresh()

    def play(second):
        front.stamp = second * 10**9
        for _ in range(3):
            tick = Clock()
            tick.clock.sec, tick.clock.nanosec = divmod(front.stamp, 10**9)
            clock.publish(tick)
            front.show()

    def told(second):
        front.wait(lambda: abs(front.moment - second) < 2, f'status of simulated second {second}')

    play(500)
    told(500)
    play(100)
    told(100)
    front.wait(lambda: len(front.masks) == 6, 'a mask for each image')
    front.check_masks()
    front.wait_line('detection restarts: the image is older than the frame before it; does a bag loop')
    # Without a stamp: the simulated time stands still, so all but the first repeat.
    front.afresh()
    for _ in range(4):
        front.send(stamp=0)
    front.wait_line('image ignored: it has the stamp of the frame before it; .*does the clock stand still')
    front.node.destroy_publisher(clock)


@pytest.mark.parametrize(
    ('override', 'refused'),
    [
        ('/detect/overlay.publisher.reliability:=sometimes', 'configure'),
        ('/camera/image_raw.subscription.depth:=deep', 'activate'),
        ('/camera/image_raw.subscription.depth:=5.0', 'activate'),
    ],
)
def test_a_wrong_override_is_refused(start_detect, override, refused):
    detect = start_detect({}, ['-p', f'qos_overrides.{override}'])
    name, _, value = override.partition(':=')
    line = detect.wait_line(rf'{refused} refused: .*qos_overrides\.{name} .*{value}')
    # They are read at the start, so setting the parameter would not help.
    assert 'ros2 param set' not in line
    detect.wait_status(lambda message, _: 'reliability takes reliable or best_effort' in message, 'the reason')
    assert detect.node.count_publishers('/detect/mask') == int(refused == 'activate')
    detect.end()
    assert detect.process.returncode == 0


def test_an_override_for_no_topic_of_the_node_is_said(start_detect):
    given = {'qos_overrides./camera/image_row.subscription.depth': 3, 'qos_overrides./detect/mask.publisher.depth': 3}
    detect = start_detect(given)
    detect.wait_line(r'qos_overrides\./camera/image_row\.subscription\.depth has no effect: .*/camera/image_raw')
    assert not [line for line in detect.lines if 'qos_overrides./detect/mask' in line]


def test_arguments_that_ros_does_not_take(ros_environment):
    for arguments in (['-r', 'nonsense'], ['--params-file', 'nowhere.yaml'], ['-p', 'a']):
        command = [sys.executable, '-m', 'moving_object_detector.programs', 'detect', '--ros-args', *arguments]
        done = subprocess.run(command, env=ros_environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert 'error: ROS does not accept' in done.stderr
        assert 'Traceback' not in done.stderr


def test_a_profile_for_dds_that_does_not_exist(ros_environment):
    command = [sys.executable, '-m', 'moving_object_detector.programs', 'detect']
    environment = ros_environment | {'FASTDDS_DEFAULT_PROFILES_FILE': '/no/such/fastdds.xml'}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert re.search(r'FASTDDS_DEFAULT_PROFILES_FILE .*/no/such/fastdds\.xml', done.stderr)
    assert 'Traceback' not in done.stderr
