"""Start the detector, which configures and activates itself unless ``autostart:=false``.

The parameters file is read first; an argument that is given overrides it, one that is left empty does not.
When the node ends, a launch that holds nothing else ends too; in a larger launch the other nodes go on.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, LogInfo, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node, SetParameter, SetParametersFromFile
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'moving_object_detector'

# Device files of NVIDIA's drivers, on a computer and on a Jetson.
HAS_GPU = "any(__import__('os').path.exists(path) for path in ('/dev/nvidia0', '/dev/nvhost-gpu', '/dev/nvgpu'))"

# Launch argument, the node's parameter that it overrides, what it is, and what it takes (None: anything).
OVERRIDES = (
    ('transport', 'transport', 'how the images come', ['', 'auto', 'raw', 'compressed']),
    ('reliability', 'input.reliability', 'QoS of the images', ['', 'auto', 'reliable', 'best_effort']),
    ('estimate', 'estimate', 'masks late and best, or at once', ['', 'refined', 'zero_lag']),
    ('target_rate', 'load.target_rate', 'masks a second to keep up, by smaller windows; 0.0: no such rate', None),
    ('model', 'model', "weights of the generator; empty in the file too: the package's own", None),
    ('device', 'device', 'where the networks run, such as cpu or cuda:0', None),
    ('engine', 'engine', 'what runs the networks', ['', 'auto', 'torch', 'openvino', 'torch_tensorrt']),
    ('flow', 'flow.backend', 'flow estimator', ['', 'auto', 'dis', 'pwcnet', 'raft_small']),
    ('flow_model', 'flow.model', 'weights of PWC-Net or RAFT-small; empty: those that get_weights has fetched', None),
    ('window_past', 'window.past', 'frames before the current one that each mask is averaged over', None),
    ('window_future', 'window.future', 'frames after it, which the refined mask waits for', None),
    ('window_stride', 'window.stride', 'distance between these frames', None),
    ('autostart', 'autostart', 'whether the node configures and activates itself', None),
    ('use_sim_time', 'use_sim_time', 'take the time from /clock', ['', 'true', 'false']),
)


def declared_arguments() -> list[DeclareLaunchArgument]:
    """Return every argument, all of them visible to ``ros2 launch --show-args``."""
    profiles = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', profile()])
    levels = ['debug', 'info', 'warn', 'error', 'fatal']
    params = 'YAML file with the parameters; gpu.yaml where there is an NVIDIA GPU, else cpu.yaml'
    dds = (
        "XML file for Fast DDS, such as config/fastdds.xml of this package, which the camera's process needs too; "
        'empty: as the environment says'
    )
    table = (
        ('image_topic', '/camera/image_raw', None, 'topic of the camera, without /compressed'),
        *(
            (argument, '', choices, f'{meaning} (parameter {parameter}; empty: as in the parameters file)')
            for argument, parameter, meaning, choices in OVERRIDES
        ),
        ('params_file', profiles, None, params),
        ('dds_profile', '', None, dds),
        ('namespace', '', None, 'namespace of the node, one for each camera'),
        ('name', 'detect', None, 'name of the node'),
        ('view', 'false', ['true', 'false'], 'show results on a page for a browser'),
        ('view_host', '127.0.0.1', None, 'address the view listens on; 0.0.0.0: for everybody'),
        ('view_port', '8766', None, 'port of the page'),
        ('log_level', 'info', levels, 'least severity that is logged'),
    )  # fmt: skip
    return [
        DeclareLaunchArgument(argument, default_value=default, choices=choices, description=description)
        for argument, default, choices, description in table
    ]


def profile() -> PythonExpression:
    """Return the name of the parameters file that fits the hardware."""
    return PythonExpression([f"'gpu.yaml' if {HAS_GPU} else 'cpu.yaml'"])


def given(argument: str) -> IfCondition:
    """Return whether the launch argument is not empty; Humble has no substitution that compares."""
    return IfCondition(PythonExpression(["r'''", LaunchConfiguration(argument), "''' != ''"]))


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the node with its parameters, and its page."""
    detect = Node(
        package=PACKAGE,
        executable='detect',
        name=LaunchConfiguration('name'),
        namespace=LaunchConfiguration('namespace'),
        remappings=[('image', LaunchConfiguration('image_topic'))],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
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
    said = LogInfo(msg=['parameters: ', LaunchConfiguration('params_file')])
    dds = [
        SetEnvironmentVariable(name, LaunchConfiguration('dds_profile'), condition=given('dds_profile'))
        for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    ]
    node = GroupAction([*dds, SetParametersFromFile(LaunchConfiguration('params_file')), *overrides, detect])
    return LaunchDescription([*declared_arguments(), said, node, view])
