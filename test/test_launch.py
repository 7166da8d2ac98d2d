"""The launch file: arguments that can be seen, and values that are left to the parameters file unless given."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from moving_object_detector.common.options import options_of
from moving_object_detector.nodes.parameters import NodeConfig

LAUNCH_FILE = Path(__file__).resolve().parents[1] / 'launch' / 'detect.launch.py'
ARGUMENTS = {
    'autostart', 'dds_profile', 'device', 'engine', 'estimate', 'flow', 'flow_model', 'image_topic', 'log_level',
    'model', 'name', 'namespace', 'params_file', 'reliability', 'target_rate', 'transport', 'use_sim_time',
    'view', 'view_host', 'view_port', 'window_future', 'window_past', 'window_stride',
}  # fmt: skip


@pytest.fixture(scope='module')
def tree() -> ast.Module:
    return ast.parse(LAUNCH_FILE.read_text())


@pytest.fixture(scope='module')
def launch_file(load_launch_file):
    return load_launch_file(LAUNCH_FILE)


def overrides(tree: ast.Module) -> list[tuple]:
    assignments = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == 'OVERRIDES']
    return list(ast.literal_eval(assignments[0].value))


def test_every_argument_is_described_and_nothing_is_opaque(tree: ast.Module):
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    declared = [call for call in calls if call.func.id == 'DeclareLaunchArgument']
    assert declared
    for call in declared:
        assert {'default_value', 'description'} <= {keyword.arg for keyword in call.keywords}
    assert 'OpaqueFunction' not in LAUNCH_FILE.read_text()


def test_overrides_are_parameters_of_the_node(tree: ast.Module):
    options = {option.name: option for option in options_of(NodeConfig)}
    for argument, parameter, meaning, choices in overrides(tree):
        assert argument in ARGUMENTS
        assert meaning
        if parameter != 'use_sim_time':  # every node has it
            declared = options[parameter]
            assert (choices or ['']) == ['', *declared.choices]


def context_with(launch_file, **values: str):
    """The launch's context after its arguments, the parameters and the node's own are worked out."""
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, GroupAction
    from launch_ros.actions import SetParameter, SetParametersFromFile

    context = LaunchContext()
    context.launch_configurations.update(values)
    description = launch_file.generate_launch_description()
    for action in description.entities:
        if isinstance(action, DeclareLaunchArgument):
            action.visit(context)
    (group,) = (action for action in description.entities if isinstance(action, GroupAction))
    for action in group.get_sub_entities():
        if isinstance(action, SetParameter | SetParametersFromFile):
            action.visit(context)
    return context


def test_all_arguments_are_declared(launch_file):
    declared = launch_file.generate_launch_description().get_launch_arguments()
    assert {argument.name for argument in declared} == ARGUMENTS


def test_nothing_given_leaves_all_to_the_file(launch_file):
    context = context_with(launch_file, params_file='/some/file.yaml')
    assert context.launch_configurations['global_params'] == ['/some/file.yaml']


def test_what_is_given_comes_after_the_file_in_its_own_type(launch_file):
    context = context_with(
        launch_file,
        params_file='/some/file.yaml',
        device='cuda:0',
        window_past='3',
        use_sim_time='true',
        model="/it's.st",
    )
    first, *given = context.launch_configurations['global_params']
    assert first == '/some/file.yaml'
    assert dict(given) == {'device': 'cuda:0', 'window.past': 3, 'use_sim_time': True, 'model': "/it's.st"}


def test_numbers_and_dotted_names_reach_the_node(launch_file):
    context = context_with(
        launch_file,
        params_file='/f.yaml',
        target_rate='7.5',
        reliability='best_effort',
        flow='dis',
        estimate='zero_lag',
    )
    _, *given = context.launch_configurations['global_params']
    assert dict(given) == {
        'load.target_rate': 7.5,
        'input.reliability': 'best_effort',
        'flow.backend': 'dis',
        'estimate': 'zero_lag',
    }


@pytest.mark.parametrize(('gpu', 'profile'), [(False, 'cpu.yaml'), (True, 'gpu.yaml')])
def test_the_profile_follows_the_hardware(launch_file, monkeypatch, gpu, profile):
    from launch import LaunchContext

    exists = os.path.exists
    monkeypatch.setattr(os.path, 'exists', lambda path: gpu if str(path).startswith('/dev/nv') else exists(path))
    assert launch_file.profile().perform(LaunchContext()) == profile


def test_a_profile_for_dds_reaches_the_node_alone(launch_file):
    from launch.actions import SetEnvironmentVariable

    for given, names in (
        ('', set()),
        ('/dds.xml', {'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'}),
    ):
        context = context_with(launch_file, params_file='/f.yaml', dds_profile=given)
        (group,) = (
            one for one in launch_file.generate_launch_description().entities if type(one).__name__ == 'GroupAction'
        )
        actions = [one for one in group.get_sub_entities() if isinstance(one, SetEnvironmentVariable)]
        for action in actions:
            action.visit(context)
        assert {name for name in context.environment if name.endswith('DEFAULT_PROFILES_FILE')} == names


def test_a_wrong_choice_is_refused(launch_file):
    with pytest.raises(RuntimeError, match='transport'):
        context_with(launch_file, transport='theora')
