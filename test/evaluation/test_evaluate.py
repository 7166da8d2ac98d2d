from __future__ import annotations

import json
import re

import cv2
import pytest

from moving_object_detector.evaluation.evaluate import main


def test_the_program_end_to_end(davis, options, tmp_path, capsys):
    out = tmp_path / 'new' / 'results'
    assert main(['--root', str(davis), '--out', str(out), '--set', *options]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r'J (\d\.\d{3}) frames 12 fps (\d+\.\d\d)', last)
    assert found
    assert float(found[2]) > 0.2

    report = json.loads((out / 'results.json').read_text())
    sequences = report['sequences']
    assert list(sequences) == ['wander', 'blink']
    for name, score in sequences.items():
        assert len(score['frames']) == 6
        assert score['mean J'] == pytest.approx(sum(score['frames'][1:-1]) / 4)
        sheet = cv2.imread(str(out / f'{name}.png'))
        assert sheet.shape == (2 * 240, 4 * 480, 3)  # frames of 96x48 at a width of 480
        assert sheet.std() > 5
    assert report['mean J'] == pytest.approx(sum(score['mean J'] for score in sequences.values()) / 2)
    assert f'{report["mean J"]:.3f}' == found[1]
    assert report['estimate'] == 'refined'
    assert report['engine'] == 'torch float32 on cpu'
    assert report['flow'] == 'dis-ultrafast'
    assert report['configuration']['window'] == {'past': 1, 'future': 1, 'stride': 1}


def test_the_official_rule_by_hand(davis, options, tmp_path, capsys):
    """Nothing passes the gate: J is 1 where there is no object and 0 elsewhere, the ends not counted."""
    arguments = ['--root', str(davis), '--out', str(tmp_path), '--set', *options, 'gate.min_motion=1000.0']
    assert main(arguments) == 0
    report = json.loads((tmp_path / 'results.json').read_text())
    assert report['sequences']['wander'] == {'mean J': 0, 'frames': [0, 0, 0, 0, 0, 0]}
    assert report['sequences']['blink'] == {'mean J': 0.25, 'frames': [0, 0, 1, 0, 0, 1]}
    assert capsys.readouterr().out.splitlines()[-1].startswith('J 0.125 frames 12 fps ')


def test_chosen_sequences_and_the_zero_lag_estimate(davis, options, tmp_path, capsys):
    arguments = ['--root', str(davis), '--sequences', 'blink', '--estimate', 'zero_lag', '--out', str(tmp_path)]
    assert main([*arguments, '--set', *options]) == 0
    assert ' frames 6 fps ' in capsys.readouterr().out.splitlines()[-1]
    report = json.loads((tmp_path / 'results.json').read_text())
    assert list(report['sequences']) == ['blink']
    assert report['estimate'] == 'zero_lag'
    assert report['sequences']['blink']['frames'][0] == 0  # no earlier neighbour, so empty; there is an object


def test_parameters_of_the_nodes_file(davis, options, tmp_path):
    config = tmp_path / 'params.yaml'
    rows = [option.replace('=', ': ', 1) for option in options]
    config.write_text('/**:\n  ros__parameters:\n    qos_depth_of_somebody_else: 3\n    ' + '\n    '.join(rows))
    assert main(['--root', str(davis), '--sequences', 'wander', '--config', str(config), '--out', str(tmp_path)]) == 0
    assert json.loads((tmp_path / 'results.json').read_text())['configuration']['flow']['preset'] == 'ultrafast'


def test_mistakes_are_told(davis, options, tmp_path, capsys):
    def error(*arguments, root=davis):
        assert main(['--root', str(root), *arguments, '--set', *options]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert re.search(r'error: .*none.*val\.txt is missing', error(root=tmp_path / 'none'))
    assert re.search(r'error: .*train\.txt is missing', error('--split', 'train'))
    assert error('--sequences', 'wander', 'dog', 'cat') == (
        'error: no sequence dog, cat in the split; there are wander, blink'
    )
    (tmp_path / 'file').write_text('')
    assert 'file cannot be made a folder' in error('--out', str(tmp_path / 'file'))

    frame = davis / 'JPEGImages' / '480p' / 'wander' / '00002.jpg'
    frame.write_bytes(b'no picture')
    assert re.search(r'error: .*wander/00002\.jpg: not an image that can be decoded', error())
    frame.unlink()
    assert re.search(r'error: .*wander/00002\.jpg: cannot be read: No such file', error())

    for annotation in (davis / 'Annotations' / '480p' / 'blink').iterdir():
        annotation.unlink()
    assert 'sequence blink has no annotation' in error('--sequences', 'blink')


def test_a_wrong_option(davis, capsys):
    assert main(['--root', str(davis), '--set', 'window.past=many']) == 2
    assert "error: window.past is 'many', but takes a whole number from 0 to 20" in capsys.readouterr().err
