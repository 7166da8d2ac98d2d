"""Start the detector and bring it to its active state.

The parameters file is read first; an argument that is given overrides it, one that is left empty does not.
When the node ends, a launch that holds nothing else ends too; in a larger launch the other nodes go on.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, GroupAction, LogInfo, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import LifecycleNode, Node, SetParameter, SetParametersFromFile
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

PACKAGE = 'moving_object_detector'

# Launch argument, the node's parameter that it overrides, what it is, and what it takes (None: anything).
OVERRIDES = (
    ('transport', 'transport', 'how the images come', ['', 'raw', 'compressed']),
    ('model', 'model', "weights of the generator; empty in the file too: the package's own", None),
    ('device', 'device', 'where the networks run, such as cpu or cuda:0', None),
    ('window_past', 'window.past', 'frames before the current one that each mask is averaged over', None),
    ('window_future', 'window.future', 'frames after it, which the refined mask waits for', None),
    ('window_stride', 'window.stride', 'distance between these frames', None),
    ('use_sim_time', 'use_sim_time', 'take the time from /clock', ['', 'true', 'false']),
)


def declared_arguments() -> list[DeclareLaunchArgument]:
    """Return every argument, all of them visible to ``ros2 launch --show-args``."""
    cpu_profile = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', 'cpu.yaml'])
    arguments = [
        DeclareLaunchArgument(
            'image_topic', default_value='image', description='topic of the camera, without /compressed'
        ),
        DeclareLaunchArgument('params_file', default_value=cpu_profile, description='YAML file with the parameters'),
        DeclareLaunchArgument('namespace', default_value='', description='namespace of the node, one for each camera'),
        DeclareLaunchArgument('name', default_value='detect', description='name of the node'),
        DeclareLaunchArgument(
            'autostart', default_value='true', choices=['true', 'false'], description='configure and activate the node'
        ),
        DeclareLaunchArgument(
            'view',
            default_value='false',
            choices=['true', 'false'],
            description='show results on a page for a browser, and to the Foxglove app where foxglove-sdk is installed',
        ),
        DeclareLaunchArgument(
            'view_host', default_value='127.0.0.1', description='address the view listens on; 0.0.0.0: for everybody'
        ),
        DeclareLaunchArgument('view_port', default_value='8766', description='port of the page'),
        DeclareLaunchArgument(
            'log_level',
            default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='least severity that is logged',
        ),
    ]
    for argument, parameter, meaning, choices in OVERRIDES:
        description = f'{meaning} (parameter {parameter}; empty: as in the parameters file)'
        arguments.append(DeclareLaunchArgument(argument, default_value='', choices=choices, description=description))
    return arguments


def given(argument: str) -> IfCondition:
    """Return whether the launch argument is not empty; Humble has no substitution that compares."""
    return IfCondition(PythonExpression(["r'''", LaunchConfiguration(argument), "''' != ''"]))


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the node with its parameters, and the events that chain its transitions."""
    detect = LifecycleNode(
        package=PACKAGE,
        executable='detect',
        name=LaunchConfiguration('name'),
        namespace=LaunchConfiguration('namespace'),
        # Here the launch makes the transitions, not the node itself.
        parameters=[{'autostart': False}],
        remappings=[('image', LaunchConfiguration('image_topic'))],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
    )

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(detect), transition_id=transition))

    autostart = IfCondition(LaunchConfiguration('autostart'))
    configure = RegisterEventHandler(
        OnProcessStart(target_action=detect, on_start=[change(Transition.TRANSITION_CONFIGURE)]), condition=autostart
    )
    activate = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=detect,
            start_state='configuring',
            goal_state='inactive',
            entities=[change(Transition.TRANSITION_ACTIVATE)],
        ),
        condition=autostart,
    )
    refused = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=detect,
            start_state='configuring',
            goal_state='unconfigured',
            entities=[
                LogInfo(
                    msg='the detector refused to configure, its reason stands above; set the parameter right, then: '
                ),
                LogInfo(msg='  ros2 lifecycle set NODE configure && ros2 lifecycle set NODE activate'),
            ],
        )
    )
    overrides = [
        SetParameter(parameter, LaunchConfiguration(argument), condition=given(argument))
        for argument, parameter, _, _ in OVERRIDES
    ]
    view = Node(
        package=PACKAGE,
        executable='view',
        name=[LaunchConfiguration('name'), '_view'],
        namespace=LaunchConfiguration('namespace'),
        arguments=[
            *('--detector', LaunchConfiguration('name')),
            *('--host', LaunchConfiguration('view_host')),
            *('--port', LaunchConfiguration('view_port')),
        ],
        condition=IfCondition(LaunchConfiguration('view')),
        output='screen',
        emulate_tty=True,
    )
    # The group keeps the parameters from the other nodes of a launch that includes this one.
    node = GroupAction([SetParametersFromFile(LaunchConfiguration('params_file')), *overrides, detect])
    return LaunchDescription([*declared_arguments(), configure, activate, refused, node, view])
