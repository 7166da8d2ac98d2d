from __future__ import annotations

import json
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.loop import Journal, read_log

STAGES = ['rendered', 'game']


def write(folder, steps, stage=0, step=0, stages=STAGES):
    with Journal(folder, stages, stage, step) as journal:
        for number, value in steps:
            journal.write(number, value, {'loss': value / 2}, {})


def steps(folder):
    return [(line['stage'], line['step']) for line in read_log(folder / 'log.jsonl')]


def test_a_line_for_each_step(tmp_path):
    write(tmp_path / 'new', [(0, 0), (0, 1), (1, 0)])
    assert read_log(tmp_path / 'new' / 'log.jsonl') == [
        {'stage': 'rendered', 'step': 0, 'loss': 0.0},
        {'stage': 'rendered', 'step': 1, 'loss': 0.5},
        {'stage': 'game', 'step': 0, 'loss': 0.0},
    ]


def test_what_a_killed_run_did_after_its_checkpoint_is_dropped(tmp_path):
    write(tmp_path, [(0, k) for k in range(4)] + [(1, k) for k in range(5)])
    write(tmp_path, [(1, 3)], stage=1, step=3)
    assert steps(tmp_path) == [('rendered', k) for k in range(4)] + [('game', k) for k in range(4)]
    write(tmp_path, [(0, 2)], stage=0, step=2)
    assert steps(tmp_path) == [('rendered', k) for k in range(3)]
    write(tmp_path, [])
    assert steps(tmp_path) == []


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path):
    write(tmp_path, [(0, 0), (0, 1)])
    with (tmp_path / 'log.jsonl').open('a') as file:
        file.write('{"stage": "game", "st')
    assert steps(tmp_path) == [('rendered', 0), ('rendered', 1)]
    write(tmp_path, [(0, 2)], stage=0, step=2)
    assert steps(tmp_path) == [('rendered', k) for k in range(3)]


def test_the_log_of_a_run_with_other_stages_is_no_hindrance(tmp_path):
    write(tmp_path, [(0, 0), (1, 0)])
    write(tmp_path, [(0, 0)], stages=['rendered'])
    assert steps(tmp_path) == [('rendered', 0)]


def test_what_is_flushed_is_on_the_disk(tmp_path):
    with Journal(tmp_path, STAGES) as journal:
        journal.write(0, 0, {'loss': 1.0}, {})
        journal.flush()
        assert steps(tmp_path) == [('rendered', 0)]


def test_pictures_are_rgb(tmp_path):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 255
    with Journal(tmp_path, STAGES) as journal:
        journal.write(1, 9, {}, {'players': picture})
    blue_green_red = cv2.imread(str(tmp_path / 'pictures' / 'game-players-000010.png'))
    assert blue_green_red.shape == (4, 6, 3)
    assert (blue_green_red == (0, 0, 255)).all()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='--out'):
        write(tmp_path / 'file', [])


@pytest.mark.skipif(find_spec('tensorboard') is None, reason='tensorboard is not installed here')
def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [(0, k) for k in range(4)] + [(1, k) for k in range(5)])
    write(tmp_path, [(1, k) for k in range(3, 6)], stage=1, step=3)
    shown = {}
    for stage in STAGES:
        events = EventAccumulator(str(tmp_path / 'tensorboard' / stage))
        events.Reload()
        shown[stage] = [(event.step, event.value) for event in events.Scalars(f'{stage}/loss')]
    assert shown == {'rendered': [(k, k / 2) for k in range(4)], 'game': [(k, k / 2) for k in range(6)]}


def test_damaged_lines_of_a_log_are_left_out_and_said(tmp_path, caplog):
    log = tmp_path / 'log.jsonl'
    good = [json.dumps({'stage': 'first', 'step': step, 'loss': 1.0}).encode() for step in range(3)]
    bad = [b'{"stage": "first", "st', b'\xff\xfe', b'[' * 5000, b'3', b'{"stage": 1, "step": 2}', b'']
    log.write_bytes(b'\n'.join([good[0], *bad, good[1], good[2]]) + b'\n')
    assert [line['step'] for line in read_log(log)] == [0, 1, 2]
    assert '6 damaged lines' in caplog.text
    with Journal(tmp_path, ['first'], 0, 2):
        pass
    assert log.read_bytes() == b'\n'.join(good[:2]) + b'\n'
