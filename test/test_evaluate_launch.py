"""The launch file of the evaluation: arguments that can be seen, and a command that ``evaluate`` understands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from moving_object_detector.evaluation.evaluate import _parser

LAUNCH_FILE = Path(__file__).resolve().parents[1] / 'launch' / 'evaluate.launch.py'


@pytest.fixture(scope='module')
def options() -> list[tuple]:
    tree = ast.parse(LAUNCH_FILE.read_text())
    assignments = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == 'OPTIONS']
    return list(ast.literal_eval(assignments[0].value))


@pytest.fixture(scope='module')
def launch_file(load_launch_file):
    return load_launch_file(LAUNCH_FILE)


@pytest.mark.parametrize('live', [False, True])
def test_the_program_understands_what_it_is_told(options, live):
    given = {'bag': '/a bag', 'topic': '', 'mask_topic': '/truth', 'out': '/out', 'rate': '0.5'}
    assert [argument for _, argument, _, _ in options] == list(given)
    command = ['--dataset', 'bag', *(text for option, name, _, _ in options for text in (option, given[name]))]
    arguments = _parser().parse_args([*command, '--config', '/cpu.yaml', *(['--live'] if live else [])])
    assert (arguments.dataset, arguments.live, arguments.rate) == ('bag', live, 0.5)
    assert (arguments.root, arguments.out, arguments.config) == (Path('/a bag'), Path('/out'), Path('/cpu.yaml'))
    assert not arguments.topic
    assert arguments.mask_topic == '/truth'


def test_what_is_left_out_is_what_the_program_does_without_it(options):
    defaults = {name: default for _, name, default, _ in options}
    program = _parser().parse_args([])
    assert defaults['bag'] is None
    assert (defaults['out'], float(defaults['rate'])) == (str(program.out), program.rate)
    assert [defaults['topic'], defaults['mask_topic']] == ['', '']


def test_all_arguments_are_declared_and_described(launch_file):
    declared = launch_file.generate_launch_description().get_launch_arguments()
    names = {'bag', 'live', 'mask_topic', 'out', 'params_file', 'rate', 'topic'}
    assert {argument.name for argument in declared} == names
    assert all(argument.description for argument in declared)


@pytest.mark.parametrize('live', ['true', 'false'])
def test_one_of_the_two_kinds_runs(launch_file, live):
    from launch import LaunchContext
    from launch.actions import ExecuteProcess

    context = LaunchContext()
    context.launch_configurations['live'] = live
    processes = [one for one in launch_file.generate_launch_description().entities if isinstance(one, ExecuteProcess)]
    running = [process for process in processes if process.condition.evaluate(context)]
    assert (len(processes), len(running)) == (2, 1)
    last = running[0].cmd[-1][0]
    assert (getattr(last, 'text', '') == '--live') == (live == 'true')


def test_nothing_is_opaque():
    assert 'OpaqueFunction' not in LAUNCH_FILE.read_text()
