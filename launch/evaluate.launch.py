"""Evaluate the detector on a bag, and write a report; live, the bag is played through the node and what it says scored.

Live, the bag is played, the node's masks are recorded to ``live`` in the folder that the argument out names, and that
recording is scored: a frame without a mask counts as missed. What is printed last are the scores.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    GroupAction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.conditions import IfCondition, UnlessCondition
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ShutdownProcess
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = 'moving_object_detector'

# The option of evaluate, the launch argument that is given to it, and its default (None: it must be given). An
# argument that is left empty is passed empty, which the programs take for none.
OPTIONS = (
    ('--root', 'bag', None, 'rosbag2 folder, .mcap, .db3 or ROS 1 .bag; not live also a folder of such'),
    ('--bag-topic', 'bag_topic', '', 'images, raw or compressed; empty: the only image topic besides mask_topic'),
    ('--mask-topic', 'mask_topic', '', 'masks as truth, matched by their stamps; empty: there is no truth'),
    ('--out', 'out', 'evaluation_output', 'folder for the report; an interrupted evaluation is resumed there'),
)
MASK = '/detect/mask'
LATENCY = '/detect/debug/pipeline_latency_ms'
# For the model to load, on a busy machine and where an engine is built first; and for the last masks to arrive.
START_SECONDS = '600'
END_SECONDS = 5.0


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
        DeclareLaunchArgument('rate', default_value='1.0', description='live: speed of playing, 1.0 is as recorded'),
        DeclareLaunchArgument(
            'params_file', default_value=cpu_profile, description='YAML file with the parameters of the detector'
        ),
    ]


def process(program: str, arguments: list[object]) -> ExecuteProcess:
    """Return a program of the package."""
    return ExecuteProcess(
        cmd=[ExecutableInPackage(package=PACKAGE, executable=program), *arguments],
        name=program,
        output='screen',
        emulate_tty=True,
        # The detector may be computing, and the evaluation writing.
        sigterm_timeout='30',
    )


def live_run(evaluation: ExecuteProcess) -> list[object]:
    """Return what plays, detects and records, and then starts the evaluation; any failure ends the launch."""
    given = LaunchConfiguration
    # Masks wait for the recording: what the detector misses counts, not what the recording does.
    kept = ['-p', f'qos_overrides.{MASK}.publisher.depth:=200', '-r', 'image:=/evaluate/image', '-r', '__node:=detect']
    detect = process('detect', ['--ros-args', '--params-file', given('params_file'), '-p', 'autostart:=true', *kept])
    recording = PathJoinSubstitution([given('out'), 'live'])
    record = process('record', ['--bag', recording, '--overwrite', '--mask', MASK, '--also', LATENCY])
    play = process(
        'play',
        [
            *(given('bag'), '--bag-topic', given('bag_topic'), '--rate', given('rate'), '--topic', '/evaluate/image'),
            *('--stamp', 'source', '--keep-going', '--wait-for-subscriber', START_SECONDS),
        ],
    )

    def ended(action: ExecuteProcess, then: list[object]) -> RegisterEventHandler:
        def what(event: object, _: object) -> list[object]:
            code = getattr(event, 'returncode', 0)
            return then if code == 0 else [Shutdown(reason=f'{action.name} ended with status {code}, see above')]

        return RegisterEventHandler(OnProcessExit(target_action=action, on_exit=what))

    stop = [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(one))) for one in (detect, record)]
    return [
        ended(play, [TimerAction(period=END_SECONDS, actions=stop)]),
        ended(record, [evaluation]),
        ended(detect, []),
        record,
        detect,
        play,
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the evaluation, of which the argument ``live`` picks one of two kinds."""
    footage: list[object] = ['--dataset', 'bag']
    for option, argument, _, _ in OPTIONS:
        footage += [option, LaunchConfiguration(argument)]
    recording = PathJoinSubstitution([LaunchConfiguration('out'), 'live'])
    recorded = process('evaluate', [*footage, '--predictions', recording, '--predicted-topic', MASK])
    offline = process('evaluate', [*footage, '--config', LaunchConfiguration('params_file')])
    live = LaunchConfiguration('live')
    return LaunchDescription(
        [
            *declared_arguments(),
            GroupAction(live_run(recorded), condition=IfCondition(live)),
            GroupAction([offline], condition=UnlessCondition(live)),
        ]
    )
