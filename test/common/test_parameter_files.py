from __future__ import annotations

import os
from pathlib import Path

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.parameter_files import (
    load_config,
    load_plain_config,
    read_parameter_file,
    read_plain_file,
)
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.training.config import FlowTrainConfig, TrainConfig

CONFIG = Path(__file__).resolve().parents[2] / 'config'


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / 'params.yaml'
        path.write_text(text)
        return path

    return write


def test_dotted_and_nested_names_are_the_same(file):
    dotted = read_parameter_file(file('/**:\n  ros__parameters:\n    window.past: 3\n    flow.preset: fast\n'))
    nested = '/**:\n  ros__parameters:\n    window:\n      past: 3\n    flow: {preset: fast}\n'
    assert dotted == read_parameter_file(file(nested)) == {'window.past': 3, 'flow.preset': 'fast'}


def test_values_keep_their_types(file):
    text = '/**:\n  ros__parameters:\n    a: 1\n    b: 1.0\n    c: true\n    d: "1"\n    e: [1, 2]\n    f: text\n'
    values = read_parameter_file(file(text))
    assert values == {'a': 1, 'b': 1.0, 'c': True, 'd': '1', 'e': [1, 2], 'f': 'text'}
    assert [type(value) for value in values.values()] == [int, float, bool, str, list, str]


def test_several_nodes_and_namespaces_are_merged_in_their_order(file):
    text = (
        '/**:\n  ros__parameters: {device: cpu, threads: 1}\n'
        'front:\n  detect:\n    ros__parameters: {threads: 2}\n'
        '  play:\n    ros__parameters: {rate: 0.5}\n'
    )
    assert read_parameter_file(file(text)) == {'device': 'cpu', 'threads': 2, 'rate': 0.5}


def test_a_misspelt_parameter_of_a_file_is_said(file, caplog):
    path = file('/**: {ros__parameters: {window.pst: 3, flow: {presett: brisk}, load.target_rate: 10.0}}')
    load_config(DetectorConfig(), path)
    said = caplog.text
    assert 'window.past' in said
    assert 'flow.preset' in said
    assert 'target_rate' not in said  # the node's own


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'holds no parameters'),
        ('just a text', 'holds no parameters'),
        ('/**:\n  ros__parameters: {}\n', 'holds no parameters'),
        ('window.past: 3\n', "'window.past' has no ros__parameters"),
        ('detect:\n  window.past: 3\n', "'window.past' has no ros__parameters"),
        ('detect:\n  ros__parameters: 3\n', "'detect' has no ros__parameters"),
        ('detect:\n  ros__parameters:\n', "'detect' has no ros__parameters"),
        ('detect:\n', "'detect' has no ros__parameters"),
        ('/**: [1, 2\n', 'line 2'),
        ('a: !!python/object/apply:os.system ["false"]\n', 'line 1'),
    ],
)
def test_what_is_no_parameter_file(file, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_parameter_file(file(text))
    assert 'params.yaml' in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00\x80')
    for path in (tmp_path / 'none.yaml', tmp_path, tmp_path / 'binary.yaml'):
        with pytest.raises(UserError, match='cannot be read'):
            read_parameter_file(path)


def test_file_then_assignments_over_the_defaults(file):
    path = file('/**:\n  ros__parameters:\n    window.past: 3\n    window.future: 4\n    gate: {min_motion: 2}\n')
    config = load_config(DetectorConfig(), path, ['window.past=1', ' flow.preset = fast', 'model=~/a=b.safetensors'])
    assert (config.window.past, config.window.future, config.window.stride) == (1, 4, 1)
    assert config.gate.min_motion == 2.0
    assert config.flow.preset == 'fast'
    assert config.model == '~/a=b.safetensors'
    assert load_config(DetectorConfig(), None) == DetectorConfig()
    assert load_config(DetectorConfig(model='x'), None, ['model=']).model == ''


def test_parameters_of_the_node_alone_are_passed_over_in_the_file_only(file):
    path = file('/**:\n  ros__parameters:\n    use_sim_time: true\n    window.past: 3\n')
    assert load_config(DetectorConfig(), path).window.past == 3
    with pytest.raises(UserError, match='use_sim_time'):
        load_config(DetectorConfig(), path, ['use_sim_time=true'])


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('window.past', "'window.past' is not of the form name=value"),
        ('window.past=', "window.past is '', but takes a whole number from 0 to 20"),
        ('window.past=1.5', 'window.past is 1.5, but takes a whole number'),
        ('window.past=21', 'window.past is 21, but takes'),
        ('window.past=true', 'window.past is True, but takes'),
        ('model=[', r'value of model, line 1.*in quotes'),
        ('model=a: b: c', 'value of model, line 1'),
    ],
)
def test_wrong_assignments(assignment, message):
    with pytest.raises(UserError, match=message):
        load_config(DetectorConfig(), None, [assignment])


def test_a_wrong_value_in_a_file(file):
    with pytest.raises(UserError, match=r"flow\.preset.*'slow'.*ultrafast"):
        load_config(DetectorConfig(), file('/**:\n  ros__parameters:\n    flow.preset: slow\n'))


def test_plain_files_are_nested_or_dotted(file):
    nested = read_plain_file(file('data:\n  root: films\n  workers: 2\ngame: {steps: 20}\n'))
    assert nested == read_plain_file(file('data.root: films\ndata.workers: 2\ngame.steps: 20\n'))
    assert nested == {'data.root': 'films', 'data.workers': 2, 'game.steps': 20}


@pytest.mark.parametrize('text', ['', '# nothing', 'game.steps=600', '- game.steps: 600', '3'])
def test_what_holds_no_options(file, text):
    with pytest.raises(UserError, match=r'params\.yaml'):
        read_plain_file(file(text))


