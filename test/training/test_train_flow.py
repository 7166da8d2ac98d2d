import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.options import options_of
from moving_object_detector.common.parameter_files import load_plain_config
from moving_object_detector.detection.build import create_flow
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.media.pictures import write_flow
from moving_object_detector.networks.weights import load_weights
from moving_object_detector.training.config import FlowTrainConfig
from moving_object_detector.training.flow_training import run_flow_training
from moving_object_detector.training.train import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
TINY = [
    'training.steps=3',
    'training.learning_rate=1e-5',
    'training.batch=2',
    'training.height=64',
    'training.width=64',
    'validation.scenes=1',
    'run.workers=0',
    'run.threads=1',
    'run.device=cpu',
    'run.checkpoint_every=1',
]


def start(out, *options, **environment):
    """Start the program in a process of its own."""
    program = [sys.executable, '-m', 'moving_object_detector.training.train', 'flow', '--out', str(out)]
    command = [*program, '--set', *TINY, *options]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), **environment}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(folder):
    return load_weights(folder / 'pwcnet.safetensors', 'pwcnet')[0]


def log(folder):
    return [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]


def run_here(out, *options):
    """Run the program in this process, as :func:`start` does in another."""
    threads = torch.get_num_threads()
    assert main(['flow', '--out', str(out), '--set', *TINY, *options]) == 0
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run at a stretch, with a folder of pairs to be measured on."""
    root = tmp_path_factory.mktemp('whole')
    folder = root / 'pairs' / 'made up'
    folder.mkdir(parents=True)
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ('frame1.png', 'frame2.png'):
        cv2.imwrite(str(folder / name), image)
    write_flow(folder / 'flow.flo', np.full((64, 64, 2), (3, 4), np.float32))
    run_here(root / 'run', f'validation.folder={root / "pairs"}')
    return root / 'run'


def test_what_a_run_leaves(whole):
    """Weights that the detector takes, a card with measured errors, a log of all steps, a picture."""
    metadata = load_weights(whole / 'pwcnet.safetensors', 'pwcnet')[1]
    assert metadata['steps'] == '3'
    backend = create_flow(
        FlowConfig('pwcnet', height=64, width=64, model=str(whole / 'pwcnet.safetensors')), torch.device('cpu')
    )
    image = np.zeros((64, 64, 3), np.uint8)
    flow = backend.estimate([backend.features(image)], [backend.features(image)], (32, 32))
    assert flow.shape == (1, 2, 32, 32)

    card = (whole / 'pwcnet.md').read_text()
    assert '| trained on | rendered pairs of 64x64 with exact flow, no real image |' in card
    assert '| steps | 3 of 2 pairs, float32 |' in card
    assert 'train flow --out' in card
    (row,) = [line for line in card.splitlines() if line.startswith('| made up |')]
    network, dis, still = (float(cell) for cell in row.split('|')[2:5])
    # The frames are the same, and the network has learnt next to nothing.
    assert (dis, still) == (5.0, 5.0)
    assert 0 < network < 20
    lines = log(whole)
    assert [(line['stage'], line['step']) for line in lines] == [('flow', 0), ('flow', 1), ('flow', 2)]
    (row,) = [line for line in card.splitlines() if line.startswith('| 1 rendered pairs, held out |')]
    assert float(row.split('|')[2]) == pytest.approx(lines[-1]['held_out'], abs=0.006)
    assert len(list((whole / 'pictures').glob('*.png'))) == 1


def test_a_killed_run_goes_on_where_it_was(whole, tmp_path, capsys):
    process = start(tmp_path)
    checkpoint = tmp_path / 'checkpoint.pt'
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 1 <= torch.load(checkpoint, weights_only=True)['step'] < 3

    run_here(tmp_path)
    printed = capsys.readouterr().out
    assert printed.split()[:2] == [str(tmp_path / 'pwcnet.safetensors'), str(tmp_path / 'pwcnet.md')]
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())
    assert log(tmp_path) == log(whole)


def test_options_are_listed(capsys):
    assert main(['flow', '--options']) == 0
    listed = capsys.readouterr().out
    assert all(f'{option.name}={option.default}\n' in listed for option in options_of(FlowTrainConfig))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['training.height=100'], 'take multiples of 64'),
        (['training.stepz=5'], "there is no option 'training.stepz'"),
        (['validation.folder=/nowhere'], '/nowhere: no such folder'),
        (['start.model=/nowhere.safetensors'], '/nowhere.safetensors'),
        (['run.device=tpu'], 'run.device is'),
    ],
)
def test_mistakes(tmp_path, capsys, options, message):
    assert main(['flow', '--out', str(tmp_path), '--set', *TINY, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert message in error


def test_the_shipped_configuration_is_one():
    config = load_plain_config(FlowTrainConfig(), ROOT / 'config' / 'train_flow.yaml')
    assert config.run.precision == 'bfloat16'
    assert config.training.steps > FlowTrainConfig().training.steps


def test_a_model_is_measured_without_training(whole, tmp_path):
    config = load_plain_config(
        FlowTrainConfig(),
        None,
        [*TINY, 'training.steps=0', f'start.model={whole / "pwcnet.safetensors"}', 'name=again'],
    )
    model = run_flow_training(config, tmp_path, []).model
    expected = weights(whole)
    state = load_weights(model, 'pwcnet')[0]
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    rows = [
        [line for line in (folder / card).read_text().splitlines() if 'held out' in line]
        for folder, card in ((whole, 'pwcnet.md'), (tmp_path, 'again.md'))
    ]
    assert rows[0] == rows[1]
