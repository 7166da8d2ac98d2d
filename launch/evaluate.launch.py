"""Evaluate the detector on a bag and write a report, offline or, with ``live:=true``, through the running node.

Live, the bag is played through the node, its masks are recorded, and the recording is scored; a frame without a mask
counts as missed. Recording and report are in the folder ``live`` inside the folder ``out``, beside those of an offline
evaluation. The scores are printed last.
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
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

PACKAGE = 'moving_object_detector'

# Option of evaluate, launch argument that sets it, default (None: required), meaning. Empty arguments are passed on;
# the programs treat them as not given.
OPTIONS = (
    ('--root', 'bag', None, 'rosbag2 folder, .mcap, .db3 or ROS 1 .bag; unless live, also a folder of bags'),
    (
        '--bag-topic',
        'bag_topic',
        '',
        'image topic, raw or compressed; empty: the only one besides mask_topic (live: besides /truth)',
    ),
    ('--mask-topic', 'mask_topic', '', 'ground-truth masks, matched by their stamps; empty: no ground truth'),
    ('--out', 'out', 'evaluation_output', 'folder for the report; an interrupted evaluation in it is resumed'),
)
LIVE = PathJoinSubstitution([LaunchConfiguration('out'), 'live'])
RECORDING = PathJoinSubstitution([LIVE, 'recording'])
MASK = '/detect/mask'
LATENCY = '/detect/debug/pipeline_latency_ms'
# Longest wait for the model to load, even if an engine must be built first; and wait for the last masks.
START_SECONDS = '600'
END_SECONDS = 5.0


def declared_arguments() -> list[DeclareLaunchArgument]:
    """Return all arguments, so that ``ros2 launch --show-args`` lists them."""
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
            description='false: every frame, at any speed; true: play through the node, so that frames it misses count',
        ),
        DeclareLaunchArgument('rate', default_value='1.0', description='live: playback speed, 1.0: as recorded'),
        DeclareLaunchArgument(
            'params_file', default_value=cpu_profile, description='YAML file with the parameters of the detector'
        ),
    ]


def process(program: str, arguments: list[object]) -> ExecuteProcess:
    """Return an action that runs a program of the package."""
    return ExecuteProcess(
        cmd=[ExecutableInPackage(package=PACKAGE, executable=program), *arguments],
        name=program,
        output='screen',
        emulate_tty=True,
        # Player, detector and recorder exchange large images; a profile that is set already counts.
        additional_env={
            name: EnvironmentVariable(name, default_value=[FindPackageShare(PACKAGE), '/config/fastdds.xml'])
            for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
        },
        # Time for the detector to finish a frame, and for the evaluation to finish writing.
        sigterm_timeout='30',
    )


def live_run(evaluation: ExecuteProcess) -> list[object]:
    """Return actions that play, detect and record, then run the evaluation; any failure ends the launch."""
    given = LaunchConfiguration
    # A deep queue: frames that the detector misses count, but the recorder should miss none.
    kept = ['-p', f'qos_overrides.{MASK}.publisher.depth:=200', '-r', 'image:=/evaluate/image', '-r', '__node:=detect']
    detect = process('detect', ['--ros-args', '--params-file', given('params_file'), '-p', 'autostart:=true', *kept])
    record = process('record', ['--bag', RECORDING, '--overwrite', '--mask', MASK, '--also', LATENCY])
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
            return then if code == 0 else [Shutdown(reason=f'{action.name} failed with status {code}, see above')]

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
    """Return the arguments and both evaluations; the argument ``live`` selects one."""
    given: list[object] = ['--dataset', 'bag']
    for option, argument, _, _ in OPTIONS:
        given += [option, LaunchConfiguration(argument)]
    # The last --out counts.
    recorded = process('evaluate', [*given, '--out', LIVE, '--predictions', RECORDING, '--predicted-topic', MASK])
    offline = process('evaluate', [*given, '--config', LaunchConfiguration('params_file')])
    live = LaunchConfiguration('live')
    return LaunchDescription(
        [
            *declared_arguments(),
            GroupAction(live_run(recorded), condition=IfCondition(live)),
            GroupAction([offline], condition=UnlessCondition(live)),
        ]
    )
