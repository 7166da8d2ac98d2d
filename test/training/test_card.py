from __future__ import annotations

from moving_object_detector.common.options import with_values
from moving_object_detector.training.cards import as_text, changed_options, identity, write_card
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.run import flow_fingerprint, next_command
from moving_object_detector.training.selection import Judgement

CONFIG = with_values(
    TrainConfig(),
    {'data.root': '/home/me/films', 'flow.model': '/home/me/raft.pth', 'game.steps': 2000, 'game.consistency': 0.5},
)
COMMAND = ['--out', 'my run', 'data.root=/home/me/films', 'game.steps=2000']
JUDGED = {'000400': Judgement(0.25, 0.125), '002000': Judgement(0.75, 0.0)}


def test_what_it_was_trained_on_and_by_which_command():
    card = write_card(CONFIG, COMMAND, {'car': 40, 'dog': 60}, JUDGED, '002000')
    assert '# generator.safetensors' in card
    assert '| unlabelled video | 2 clips, 100 frames: car, dog |' in card
    assert '| adversarial game | 2000 steps of 16 pairs, seed 1 |' in card
    assert '| rendered scenes | 1100 steps of 10 pairs, exact masks |' in card
    assert "    ros2 run moving_object_detector train --out 'my run' data.root=/home/me/films game.steps=2000\n" in card
    assert '    game.steps: 2000\n    game.consistency: 0.5\n' in card


def test_candidates_and_the_choice():
    card = write_card(CONFIG, COMMAND, {'car': 40}, JUDGED, '002000')
    assert '| chosen | candidate 002000, by agreement |' in card
    assert '| 000400 | 0.250 | 0.125 |' in card
    assert '| 002000 | 0.750 | 0.000 |' in card
    assert 'No annotated frame was used.' in card


def test_rendered_scenes_alone():
    card = write_card(TrainConfig(), [], {}, {}, 'last')
    assert 'No annotated frame was used.' in card
    for absent in ('unlabelled video', 'adversarial game', 'chosen', 'candidate', 'Options other than the defaults'):
        assert absent not in card


def test_only_changed_options_are_listed():
    assert changed_options(TrainConfig()) == {}
    assert changed_options(CONFIG) == {'game.steps': 2000, 'game.consistency': 0.5}  # no path


def test_a_model_file_says_all_options_but_where_things_lay():
    text = as_text(CONFIG)
    assert text['game.steps'] == '2000'
    assert text['game.learning_rate'] == '0.0001'
    assert not any('/home/me' in value for value in text.values())


def known_as(config, clips):
    return identity(config, flow_fingerprint(config.flow), clips)


def test_a_run_is_known_by_what_decides_its_weights():
    known = known_as(CONFIG, ['car-0123', 'dog-4567'])
    for shown in (
        {'name': 'other'},
        {'data.root': '/moved/films', 'data.workers': 7, 'data.cache': '/tmp/cache', 'flow.model': '/moved/raft.pth'},
        {
            'run.checkpoint_every': 7,
            'run.picture_every': 3,
            'run.threads': 2,
            'run.device': 'cuda',
            'run.select': 'last',
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
