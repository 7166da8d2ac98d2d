"""Whole runs of the program ``train``: killed and resumed, and what they leave."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest
import torch

from moving_object_detector.common.options import with_values
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import load_weights
from moving_object_detector.training.loop import read_log

pytestmark = pytest.mark.slow
RESULTS = ('generator.safetensors', 'generator-inpainter.safetensors', 'log.jsonl')


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return out


def test_killed_at_any_moment_a_run_ends_the_same(swept):
    """Bit for bit: both players' weights, all candidates and the log, without a doubled or a missing step."""
    report, whole = swept
    print(f'moments {[kill["moment"] for kill in report]} of {report[0]["of"]}')
    print(f'checkpoints when killed {[kill["checkpoint"] for kill in report]}')
    assert [kill for kill in report if kill['different']] == []
    lines = [(line['stage'], line['step']) for line in read_log(whole / 'log.jsonl')]
    expected = [(stage, k) for stage, steps in (('rendered', 3), ('inpainter', 3), ('game', 5)) for k in range(steps)]
    assert lines == expected


def test_a_run_killed_from_outside_goes_on_with_another_number_of_workers(swept, start_train, tmp_path):
    _, whole = swept
    process = start_train(tmp_path, 'run.workers=1')
    while not (tmp_path / 'checkpoint.pt').exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / 'generator.safetensors').exists()
    finish(start_train(tmp_path, 'run.workers=0', 'run.checkpoint_every=3', 'run.picture_every=1'))
    log, expected = ((folder / 'log.jsonl').read_bytes() for folder in (tmp_path, whole))
    assert log == expected
    for name in RESULTS[:2]:
        architecture = 'inpainter' if 'inpainter' in name else 'generator'
        (found, _), (exact, _) = (load_weights(folder / name, architecture) for folder in (tmp_path, whole))
        assert all(torch.equal(found[key], exact[key]) for key in exact)


def test_a_second_training_in_the_same_folder_is_refused(swept, start_train, tmp_path):
    """It names the first one, which goes on undisturbed."""
    first = start_train(tmp_path)
    while not (tmp_path / 'lock').exists() or not (tmp_path / 'lock').read_text():
        time.sleep(0.01)
    out, err = start_train(tmp_path).communicate()
    assert first.poll() is None
    assert not out
    assert f'in use by process {first.pid} (small_train.py, since ' in err
    assert 'Traceback' not in err
    finish(first)
    assert (tmp_path / 'log.jsonl').read_bytes() == (swept[1] / 'log.jsonl').read_bytes()


def same_weights(folder, whole):
    (found, _), (exact, _) = (load_weights(path / 'generator.safetensors') for path in (folder, whole))
    return all(torch.equal(found[key], exact[key]) for key in exact)


@pytest.mark.parametrize('workers', [0, 1])
def test_damage_in_the_flow_cache_is_said_and_mended(swept, start_train, tmp_path, workers):
    shutil.copytree(start_train.cache, tmp_path / 'cache')
    chunks = sorted((tmp_path / 'cache').rglob('*-flow.npy'))
    for chunk in chunks:
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 16
        chunk.write_bytes(data)
    process = start_train(tmp_path, f'data.cache={tmp_path / "cache"}', f'run.workers={workers}')
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert 'damaged' in err
    assert 'computed again' in err
    assert same_weights(tmp_path, swept[1])
    for chunk in chunks:
        assert chunk.read_bytes() == (start_train.cache / chunk.relative_to(tmp_path / 'cache')).read_bytes()


def test_a_flow_cache_that_is_removed_during_the_training_is_said_and_made_again(swept, start_train, tmp_path):
    shutil.copytree(start_train.cache, tmp_path / 'cache')
    process = start_train(tmp_path, f'data.cache={tmp_path / "cache"}')
    while not (tmp_path / 'checkpoint.pt').exists():
        assert process.poll() is None
        time.sleep(0.01)
    shutil.rmtree(tmp_path / 'cache')
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert 'gone, a part of the flow cache' in err
    assert 'Traceback' not in err
    assert same_weights(tmp_path, swept[1])


def test_the_detector_runs_with_what_a_run_leaves(swept, small_scene):
    _, whole = swept
    config = with_values(
        DetectorConfig(),
        {
            'model': str(whole / 'generator.safetensors'), 'window.past': 1, 'window.future': 0, 'device': 'cpu',
            'engine': 'torch',
        },
    )  # fmt: skip
    detector = build_detector(config)
    results = [result for k in range(3) for result in detector.step(small_scene.image(k), k * 40_000_000).results]
    assert results
    assert results[-1].mask.shape == (64, 128)


def test_model_and_card_say_how_they_were_made(swept):
    _, whole = swept
    state, metadata = load_weights(whole / 'generator.safetensors')
    Generator().load_state_dict(state)
    assert {key: metadata[key] for key in ('flow_input', 'flow_backend', 'height', 'width', 'game.steps')} == {
        'flow_input': 'residual',
        'flow_backend': 'dis-medium',
        'height': '32',
        'width': '64',
        'game.steps': '5',
    }
    card = (whole / 'generator.md').read_text()
    assert '    ros2 run moving_object_detector train --out ' in card
    assert '| unlabelled video | 1 clips, 8 frames: walk |' in card
    for step in ('game-000000', 'game-000002', 'game-000005'):
        assert f'| {step} | ' in card
        assert (whole / 'candidates' / f'{step}.safetensors').exists()
    pictures = {path.name.rpartition('-')[0] for path in (whole / 'pictures').iterdir()}
    assert pictures == {'rendered-masks', 'inpainter-boxes', 'game-players'}
