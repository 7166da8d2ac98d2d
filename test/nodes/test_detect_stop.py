"""Ctrl-C and SIGTERM at any moment: the real node ends soon, with status 0 and without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from detect_bench import LOSSLESS
from sensor_msgs.msg import Image

SOON = 8


def assert_clean(detect):
    assert detect.process.returncode == 0, detect.lines
    words = 'Traceback', 'Exception', 'Interrupt', 'error', '[ERROR]', '[FATAL]', 'core dumped', 'never retrieved'
    assert not [line for line in detect.lines if any(word in line for word in words)]


def wait_mapped(detect, library):
    """Wait until the process has loaded a shared library: that is how far its start is."""
    maps = Path(f'/proc/{detect.process.pid}/maps')
    deadline = time.monotonic() + 120
    while library not in maps.read_text():
        assert detect.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)


# From the import of rclpy over the making of the node to the import of PyTorch, in the middle of configuring.
@pytest.mark.parametrize(
    ('library', 'delay'),
    [
        ('_rclpy_pybind11', 0),
        ('librmw_fastrtps', 0),
        ('libtorch_cpu', 0),
        ('libtorch_python', 0),
        ('libtorch_python', 0.5),
    ],
)
def test_while_it_starts(start_detect, library, delay):
    detect = start_detect({})
    wait_mapped(detect, library)
    time.sleep(delay)
    assert detect.end() < SOON
    assert_clean(detect)


def test_callbacks_that_wait_for_a_thread(ros_environment):
    """Which is what a busy node has at its end: rclpy prints a line for each that begins after it was shut down."""
    code = """
import gc, time
from rclpy.callback_groups import ReentrantCallbackGroup
from moving_object_detector.nodes.runtime import ros_node, spinning

with ros_node('busy', []) as (node, _), spinning(node, threads=2):
    group = ReentrantCallbackGroup()
    for _ in range(6):
        node.create_timer(0.05, lambda: time.sleep(0.2), callback_group=group)
    time.sleep(1)
gc.collect()
"""
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, env=ros_environment, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'never retrieved' not in done.stderr


@pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')
def test_while_an_engine_is_built(start_detect):
    detect = start_detect({'engine': 'openvino', 'height': 384, 'width': 768})
    wait_mapped(detect, 'libopenvino')
    detect.wait_status(lambda _, values: values['state'] == 'configuring', 'configuring')
    assert detect.end() < SOON
    assert_clean(detect)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_while_it_is_idle(start_detect, number):
    detect = start_detect({})
    detect.wait_line('active: waiting for images')
    assert detect.end(number) < SOON
    assert_clean(detect)


def test_without_autostart(start_detect):
    detect = start_detect({'autostart': False})
    detect.wait_state('unconfigured')
    assert detect.end() < SOON
    assert_clean(detect)


def test_while_it_processes_and_images_wait(start_detect):
    detect = start_detect({**LOSSLESS, 'window.past': 5, 'window.future': 5, 'height': 96, 'width': 192})
    masks = detect.subscribe(Image, '/detect/mask')
    detect.wait(lambda: len(masks) > 2, 'masks', meanwhile=lambda: [detect.send() for _ in range(40)])
    assert detect.end() < SOON
    assert_clean(detect)


def test_again_and_again_by_an_impatient_user(start_detect):
    detect = start_detect({})
    detect.wait_line('active: waiting for images')
    deadline = time.monotonic() + SOON
    while detect.process.poll() is None and time.monotonic() < deadline:
        detect.process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert time.monotonic() < deadline
    detect.end()
    assert_clean(detect)
