"""One table of parameters: docs/parameters.md and the files in config/ say what the options say."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

from moving_object_detector.common.options import options_of, with_values
from moving_object_detector.common.parameter_files import read_parameter_file
from moving_object_detector.nodes.parameters import NodeConfig, assignments, values_given, without_effect

ROOT = Path(__file__).resolve().parents[2]
parameter_table = run_path(str(ROOT / 'scripts' / 'make_docs.py'))['parameter_table']
BEGIN, END = '<!-- parameters -->', '<!-- /parameters -->'


def test_every_option_has_its_row():
    head, rule, *rows = parameter_table().splitlines()
    options = list(options_of(NodeConfig))
    assert len(rows) == len(options) > 20
    assert {line.count(' | ') for line in (head, *rows)} == {5}
    assert rule.count('|') == 7
    row = next(line for line in rows if '`mask.threshold`' in line)
    assert row == (
        '| `mask.threshold` | double | `0.5` | 0.01 to 0.99 | yes | Pixels of at least this probability are masked. |'
    )
    row = next(line for line in rows if '`transport`' in line)
    assert row.startswith('| `transport` | string | `auto` | `auto`, `raw`, `compressed` |  | raw: sensor_msgs/Image')
    assert any(line.startswith('| `autostart` | bool | `true` |  |  | ') for line in rows)
    assert any(line.startswith('| `model` | string | `""` |  |  | ') for line in rows)


def test_the_documentation_has_the_table():
    text = (ROOT / 'docs' / 'parameters.md').read_text(encoding='utf-8')
    assert text.count(BEGIN) == text.count(END) == 1, f'one table between {BEGIN} and {END}'
    table = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert table == parameter_table(), 'run: make docs'


@pytest.mark.parametrize('path', sorted((ROOT / 'config').glob('[!t]*.yaml')), ids=lambda path: path.name)
def test_the_files_hold_only_parameters_and_values_that_there_are(path):
    values = read_parameter_file(path)
    assert values
    with_values(NodeConfig(), values)  # raises with the name of what is wrong


def test_there_are_files():
    assert {path.name for path in (ROOT / 'config').glob('*.yaml')} >= {'cpu.yaml', 'gpu.yaml'}


def test_values_that_ros_arguments_give_a_node(tmp_path):
    file = tmp_path / 'a.yaml'
    file.write_text(
        '/**:\n  ros__parameters:\n    load: {target_rate: 10}\n'
        'front:\n  detect:\n    ros__parameters: {load.target_rate: 5.5}\n'
        'rear/detect:\n  ros__parameters: {threads: 1}\n'
        'detect:\n  ros__parameters: {threads: 2}\n'
    )
    arguments = ['--ros-args', '-r', 'a:=b', '--params-file', str(file), '-p', 'model:=x:=y', '--param', 'threads:=3']
    arguments += ['-p', 'other:threads:=4', '-p', 'detect:threads:=5', '--log-level', 'info']
    given = list(assignments(arguments))
    ours = [('model', 'x:=y'), ('threads', 3), ('threads', 5)]
    front = [('load.target_rate', 10), ('load.target_rate', 5.5), *ours]
    assert list(values_given(given, '/front/detect')) == front
    assert list(values_given(given, '/rear/detect')) == [('load.target_rate', 10), ('threads', 1), *ours]
    assert list(values_given(given, '/detect')) == [('load.target_rate', 10), ('threads', 2), *ours]


def test_arguments_for_other_nodes_are_told(tmp_path):
    file = tmp_path / 'a.yaml'
    file.write_text('detect:\n  ros__parameters: {threads: 2}\nother:\n  ros__parameters: {threads: 1}\n')
    arguments = ['--ros-args', '--params-file', str(file), '-p', 'threads:=3', '-p', 'detector:threads:=4']
    given = list(assignments(arguments))
    (typo,) = without_effect(given, '/detect')
    assert typo.startswith('-p detector:threads:=4 has no effect')
    of_file, typo = without_effect(given, '/front/detect')
    assert of_file.startswith(f'{file} has no effect')
    for named in ('/detect', '/other', '/front/detect'):
        assert named in of_file