@pytest.mark.parametrize('text', ['game: [1, 2\n', 'a: !!python/object/apply:os.system ["false"]\n', 'a: 1\n b: 2\n'])
def test_what_is_no_yaml(file, text):
    with pytest.raises(UserError, match=r'params\.yaml, line [12]'):
        load_plain_config(TrainConfig(), file(text))


BOMB = 'a0: &a0 {x: 1, y: 2}\n' + ''.join(
    f'a{n}: &a{n} {{{", ".join(f"k{k}: *a{n - 1}" for k in range(9))}}}\n' for n in range(1, 10)
)
HOSTILE = {
    'alias bomb': (BOMB, 2),
    'a merge of an alias': ('a: &size {height: 96}\nb: {<<: *size}\n', 2),
    'a list that holds itself': ('a: 1\nb: &b [1, *b]\n', 2),
    '5,000 brackets': ('a: 1\nb: ' + '[' * 5000, 2),
    '500 levels': (''.join(' ' * n + 'a:\n' for n in range(500)), 21),
    'a number of 5,000 digits': ('a: 1\n\nb: ' + '9' * 5000 + '\n', None),
    'a number of 4,000 digits': ('game:\n  steps: ' + '9' * 4000 + '\n', None),
    'a name of 5,000 digits': ('9' * 5000 + ': 1\n', None),
    'the 45th of the 13th month': ('a: 2026-13-45\n', None),
    'an impossible time': ('a: 2026-11-25T99:99:99Z\n', None),
    'an unknown alias': ('a: *nobody\n', 1),
    'an unknown tag with escape sequences': ('a: !<\x1b]0;gone> 1\n', None),
    'a control character': ('a: 1\nb: \x07\n', None),
    'a text of 300 kB': ('a: ' + 'x' * 300_000, None),
    'binary that is none': ('a: !!binary "\u00e4"\n', 1),
    'a list as a name': ('? [1, 2]\n: 1\n', 1),
    'an escape sequence as a name': ('"\\e[2J\\nforged": 1\n', None),
    'a merge of a number': ('a: {<<: 3}\n', 1),
}


@pytest.mark.parametrize('name', HOSTILE)
@pytest.mark.parametrize('load', ['plain', 'parameters', 'value'])
def test_hostile_yaml_ends_in_one_short_sentence(file, name, load):
    text, line = HOSTILE[name]
    ways = {
        'plain': lambda: load_plain_config(TrainConfig(), file(text)),
        'parameters': lambda: read_parameter_file(file(text)),
        'value': lambda: load_plain_config(TrainConfig(), None, [f'game.steps={text}']),
    }
    with pytest.raises(UserError) as caught:
        ways[load]()
    message = str(caught.value)
    assert len(message) < 2000 or 'the options are' in message
    assert message.isprintable()
    if line and load != 'value':
        assert f'params.yaml, line {line}:' in message


def test_a_file_of_the_package_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_plain_config(TrainConfig(), Path('config/train.yaml')).start.model == 'default'
    assert read_parameter_file(Path('config/cpu.yaml'))
    (tmp_path / 'config').mkdir()
    (tmp_path / 'config/train.yaml').write_text('game: {steps: 7}')
    assert load_plain_config(TrainConfig(), Path('config/train.yaml')).game.steps == 7
    with pytest.raises(UserError, match=r'nothing\.yaml'):
        load_plain_config(TrainConfig(), Path('config/nothing.yaml'))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    with pytest.raises(UserError, match='not a file'):
        read_plain_file(tmp_path / 'pipe.yaml')


def test_plain_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00\x80')
    for path in (tmp_path / 'none.yaml', tmp_path, tmp_path / 'binary.yaml'):
        with pytest.raises(UserError, match='cannot be read'):
            load_plain_config(TrainConfig(), path)


def test_plain_file_then_assignments_over_the_defaults(file):
    path = file('game:\n  steps: 20\n  batch: 8\n  learning_rate: 2e-4\n')
    config = load_plain_config(TrainConfig(), path, ['game.batch=4', 'inpainter.learning_rate=1.5e-3'])
    assert (config.game.steps, config.game.batch, config.game.learning_rate) == (20, 4, 2e-4)
    assert config.inpainter.learning_rate == 1.5e-3
    assert config.rendered == TrainConfig().rendered
    assert load_plain_config(TrainConfig(), None) == TrainConfig()


def test_unknown_names_in_a_plain_file_are_told(file):
    with pytest.raises(UserError, match=r"'game\.step'"):
        load_plain_config(TrainConfig(), file('game:\n  step: 20\n'))
    with pytest.raises(UserError, match=r'ros__parameters\.game\.steps'):
        load_plain_config(TrainConfig(), file('/**:\n  ros__parameters:\n    game.steps: 20\n'))
    with pytest.raises(UserError, match=r'game\.steps is \[1, 2\]'):
        load_plain_config(TrainConfig(), file('game:\n  steps: [1, 2]\n'))
    with pytest.raises(UserError, match='game'):
        load_plain_config(TrainConfig(), file('game:\n'))


PLAIN = dict.fromkeys(('train.yaml', 'train_rendered.yaml', 'train_teacher.yaml'), TrainConfig)
PLAIN['train_flow.yaml'] = FlowTrainConfig


@pytest.mark.parametrize('name', sorted(path.name for path in CONFIG.glob('*.yaml')))
def test_files_that_come_with_the_package(name):
    if name in PLAIN:
        assert load_plain_config(PLAIN[name](), CONFIG / name) is not None
    else:
        assert load_config(DetectorConfig(), CONFIG / name) != DetectorConfig()
