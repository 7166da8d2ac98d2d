from __future__ import annotations

import pytest

from moving_object_detector.training.smoke import RENDER, fell, main, quarters


def test_a_loss_that_does_not_fall_is_told(capsys):
    assert fell('loss', *quarters([4.0, 2.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0]))
    assert capsys.readouterr().out == 'loss: 3.000 at the beginning, 1.500 at the end\n'
    assert not fell('loss', *quarters([1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0]))
    assert capsys.readouterr().out == 'loss: 1.500 at the beginning, 1.500 at the end: did not fall\n'
    assert not fell('loss', float('nan'), float('nan'))


def test_a_training_that_fails_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('moving_object_detector.training.smoke.RENDER', ('--frames', '2', *RENDER[2:]))
    assert main(['--out', str(tmp_path), 'data.root=nowhere']) == 1
    assert 'nowhere: no such file or folder' in capsys.readouterr().err


@pytest.mark.timeout(600)
def test_both_players_learn(tmp_path, capsys):
    """What ``make train-smoke`` does."""
    status = main(['--out', str(tmp_path)])
    out = capsys.readouterr().out
    print(out)
    assert status == 0
    assert "inpainter's loss on boxes: " in out
    assert "generator's loss in the game: " in out
    assert (tmp_path / 'run' / 'generator.safetensors').exists()
