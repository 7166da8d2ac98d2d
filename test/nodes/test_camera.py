"""Which topic and QoS the node subscribes to, and its advice, with real publishers over DDS."""

from __future__ import annotations

import itertools
import re
import time
from contextlib import ExitStack

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from moving_object_detector.common.options import with_values
from moving_object_detector.nodes.camera import ImageInput
from moving_object_detector.nodes.parameters import NodeConfig

RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
TOPICS = {'raw': (Image, '/cam/image_raw'), 'compressed': (CompressedImage, '/cam/image_raw/compressed')}


class Graph:
    """Nodes, each as in a process of its own: one that publishes, and those that subscribe as ``detect`` does."""

    def __init__(self, running):
        self._running = running
        self._executors = []
        self.source = self._node('source')
        self.got, self.unreadable = [], []

    def _node(self, name, *arguments):
        context = rclpy.Context()
        rclpy.init(context=context)
        self._running.callback(context.try_shutdown)
        node = rclpy.create_node(
            name,
            context=context,
            cli_args=['--ros-args', *arguments],
            automatically_declare_parameters_from_overrides=True,
        )
        self._running.callback(node.destroy_node)
        self._executors.append(SingleThreadedExecutor(context=context))
        self._executors[-1].add_node(node)
        return node

    def camera(self, remap, *arguments, **options):
        """Subscribe to ``image`` remapped, with options whose dots are written as two underscores."""
        node = self._node('subscriber', '-r', f'image:={remap}', *arguments)
        values = {'input.timeout': 0.1, **{name.replace('__', '.'): value for name, value in options.items()}}
        config = with_values(NodeConfig(), values)
        camera = ImageInput(node, config, self)
        self._running.callback(camera.destroy)
        return camera

    # What the pipeline does.

    def receive(self, message):
        self.got.append(message)

    def refuse(self, reason):
        self.unreadable.append(reason)

    def flush(self):
        pass

    def publish(self, kind, topic, qos=10):
        return self.source.create_publisher(kind, topic, qos)

    def spin(self, condition, limit=20.0, meanwhile=lambda: None):
        deadline = time.monotonic() + limit
        while not condition() and time.monotonic() < deadline:
            meanwhile()
            for executor in self._executors:
                executor.spin_once(timeout_sec=0.02)
        return condition()

    def arrives(self, *publishers):
        """Return whether something that is published reaches a camera."""

        def publish():
            for publisher in publishers:
                publisher.publish(publisher.msg_type(header=Header(), data=b'1234'))

        self.got.clear()
        return self.spin(lambda: self.got, meanwhile=publish)


@pytest.fixture
def graph(ros_environment, monkeypatch):
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'):
        monkeypatch.setenv(name, ros_environment[name])
    with ExitStack() as running:
        yield Graph(running)


@pytest.mark.parametrize('published', [('raw',), ('compressed',), ('raw', 'compressed')])
@pytest.mark.parametrize('remap', ['/cam/image_raw', '/cam/image_raw/compressed', '/elsewhere'])
@pytest.mark.parametrize('transport', ['auto', 'raw', 'compressed'])
def test_images_come_at_once_or_after_following_the_advice(graph, transport, remap, published):
    publishers = [graph.publish(*TOPICS[name]) for name in published]
    camera = graph.camera(remap, transport=transport)
    # The graph is found out about piece by piece.
    seen = camera._node.get_publishers_info_by_topic
    assert graph.spin(lambda: all(seen(TOPICS[name][1]) for name in published))
    comes_at_once = (
        (transport == 'auto' and remap != '/elsewhere' and (remap == '/cam/image_raw' or 'compressed' in published))
        or (transport == 'raw' and remap == '/cam/image_raw' and 'raw' in published)
        or (transport == 'compressed' and remap == '/cam/image_raw' and 'compressed' in published)
    )
    if not comes_at_once:
        assert graph.spin(camera.trouble)
        advice = camera.trouble()
        given = re.search(r'\(ros2 launch\) or (.*) \(ros2 run\)', advice)
        assert given, advice
        renamed = re.search(r'-r image:=(\S+)', given[1])
        changed = re.search(r'-p transport:=(\S+)', given[1])
        assert renamed or changed
        camera.destroy()
        camera = graph.camera(renamed[1] if renamed else remap, transport=changed[1] if changed else transport)
    assert graph.arrives(*publishers), camera.trouble()
    if len(published) == 2 and transport == 'auto' and remap == '/cam/image_raw':
        assert camera.topic == '/cam/image_raw'  # without loss where both are there


