from __future__ import annotations

from moving_object_detector.common.files import fetched_weights
from moving_object_detector.common.options import with_values
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.run import (
    flow_fingerprint,
    identity,
    next_command,
    options_told,
    write_card,
)

CONFIG = with_values(
    TrainConfig(),
    {'data.root': '/home/me/films', 'flow.model': '/home/me/raft.pth', 'game.steps': 2000, 'game.consistency': 0.5},
)
COMMAND = ['--out', 'my run', 'data.root=/home/me/films', 'game.steps=2000']


def test_rows_text_command_and_options(tmp_path):
    rows = {'network': 'a network', 'stage game': '2000 steps of 16 pairs'}
    model = tmp_path / 'generator.safetensors'
    path = write_card(model, CONFIG, rows, ['No annotated frame was used.'], 'train', COMMAND)
    assert path == tmp_path / 'generator.md'
    card = path.read_text()
    assert '# generator.safetensors' in card
    assert '| network | a network |\n| stage game | 2000 steps of 16 pairs |\n| made with | PyTorch ' in card
    assert '\nNo annotated frame was used.\n' in card
    assert "    ros2 run moving_object_detector train --out 'my run' data.root=/home/me/films game.steps=2000\n" in card
    assert '    game.steps: 2000\n    game.consistency: 0.5\n' in card
    card = write_card(model, TrainConfig(), rows, [], 'train', COMMAND).read_text()
    assert 'Options other than the defaults' not in card


def test_only_changed_options_are_listed():
    assert options_told(TrainConfig(), changed=True) == {}
    assert options_told(CONFIG, changed=True) == {'game.steps': 2000, 'game.consistency': 0.5}  # no path


def test_a_model_file_says_all_options_but_where_things_lay():
    told = options_told(CONFIG)
    assert told['game.steps'] == 2000
    assert told['game.learning_rate'] == 0.0001
    assert not any('/home/me' in str(value) for value in told.values())


def test_what_auto_stands_for_is_part_of_the_flows_name(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    auto = FlowConfig(backend='auto')
    assert flow_fingerprint(auto) == flow_fingerprint(FlowConfig(backend='dis'))
    assert flow_fingerprint(auto) != flow_fingerprint(FlowConfig(backend='auto', preset='brisk'))
    weights = fetched_weights('raft_small')
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b'one')
    one = flow_fingerprint(auto)
    assert one == flow_fingerprint(FlowConfig(backend='raft_small', model=str(weights)))
    weights.write_bytes(b'other')
    assert flow_fingerprint(auto) != one


def known_as(config, clips):
    return identity(config, flow_fingerprint(config.flow), clips)


def test_a_run_is_known_by_what_decides_its_weights():
    known = known_as(CONFIG, ['car-0123', 'dog-4567'])
    for shown in (
        {'name': 'other'},
        {'data.root': '/moved/films', 'run.workers': 7, 'data.cache': '/tmp/cache', 'flow.model': '/moved/raft.pth'},
        {
            'run.checkpoint_every': 7,
            'run.picture_every': 3,
            'run.threads': 2,
            'run.device': 'cuda',
        },
    ):
        assert known_as(with_values(CONFIG, shown), ['car-0123', 'dog-4567']) == known
    assert known_as(CONFIG, ['car-0123', 'dog-89ab']) != known
    for decides in (
        {'game.steps': 2001},
        {'run.seed': 2},
        {'run.precision': 'bfloat16'},
        {'rendered.batch': 8},
        {'flow.preset': 'fast', 'flow.backend': 'dis'},
        {'inpainter.learning_rate': 1e-3},
        {'network.height': 128},
        {'data.largest_gap': 2},
        {'run.candidates': 3},
        {'start.model': 'default'},
    ):
        assert known_as(with_values(CONFIG, decides), ['car-0123', 'dog-4567']) != known


def test_the_next_command_takes_the_flow_that_was_trained_on(tmp_path):
    config = with_values(TrainConfig(), {'flow.preset': 'fast', 'flow.height': 128})
    command = next_command(config, tmp_path / 'my run' / 'generator.safetensors')
    assert f"-p model:='{tmp_path}/my run/generator.safetensors'" in command
    assert '-p flow.preset:=fast -p flow.height:=128' in command
    assert 'flow.backend' not in command


def test_weights_to_start_from_count_by_their_content(tmp_path):
    def known(path):
        return known_as(with_values(CONFIG, {'start.model': str(path)}), ['car-0123'])

    one, other = tmp_path / 'one.safetensors', tmp_path / 'other.safetensors'
    one.write_bytes(b'weights')
    before = known(one)
    other.write_bytes(b'weights')
    assert known(other) == before
    one.write_bytes(b'trained further')
    assert known(one) != before
