from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.loop import load_checkpoint, save_checkpoint

OPTIONS = {'steps': 10, 'seed': 1}


def test_round_trip_in_a_new_folder(tmp_path):
    path = tmp_path / 'new' / 'run.checkpoint'
    assert load_checkpoint(path, OPTIONS) is None
    for step in (3, 6):
        save_checkpoint(path, {'options': OPTIONS, 'step': step, 'weights': {'a': torch.arange(4.0) * step}})
        state = load_checkpoint(path, dict(OPTIONS))
        assert state['step'] == step
        assert torch.equal(state['weights']['a'], torch.arange(4.0) * step)
    assert {file.name for file in path.parent.iterdir()} == {'run.checkpoint', 'run-before.checkpoint'}


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
    with pytest.raises(UserError, match=r'\(steps 10 there and 11 now\)'):
        load_checkpoint(path, {'steps': 11, 'seed': 1})
    save_checkpoint(path, {'options': {'data': {'root': 'a', 'gap': 5}, 'seed': 1}})
    with pytest.raises(UserError, match=r'data\.gap 5 .* 2 now, name None'):
        load_checkpoint(path, {'data': {'root': 'a', 'gap': 2}, 'seed': 1, 'name': 'x'})


def test_a_full_disk(tmp_path, full_disk):
    path = tmp_path / 'run.checkpoint'
    save_checkpoint(path, {'options': OPTIONS, 'step': 3})
    with full_disk(after=10_000), pytest.raises(UserError, match=r'run\.checkpoint'):
        save_checkpoint(path, {'options': OPTIONS, 'weights': torch.zeros(1_000_000)})
    assert load_checkpoint(path, OPTIONS)['step'] == 3


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from the file has run')",)


def flipped(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_any_flipped_bit_is_found_and_the_checkpoint_before_is_taken(tmp_path, caplog):
    path = tmp_path / 'run.checkpoint'
    for step in (3, 6):
        save_checkpoint(path, {'options': OPTIONS, 'step': step, 'weights': torch.arange(50.0)})
    whole = path.read_bytes()
    bits = np.random.default_rng(1).integers(0, 8 * len(whole), 200)
    for bit in bits.tolist():
        flipped(path, bit)
        assert load_checkpoint(path, OPTIONS)['step'] == 3, bit
        path.write_bytes(whole)
    assert load_checkpoint(path, OPTIONS)['step'] == 6
    assert 'run.checkpoint is damaged' in caplog.text
    assert 'run-before.checkpoint' in caplog.text
    flipped(path, 80)
    flipped(tmp_path / 'run-before.checkpoint', 80)
    with pytest.raises(UserError, match=r'run\.checkpoint'):
        load_checkpoint(path, OPTIONS)


def test_a_damaged_checkpoint_never_replaces_the_one_before(tmp_path):
    path, before = tmp_path / 'run.checkpoint', tmp_path / 'run-before.checkpoint'
    for step in (3, 6):
        save_checkpoint(path, {'options': OPTIONS, 'step': step})
    flipped(path, 80)
    intact = before.read_bytes()
    # Resumed from step 3 and saved again: had it been killed before the new file was in place, step 3 would be there.
    save_checkpoint(path, {'options': OPTIONS, 'step': 5})
    assert before.read_bytes() == intact
    assert load_checkpoint(path, OPTIONS)['step'] == 5


def test_without_its_checkpoint_a_run_starts_anew(tmp_path):
    path = tmp_path / 'run.checkpoint'
    for step in (3, 6, 9):
        save_checkpoint(path, {'options': OPTIONS, 'step': step})
    assert {file.name for file in tmp_path.iterdir()} == {'run.checkpoint', 'run-before.checkpoint'}
    flipped(path, 80)
    assert load_checkpoint(path, OPTIONS)['step'] == 6
    path.unlink()
    assert load_checkpoint(path, OPTIONS) is None


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
    with pytest.raises(UserError, match=r'run\.checkpoint .*remove it'):
        load_checkpoint(path, OPTIONS)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'run\.checkpoint'):
        save_checkpoint(tmp_path / 'file' / 'run.checkpoint', {'options': OPTIONS})