def test_auto_follows_what_all_publishers_offer(graph):
    camera = graph.camera('/cam/image_raw')
    assert camera.report()['image reliability'] == 'reliable'
    first = graph.publish(*TOPICS['raw'], RELIABLE)
    assert graph.arrives(first)
    second = graph.publish(*TOPICS['raw'], BEST_EFFORT)
    assert graph.spin(lambda: camera.report()['image reliability'] == 'best_effort')
    assert graph.arrives(second)
    assert graph.arrives(first)
    graph.source.destroy_publisher(second)
    assert graph.spin(lambda: camera.report()['image reliability'] == 'reliable')
    assert graph.arrives(first)


def test_auto_follows_from_raw_to_compressed_and_back(graph):
    camera = graph.camera('/cam/image_raw')
    compressed = graph.publish(*TOPICS['compressed'])
    assert graph.arrives(compressed)
    raw = graph.publish(*TOPICS['raw'])
    assert graph.arrives(raw)
    assert camera.topic == '/cam/image_raw'
    graph.source.destroy_publisher(raw)
    assert graph.arrives(compressed)


@pytest.mark.parametrize('reliability', ['reliable', 'best_effort'])
def test_what_is_set_stays(graph, reliability):
    camera = graph.camera('/cam/image_raw', input__reliability=reliability)
    publisher = graph.publish(*TOPICS['raw'], BEST_EFFORT)
    graph.spin(lambda: False, limit=0.7)
    assert camera.report()['image reliability'] == reliability
    if reliability == 'best_effort':
        assert graph.arrives(publisher)
    else:
        graph.spin(lambda: camera.mismatches)
        assert camera.report()['publishers with another QoS'] == '1'
        assert 'input.reliability' in camera.trouble()


def test_an_override_has_the_last_word(graph):
    override = 'qos_overrides./cam/image_raw.subscription.reliability:=reliable'
    camera = graph.camera('/cam/image_raw', '-p', override)
    graph.publish(*TOPICS['raw'], BEST_EFFORT)
    graph.spin(lambda: False, limit=0.7)
    assert camera.report()['image reliability'] == 'reliable'
    assert 'qos_overrides./cam/image_raw.subscription.reliability' in camera.trouble()


def test_another_type_on_the_topic_is_said(graph):
    from std_msgs.msg import String

    camera = graph.camera('/cam/image_raw')
    graph.publish(String, '/cam/image_raw')
    graph.spin(lambda: '/source' in camera.trouble())
    assert '/source publishes /cam/image_raw as std_msgs/msg/String' in camera.trouble()


def test_a_silent_publisher_is_asserted_no_more_of_than_is_known(graph):
    camera = graph.camera('/cam/image_raw')
    graph.publish(*TOPICS['raw'], BEST_EFFORT)
    graph.spin(lambda: '/source' in camera.trouble() and 'best effort' in camera.trouble())
    trouble = camera.trouble()
    assert '/source advertises /cam/image_raw' in trouble
    assert 'either nothing is sent' in trouble
    assert 'lost on the way' in trouble
    assert 'fastdds.xml' in trouble


def watched(graph, qos=10):
    """Return what subscribes to raw images, which is not to complain of silence, and their publisher."""
    camera = graph.camera('/cam/image_raw', input__timeout=100.0)
    publisher = graph.publish(*TOPICS['raw'], qos)
    assert graph.arrives(publisher)
    return camera, publisher


