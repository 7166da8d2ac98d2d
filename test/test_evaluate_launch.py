"""The launch file of the evaluation: arguments that can be seen, and commands that the programs understand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from moving_object_detector.evaluation.evaluate import _parser
from moving_object_detector.evaluation.options import read_flags

LAUNCH_FILE = Path(__file__).resolve().parents[1] / 'launch' / 'evaluate.launch.py'


@pytest.fixture(scope='module')
def options() -> list[tuple]:
    tree = ast.parse(LAUNCH_FILE.read_text())
    assignments = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == 'OPTIONS']
    return list(ast.literal_eval(assignments[0].value))


@pytest.fixture(scope='module')
def launch_file(load_launch_file):
    return load_launch_file(LAUNCH_FILE)


@pytest.mark.parametrize(
    'more',
    [
        ['--config', '/cpu.yaml'],
        ['--out', '/out/live', '--predictions', '/out/live/recording', '--predicted-topic', '/detect/mask'],
    ],
)
def test_the_program_understands_what_it_is_told(options, more):
    given = {'bag': '/a bag', 'bag_topic': '', 'mask_topic': '/truth', 'out': '/out'}
    assert [argument for _, argument, _, _ in options] == list(given)
    command = ['--dataset', 'bag', *(text for option, name, _, _ in options for text in (option, given[name]))]
    read = read_flags(_parser().parse_args([*command, *more]))
    assert (read.dataset, read.root, read.bag_topic, read.mask_topic) == ('bag', '/a bag', '', '/truth')
    assert (read.out, read.method) == (('/out', 'detector') if '--config' in more else ('/out/live', 'masks'))


def test_what_is_left_out_is_what_the_program_does_without_it(options):
    defaults = {name: default for _, name, default, _ in options}
    assert defaults.pop('bag') is None
    program = read_flags(_parser().parse_args(['--root', 'x']))
    assert defaults == {name: getattr(program, name) for name in defaults}


def test_all_arguments_are_declared_and_described(launch_file):
    declared = launch_file.generate_launch_description().get_launch_arguments()
    names = {'bag', 'bag_topic', 'live', 'mask_topic', 'out', 'params_file', 'rate'}
    assert {argument.name for argument in declared} == names
    assert all(argument.description for argument in declared)


@pytest.mark.parametrize('live', ['true', 'false'])
def test_one_of_the_two_kinds_runs(launch_file, live):
    from launch import LaunchContext
    from launch.actions import GroupAction

    context = LaunchContext()
    context.launch_configurations['live'] = live
    groups = [one for one in launch_file.generate_launch_description().entities if isinstance(one, GroupAction)]
    assert [group.condition.evaluate(context) for group in groups] == [live == 'true', live == 'false']


def test_nothing_is_opaque():
    assert 'OpaqueFunction' not in LAUNCH_FILE.read_text()
