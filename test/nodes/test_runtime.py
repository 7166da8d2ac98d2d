from __future__ import annotations

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.runtime import run_node, split_arguments


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
