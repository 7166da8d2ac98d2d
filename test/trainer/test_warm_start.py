from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from moving_object_detector.errors import UserError
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import load_weights
from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.trainer.checkpoint import load_checkpoint
from moving_object_detector.trainer.rendered_pairs import PairOptions, RenderedPairs
from moving_object_detector.trainer.warm_start import WarmStartOptions, _learning_rate, main, mask_loss, train

TINY = ['--steps', '6', '--batch', '2', '--height', '32', '--width', '64', '--held-out', '1']
SMALL_SCENES = partial(PairOptions, scene=SceneOptions(size=(64, 128)))


@pytest.fixture
def small_scenes(monkeypatch):
    """Render few textures at a small size, where a test needs many pairs, and compute in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr('moving_object_detector.synthetic.textures.POOL', 4)
    monkeypatch.setattr('moving_object_detector.trainer.rendered_pairs.PairOptions', SMALL_SCENES)
    yield
    torch.set_num_threads(threads)


def test_mask_loss_by_hand():
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    # Entropy ln 2; Dice 1 - (2 * 1 + 1) / (2 + 2 + 1).
    assert float(mask_loss(torch.full((1, 1, 2, 2), 0.5), mask)) == pytest.approx(math.log(2) + 0.4)
    probability = torch.tensor([[[[0.9, 0.2], [0.6, 0.0]]]])
    entropy = -(math.log(0.9) + math.log(0.8) + math.log(0.6) + math.log(1)) / 4
    assert float(mask_loss(probability, mask)) == pytest.approx(entropy + 1 - (2 * 1.5 + 1) / (1.7 + 2 + 1), rel=1e-4)


def test_mask_loss_of_extremes():
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    empty = torch.zeros_like(mask)
    assert float(mask_loss(mask, mask)) == pytest.approx(0, abs=1e-5)
    assert float(mask_loss(empty, empty)) == pytest.approx(0, abs=1e-5)
    wrong = (1 - mask).requires_grad_()
    loss = mask_loss(wrong, mask)
    assert loss.item() == pytest.approx(-math.log(1e-6) + 1 - 1 / 5, rel=0.01)
    loss.backward()
    assert wrong.grad.isfinite().all()


def test_mask_loss_is_a_mean_over_the_batch():
    rng = torch.Generator().manual_seed(1)
    probability, mask = torch.rand(2, 3, 1, 8, 8, generator=rng)
    alone = [float(mask_loss(probability[k : k + 1], mask[k : k + 1])) for k in range(3)]
    assert float(mask_loss(probability, mask)) == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_learning_rate_by_hand():
    options = WarmStartOptions(steps=40, learning_rate=2e-3)
    # Two steps up, then half a cosine over 38 steps, down to a hundredth.
    assert _learning_rate(0, options) == pytest.approx(1e-3)
    assert _learning_rate(1, options) == pytest.approx(2e-3)
    assert _learning_rate(2, options) == pytest.approx(2e-3)
    assert _learning_rate(21, options) == pytest.approx(2e-3 * 0.505)
    assert _learning_rate(39, options) == pytest.approx(2e-3 * (0.01 + 0.99 * 0.5 * (1 - math.cos(math.pi / 38))))
    assert _learning_rate(0, WarmStartOptions(steps=1, learning_rate=2e-3)) == pytest.approx(2e-3)


def run(output, *arguments):
    """Start the program in a process of its own; it draws from four textures, making all of them takes long."""
    code = (
        'import sys; from moving_object_detector.synthetic import textures; textures.POOL = 4\n'
        'from moving_object_detector.trainer.warm_start import main; sys.exit(main(sys.argv[1:]))'
    )
    command = [sys.executable, '-c', code, str(output), *TINY, *arguments]
    environment = os.environ | {'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """Six steps at a stretch, with a rendering process, and six steps with a kill, without one: the same bits."""
    whole, killed = tmp_path / 'whole.safetensors', tmp_path / 'killed.safetensors'
    checkpoint = tmp_path / 'killed.safetensors.checkpoint'
    stretch = run(whole, '--workers', '1')
    process = run(killed, '--workers', '0', '--checkpoint-every', '2')
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not killed.exists()
    steps = torch.load(checkpoint, weights_only=True)['step']
    assert 2 <= steps < 6

    resumed = run(killed, '--workers', '0', '--checkpoint-every', '2')
    assert 'killed.safetensors: mean J ' in finish(resumed)
    finish(stretch)
    (state, metadata), (expected, _) = load_weights(killed), load_weights(whole)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert {key: metadata[key] for key in ('flow_input', 'flow_backend', 'height', 'width', 'steps', 'seed')} == {
        'flow_input': 'residual',
        'flow_backend': 'dis-medium',
        'height': '32',
        'width': '64',
        'steps': '6',
        'seed': '1',
    }
    both = [torch.load(f'{path}.checkpoint', weights_only=True) for path in (killed, whole)]
    assert both[0]['step'] == both[1]['step'] == 6
    assert all(torch.equal(both[0]['generator'][name], both[1]['generator'][name]) for name in expected)


def test_a_finished_run_is_not_repeated(tmp_path, small_scenes):
    output = tmp_path / 'new' / 'model.safetensors'
    options = WarmStartOptions(steps=2, batch=2, height=32, width=64)
    overlap = train(output, options, 0, 50, held_out=4)
    assert 0 <= overlap <= 1
    state, _ = load_weights(output)
    output.unlink()
    begin = time.monotonic()
    assert train(output, options, 0, 50, held_out=4) == overlap
    assert time.monotonic() - begin < 30
    again, _ = load_weights(output)
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize('flow_input', ['residual', 'normalised'])
def test_it_learns(tmp_path, small_scenes, flow_input):
    """After some steps the loss on pairs that training never saw is lower than that of any constant mask."""
    output = tmp_path / 'model.safetensors'
    options = WarmStartOptions(steps=40, batch=4, height=32, width=64, flow_input=flow_input)
    train(output, options, 0, 50, held_out=1)
    _, metadata = load_weights(output)
    assert metadata['flow_input'] == flow_input

    pairs = RenderedPairs(99, 0, 24, SMALL_SCENES(size=(32, 64)))
    image, flow, mask = (torch.stack(items) for items in zip(*(pairs[k] for k in range(24)), strict=True))
    trained = Generator()
    trained.load_state_dict(load_checkpoint(tmp_path / 'model.safetensors.checkpoint', vars(options))['generator'])
    with torch.no_grad():
        loss = float(mask_loss(trained(image, prepare_flow(flow, flow_input).flow), mask))
        constants = [float(mask_loss(torch.full_like(mask, p), mask)) for p in torch.linspace(0.01, 0.99, 50).tolist()]
    print(f'{flow_input}: loss {loss:.3f}, best constant {min(constants):.3f}')
    assert loss < min(constants)


def test_wrong_options(tmp_path, capsys):
    output = str(tmp_path / 'model.safetensors')
    for wrong in (['--height', '30'], ['--width', '66'], ['--seed', '-1']):
        assert main([output, *TINY, *wrong]) == 2
        assert 'error: height and width take multiples of 4, and seed' in capsys.readouterr().err
    for wrong in (
        ['--steps', '0'],
        ['--batch', '-2'],
        ['--learning-rate', '0'],
        ['--learning-rate', 'nan'],
        ['--checkpoint-every', '0'],
        ['--flow-input', 'raw'],
    ):
        with pytest.raises(SystemExit) as stopped:
            main([output, *TINY, *wrong])
        assert stopped.value.code == 2
        assert f'argument {wrong[0]}' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run_is_refused(tmp_path, small_scenes, capsys):
    output = tmp_path / 'model.safetensors'
    train(output, WarmStartOptions(steps=1, batch=1, height=32, width=64), 0, 50, held_out=1)
    with pytest.raises(UserError, match='is of a run with other options'):
        train(output, WarmStartOptions(steps=2, batch=1, height=32, width=64), 0, 50, held_out=1)
    (tmp_path / 'model.safetensors.checkpoint').write_bytes(b'damaged')
    assert main([str(output), *TINY]) == 2
    assert 'model.safetensors.checkpoint is no checkpoint that can be read' in capsys.readouterr().err
