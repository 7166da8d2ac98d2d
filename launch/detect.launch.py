"""Start the detector, which configures and activates itself unless ``autostart:=false``.

Arguments that are not empty override the parameters file. When the node ends, the launch ends unless it contains
other nodes, which keep running.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, LogInfo, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node, SetParameter, SetParametersFromFile
from launch_ros.substitutions import FindPackageShare

PACKAGE = 'moving_object_detector'

# Device files of NVIDIA's drivers, on a PC and on a Jetson.
HAS_GPU = "any(__import__('os').path.exists(path) for path in ('/dev/nvidia0', '/dev/nvhost-gpu', '/dev/nvgpu'))"

# Launch argument, parameter of the node that it overrides, meaning, accepted values (None: any).
OVERRIDES = (
    ('transport', 'transport', 'raw or compressed images', ['', 'auto', 'raw', 'compressed']),
    ('reliability', 'input.reliability', 'QoS of the image subscription', ['', 'auto', 'reliable', 'best_effort']),
    ('estimate', 'estimate', 'delayed but better masks, or masks without delay', ['', 'refined', 'zero_lag']),
    ('target_rate', 'load.target_rate', 'masks per second to sustain by shrinking the window; 0.0: fixed window', None),
    ('model', 'model', "weights of the generator; empty in the parameters file too: the package's own", None),
    ('device', 'device', 'device that runs the networks, such as cpu or cuda:0', None),
    ('engine', 'engine', 'inference engine', ['', 'auto', 'torch', 'openvino', 'torch_tensorrt']),
    ('flow', 'flow.backend', 'optical flow estimator', ['', 'auto', 'dis', 'pwcnet', 'raft_small']),
    ('flow_model', 'flow.model', 'weights of PWC-Net or RAFT-small; empty: those that get_weights downloaded', None),
    ('window_past', 'window.past', 'earlier frames that each mask is averaged over', None),
    ('window_future', 'window.future', 'later frames that each refined mask is averaged over and waits for', None),
    ('window_stride', 'window.stride', 'distance between these frames, in frames', None),
    ('autostart', 'autostart', 'whether the node configures and activates itself', None),
    ('use_sim_time', 'use_sim_time', 'take the time from /clock', ['', 'true', 'false']),
)


def declared_arguments() -> list[DeclareLaunchArgument]:
    """Return all arguments, so that ``ros2 launch --show-args`` lists them."""
    profiles = PathJoinSubstitution([FindPackageShare(PACKAGE), 'config', profile()])
    levels = ['debug', 'info', 'warn', 'error', 'fatal']
    params = 'YAML file with the parameters; default: gpu.yaml on a machine with an NVIDIA GPU, else cpu.yaml'
    dds = (
        "XML profile for Fast DDS, such as config/fastdds.xml of this package, which the camera's process needs too; "
        'empty: the profile set in the environment, if any'
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
        ('view', 'false', ['true', 'false'], 'show the results on a web page'),
        ('view_host', '127.0.0.1', None, 'address of the web page; 0.0.0.0 lets every computer on the network see it'),
        ('view_port', '8766', None, 'port of the web page'),
        ('log_level', 'info', levels, 'lowest severity that is logged'),
    )  # fmt: skip
    return [
        DeclareLaunchArgument(argument, default_value=default, choices=choices, description=description)
        for argument, default, choices, description in table
    ]


def profile() -> PythonExpression:
    """Return the name of the parameters file for this hardware."""
    return PythonExpression([f"'gpu.yaml' if {HAS_GPU} else 'cpu.yaml'"])


def given(argument: str) -> IfCondition:
    """Return whether the launch argument is not empty; Humble has no comparison substitution."""
    return IfCondition(PythonExpression(["r'''", LaunchConfiguration(argument), "''' != ''"]))


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, the node with its parameters, and the program ``view``."""
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
    report = LogInfo(msg=['parameters: ', LaunchConfiguration('params_file')])
    dds = [
        SetEnvironmentVariable(name, LaunchConfiguration('dds_profile'), condition=given('dds_profile'))
        for name in ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    ]
    # The group keeps the parameters away from other nodes in a launch that includes this one.
    node = GroupAction([*dds, SetParametersFromFile(LaunchConfiguration('params_file')), *overrides, detect])
    return LaunchDescription([*declared_arguments(), report, node, view])
