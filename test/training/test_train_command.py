"""The program ``train`` as a user meets it: help, options and mistakes; whole runs are in test_run.py."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from moving_object_detector.common.options import options_of
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.train import main

CODE = """
import sys
from moving_object_detector.training.train import main
try:
    status = main(sys.argv[1:])
except SystemExit as stopped:
    status = stopped.code
print('SLOW', sorted({'torch', 'cv2', 'numpy', 'tqdm'} & set(sys.modules)), status)
"""


@pytest.mark.parametrize(
    'arguments', [['--help'], ['--options'], ['flow', '--help'], ['flow', '--options']], ids=' '.join
)
def test_help_and_options_are_instant(arguments):
    done = subprocess.run([sys.executable, '-c', CODE, *arguments], capture_output=True, text=True, check=True)
    text, _, slow = done.stdout.rpartition('SLOW')
    assert slow.split() == ['[]', '0']
    if arguments == ['--options']:
        listed = {line.partition('=')[0] for line in text.splitlines() if not line.startswith(' ')}
        assert listed == {option.name for option in options_of(TrainConfig)}
        assert 'run.precision=float32\n' in text
        assert 'Takes one of float32, bfloat16.' in text
        assert 'rendered.batch=10\n    Pairs per step. Takes a whole number from 1 to 4096.' in text
    else:
        assert ('training.steps=' if '--options' in arguments else '--out OUT') in text


def mistake(capsys, *arguments):
    """Return the message of a run that is refused; what stands last are options."""
    words = [str(argument) for argument in arguments]
    settings = [word for word in words[2:] if not word.startswith('-') and words[words.index(word) - 1][:2] != '--']
    assert main([*(word for word in words if word not in settings), *(['--set', *settings] if settings else [])]) == 2
    error = capsys.readouterr().err
    assert 'Traceback' not in error
    return error[error.index('error: ') :]


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('game.step=5', "there is no option 'game.step'; the options are name, data.root"),
        ('game.steps', "'game.steps' is not of the form name=value"),
        ('game.steps=many', "game.steps is 'many', but takes a whole number from 0 to 1e+09"),
        ('game.steps=-1', 'game.steps is -1, but takes a whole number'),
        ('game.learning_rate=0', 'game.learning_rate is 0.0, but takes a number from 1e-08 to 1'),
        ('game.learning_rate=nan', "game.learning_rate is 'nan', but takes a number"),
        ('run.precision=half', "run.precision is 'half', but takes one of float32, bfloat16"),
        ('data.workers=2', 'run.workers'),
        ('run.seed=-1', 'run.seed is -1, but takes a whole number from 0'),
        ('network.height=30', 'network.height is 30, but takes a whole number from 32'),
        ('network.height=34', 'network.height and network.width are 34 and 192, but take multiples of 4'),
        ('name=a/b', "name is 'a/b', but takes a file name"),
        ('name=', "name is '', but takes a file name"),
        ('game.adversarial=0', 'game.adversarial and game.consistency are both 0'),
        ('run.device=gpu', "run.device is 'gpu', but takes auto, cpu, cuda or cuda:N"),
        ('rendered.steps=0', 'there is nothing to train on: set data.root to your footage, or rendered.steps above 0'),
        ('data.root=nowhere/to/be/found', 'nowhere/to/be/found: no such file or folder'),
        ('data.root=" , "', 'no data was given; name a data set'),
        ('start.model=missing.safetensors', 'missing.safetensors: no such model file; check the path'),
        ('start.inpainter=missing.safetensors', 'missing.safetensors: no such model file; check the path'),
    ],
)
def test_wrong_options(tmp_path, capsys, option, message):
    assert message in mistake(capsys, '--out', tmp_path / 'out', 'run.device=cpu', option)
    out = tmp_path / 'out'
    assert not out.exists() or {path.name for path in out.iterdir()} <= {'lock'}


def test_no_steps_at_all(tmp_path, capsys):
    steps = ['rendered.steps=0', 'inpainter.steps=0', 'game.steps=0']
    error = mistake(capsys, '--out', tmp_path, f'data.root={tmp_path}', *steps)
    assert 'are all 0' in error


def test_a_flow_network_without_weights(tmp_path, capsys, footage):
    error = mistake(capsys, '--out', tmp_path, f'data.root={footage}', 'flow.backend=raft_small')
    assert 'get_weights raft_small' in error


def test_out_cannot_be_made(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    error = mistake(capsys, '--out', tmp_path / 'file' / 'run', 'run.device=cpu')
    assert 'file/run cannot be made a folder: Not a directory; give another path' in error
    assert 'file cannot be made a folder: File exists' in mistake(capsys, '--out', tmp_path / 'file')


def test_options_from_a_file_and_the_command_line(tmp_path, capsys):
    file = tmp_path / 'train.yaml'
    file.write_text('game:\n  steps: 7\nrun.precision: half\n')
    # What is wrong in the file is told, what the command line overrides is not.
    assert "run.precision is 'half'" in mistake(capsys, '--config', file, '--out', tmp_path / 'out')
    error = mistake(capsys, '--config', file, '--out', tmp_path / 'out', 'run.precision=float32', 'run.device=gpu')
    assert "run.device is 'gpu'" in error
    file.write_text('data:\n  workers: 7\n')
    assert "no option 'data.workers'" in mistake(capsys, '--config', file, '--out', tmp_path / 'out')
    assert 'cannot be read' in mistake(capsys, '--config', tmp_path / 'none.yaml')


def test_options_before_the_command_are_refused(capsys):
    assert main(['--out', 'x', 'flow', '--options']) == 2
    assert 'train flow' in capsys.readouterr().err


def test_a_clip_of_one_frame(tmp_path, capsys):
    (tmp_path / 'clip').mkdir()
    cv2.imwrite(str(tmp_path / 'clip' / '0.png'), np.zeros((48, 64, 3), np.uint8))
    error = mistake(capsys, '--out', tmp_path / 'out', f'data.root={tmp_path / "clip"}')
    assert 'clip' in error
    assert 'frame' in error