def send(publisher, message, moment):
    """Publish with a stamp, nanoseconds."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(moment, 10**9)
    publisher.publish(message)


def test_holes_in_the_stamps_are_said_with_size_and_quality(graph):
    camera, publisher = watched(graph, BEST_EFFORT)
    message = Image(data=bytes(500_000))
    # Of the images at 10 Hz every third is missing.
    kept = (index for index in itertools.count(1) if index % 3)

    assert graph.spin(lambda: len(graph.got) > 30, meanwhile=lambda: send(publisher, message, next(kept) * 10**8))
    trouble = camera.holes()
    assert '0.5 MB each, best effort' in trouble
    assert 'fastdds.xml' in trouble
    assert 'holes' in trouble or 'lost on the way' in trouble


def test_another_recording_is_no_loss(graph):
    """Stamps that leap by a minute, as between the clips of a bag, are not thousands of lost images."""
    camera, publisher = watched(graph)
    message, numbers = Image(data=bytes(1000)), itertools.count(1)

    def publish():
        number = next(numbers)
        moment = number * 10**8 + number // 10 * 60 * 10**9
        send(publisher, message, moment)

    assert graph.spin(lambda: len(graph.got) > 30, meanwhile=publish)
    assert 'holes' not in camera.holes()


def test_one_pause_of_the_camera_is_no_loss(graph):
    camera, publisher = watched(graph)
    message, numbers = Image(data=bytes(1000)), itertools.count(1)

    def publish():
        number = next(numbers)
        # Five seconds, of which the node saw no silence.
        moment = number * 10**8 + (5 * 10**9 if number > 20 else 0)
        send(publisher, message, moment)

    assert graph.spin(lambda: len(graph.got) > 35, meanwhile=publish)
    assert (camera.trouble(), camera.holes()) == ('', '')


def test_two_cameras_leave_no_holes_behind(graph):
    camera, publisher = watched(graph)
    other = graph.publish(*TOPICS['raw'])
    message, numbers = Image(data=bytes(1000)), itertools.count(1)

    def both():
        moment = next(numbers) * 10**8
        send(publisher, message, moment)
        send(other, message, moment + 2 * 10**6)

    assert graph.spin(lambda: len(graph.got) > 40, meanwhile=both)
    assert '2 publishers' in camera.trouble()
    graph.source.destroy_publisher(other)
    assert graph.spin(lambda: not camera.trouble(), meanwhile=lambda: send(publisher, message, next(numbers) * 10**8))
    assert camera.holes() == ''


def test_another_topic_begins_with_no_holes(graph):
    camera, raw = watched(graph)
    message, numbers = Image(data=bytes(1000)), itertools.count(1)

    assert graph.spin(lambda: len(graph.got) > 20, meanwhile=lambda: send(raw, message, next(numbers) * 10**8))
    graph.source.destroy_publisher(raw)
    compressed, picture = graph.publish(*TOPICS['compressed']), CompressedImage(data=bytes(100))
    # Ten times as slow as the topic before.
    before = len(graph.got)

    def slow():
        send(compressed, picture, next(numbers) * 10**9)

    assert graph.spin(lambda: len(graph.got) > before + 12, meanwhile=slow)
    assert (camera.trouble(), camera.holes()) == ('', '')


def test_images_in_time_are_no_trouble(graph):
    camera, publisher = watched(graph)
    message, stamps = Image(data=bytes(1000)), itertools.count(1)

    def publish():
        # A camera's clock trembles.
        moment = next(stamps) * 10**8 + 10**6 * (next(stamps) % 7)
        send(publisher, message, moment)

    assert graph.spin(lambda: len(graph.got) > 30, meanwhile=publish)
    assert (camera.trouble(), camera.holes()) == ('', '')
    assert camera.lost == 0
