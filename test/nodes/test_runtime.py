from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.runtime import Stop, run_node, split_arguments


@pytest.mark.parametrize(
    ('argv', 'own', 'ros'),
    [
        (['a', '--loop'], ['a', '--loop'], []),
        (['a', '--ros-args', '-r', 'x:=y'], ['a'], ['--ros-args', '-r', 'x:=y']),
        (
            ['--ros-args', '-r', 'x:=y', '--', 'a', '--ros-args', '-p', 'z:=1'],
            ['a'],
            ['--ros-args', '-r', 'x:=y', '--', '--ros-args', '-p', 'z:=1'],
        ),
        ([], [], []),
    ],
)
def test_split_arguments(argv, own, ros):
    assert split_arguments(argv) == (own, ros)


def test_ctrl_c_is_no_failure_of_a_node_but_a_mistake_is(capsys):
    def interrupted():
        raise KeyboardInterrupt

    def mistaken():
        raise UserError('no such file')

    assert run_node(interrupted) == 0
    assert run_node(mistaken) == 2
    assert capsys.readouterr().err == 'error: no such file\n'


def test_a_machine_without_ros_is_told_so(capsys):
    def needs_ros():
        raise ModuleNotFoundError("No module named 'rclpy.node'", name='rclpy.node')

    def needs_else():
        raise ModuleNotFoundError("No module named 'cv2'", name='cv2')

    assert run_node(needs_ros) == 2
    assert 'ROS 2 is not in this environment' in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError, match='cv2'):
        run_node(needs_else)


def test_a_log_that_cannot_be_written_is_said_with_the_remedy(ros_environment, tmp_path):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
    home = tmp_path / 'home'
    home.write_text('no folder')
    environment = {**ros_environment, 'HOME': str(home)}
    for name in ('ROS_LOG_DIR', 'ROS_HOME'):
        environment.pop(name, None)
    for program in ('detect', 'play'):
        arguments = [str(tmp_path)] if program == 'play' else []
        command = [sys.executable, '-m', 'moving_object_detector.programs', program, *arguments]
        cv2.imwrite(str(tmp_path / '0.png'), np.zeros((32, 32, 3), np.uint8))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert 'ROS_LOG_DIR' in done.stderr
        assert 'ros-args' not in done.stderr


def test_a_signal_stops_at_any_moment():
    """A signal ends ``wait`` wherever it finds the main thread; ``threading.Event`` hangs now and then."""
    stop, wanted = Stop(), threading.Semaphore(0)

    def send():
        for _ in range(40):
            wanted.acquire()
            os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        for _ in range(40):
            stop = Stop()
            assert not stop.is_set()
            wanted.release()
            assert stop.wait(10)
        assert stop.is_set()
        begin = time.monotonic()
        assert not Stop().wait(0.12)
        assert time.monotonic() - begin >= 0.12
    finally:
        signal.signal(signal.SIGUSR1, before)
