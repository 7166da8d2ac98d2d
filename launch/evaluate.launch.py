"""Evaluate the detector on a bag, offline or played through the node, and write a report.

What is printed last are its scores; the report and all numbers are in the folder that the argument out names. The
launch ends with the evaluation.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = 'moving_object_detector'

# The program's option, the launch argument that is given to it, and its default (None: it must be given). An
# argument that is left empty is passed empty, which evaluate takes for none.
OPTIONS = (
    ('--root', 'bag', None, 'rosbag2 folder, .mcap, .db3 or ROS 1 .bag, or a folder of such'),
    ('--topic', 'topic', '', 'images, raw or compressed; empty: the only image topic besides mask_topic'),
    ('--mask-topic', 'mask_topic', '', 'masks as truth, matched by their stamps; empty: there is no truth'),
    ('--out', 'out', 'evaluation_output', 'folder for the report; an interrupted evaluation goes on there'),
    ('--rate', 'rate', '1.0', 'live: speed of playing, 1.0 is as recorded'),
)


def declared_arguments() -> list[DeclareLaunchArgument]:
    """Return every argument, all of them visible to ``ros2 launch --show-args``."""
    cpu_profile = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', 'cpu.yaml'])
    return [
        *(
            DeclareLaunchArgument(argument, default_value=default, description=meaning)
            for _, argument, default, meaning in OPTIONS
        ),
        DeclareLaunchArgument(
            'live',
            default_value='false',
            choices=['true', 'false'],
            description='false: every frame, as fast as it goes; true: through the node, so that what it misses counts',
        ),
        DeclareLaunchArgument(
            'params_file', default_value=cpu_profile, description='YAML file with the parameters of the detector'
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the evaluation, of which the argument ``live`` picks one of two kinds."""
    command = [ExecutableInPackage(package=PACKAGE, executable='evaluate'), '--dataset', 'bag']
    for option, argument, _, _ in OPTIONS:
        command += [option, LaunchConfiguration(argument)]
    command += ['--config', LaunchConfiguration('params_file')]

    def evaluation(flags: list[str], condition: IfCondition | UnlessCondition) -> ExecuteProcess:
        return ExecuteProcess(
            cmd=[*command, *flags],
            condition=condition,
            output='screen',
            emulate_tty=True,
            # After Ctrl-C it ends the processes that it plays with.
            sigterm_timeout='60',
        )

    live = LaunchConfiguration('live')
    return LaunchDescription(
        [*declared_arguments(), evaluation(['--live'], IfCondition(live)), evaluation([], UnlessCondition(live))]
    )
