"""What the node lets go of at cleanup; in this process, so that it can be looked at."""

from __future__ import annotations

import gc
import weakref

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
import rclpy
from detect_bench import SMALL, header, scene
from sensor_msgs.msg import Image

from moving_object_detector.nodes.messages import image_message
from moving_object_detector.nodes.runtime import ros_node, spinning


def test_cleanup_frees_the_detector_at_once(ros_environment, monkeypatch):
    for name in ('ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_LOCALHOST_ONLY'):
        monkeypatch.setenv(name, ros_environment[name])
    from moving_object_detector.nodes.detect_node import DetectNode

    arguments = ['--ros-args', '-p', 'autostart:=false']
    for name, value in SMALL.items():
        arguments += ['-p', f'{name}:={value}']
    with ros_node('detect', arguments, DetectNode) as (node, _), spinning(node, threads=2):
        camera = rclpy.create_node('camera')
        publisher = camera.create_publisher(Image, '/camera/image_raw', 10)
        for _ in range(3):
            node.trigger_configure()
            kept = [weakref.ref(node._pipeline), weakref.ref(node._pipeline._detector.engine)]
            node.trigger_activate()
            for index in range(5):
                publisher.publish(image_message(scene(index), 'rgb8', header(10**9 + index)))
            node.trigger_deactivate()
            node.trigger_cleanup()
            gc.collect()
            assert [reference() for reference in kept] == [None, None]
        camera.destroy_node()
