from __future__ import annotations

import pickle

import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.checkpoint import load_checkpoint, save_checkpoint

OPTIONS = {'steps': 10, 'seed': 1}


def test_round_trip_in_a_new_folder(tmp_path):
    path = tmp_path / 'new' / 'run.checkpoint'
    assert load_checkpoint(path, OPTIONS) is None
    for step in (3, 6):
        save_checkpoint(path, {'options': OPTIONS, 'step': step, 'weights': {'a': torch.arange(4.0) * step}})
        state = load_checkpoint(path, dict(OPTIONS))
        assert state['step'] == step
        assert torch.equal(state['weights']['a'], torch.arange(4.0) * step)
    assert [file.name for file in path.parent.iterdir()] == ['run.checkpoint']


def test_what_a_kill_during_writing_leaves_does_not_matter(tmp_path):
    path = tmp_path / 'run.checkpoint'
    save_checkpoint(path, {'options': OPTIONS, 'step': 3})
    (tmp_path / '.run.checkpoint.0123456789abcdef.tmp').write_bytes(path.read_bytes()[:100])
    assert load_checkpoint(path, OPTIONS)['step'] == 3
    save_checkpoint(path, {'options': OPTIONS, 'step': 4})
    assert load_checkpoint(path, OPTIONS)['step'] == 4


def test_a_run_with_other_options(tmp_path):
    path = tmp_path / 'run.checkpoint'
    save_checkpoint(path, {'options': OPTIONS, 'step': 3})
    with pytest.raises(
        UserError, match=r'of a run with other options \(steps 10 there and 11 now\); match them, or remove'
    ):
        load_checkpoint(path, {'steps': 11, 'seed': 1})
    save_checkpoint(path, {'options': {'data': {'root': 'a', 'gap': 5}, 'seed': 1}})
    with pytest.raises(UserError, match=r'\(data\.gap 5 there and 2 now, name None there and x now\)'):
        load_checkpoint(path, {'data': {'root': 'a', 'gap': 2}, 'seed': 1, 'name': 'x'})


def test_a_full_disk(tmp_path, full_disk):
    path = tmp_path / 'run.checkpoint'
    save_checkpoint(path, {'options': OPTIONS, 'step': 3})
    with full_disk(after=10_000), pytest.raises(UserError, match=r'run\.checkpoint cannot be written'):
        save_checkpoint(path, {'options': OPTIONS, 'weights': torch.zeros(1_000_000)})
    assert [file.name for file in tmp_path.iterdir()] == ['run.checkpoint']
    assert load_checkpoint(path, OPTIONS)['step'] == 3


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from the file has run')",)


@pytest.mark.parametrize('kind', ['empty', 'text', 'cut short', 'no options', 'malicious'])
def test_damaged_files(tmp_path, kind):
    path = tmp_path / 'run.checkpoint'
    save_checkpoint(path, {'options': OPTIONS, 'weights': torch.zeros(1000)})
    whole = path.read_bytes()
    torch.save({'step': 3}, tmp_path / 'other')
    data = {
        'empty': b'',
        'text': b'no checkpoint',
        'cut short': whole[: len(whole) // 2],
        'no options': (tmp_path / 'other').read_bytes(),
        'malicious': pickle.dumps(Malicious()),
    }
    path.write_bytes(data[kind])
    with pytest.raises(UserError, match=r'run\.checkpoint is no checkpoint that can be read; remove it'):
        load_checkpoint(path, OPTIONS)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'run\.checkpoint cannot be written'):
        save_checkpoint(tmp_path / 'file' / 'run.checkpoint', {'options': OPTIONS})
