"""Damage and hostile files: nothing wrong passes for right. Bounded here; CAMPAIGN=30 tries thirty times as much.

Each test prints what it tried and what came of it (pytest -s).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save

from moving_object_detector.common.errors import ModelError, UserError
from moving_object_detector.common.parameter_files import load_plain_config, read_parameter_file
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import FLOW_CHANNELS, load_network, load_weights, save_network
from moving_object_detector.training import chunks, flow_cache, teacher
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.loop import load_checkpoint, save_checkpoint
from moving_object_detector.training.teacher import Teacher

ROOT = Path(__file__).resolve().parents[2]
WORDS = (b'[', b'{', b'&a ', b'*a', b'\n', b'"', b'9' * 300, b'!!', b'\x1b', b'\xff')
TIMES = int(os.environ.get('CAMPAIGN', '1'))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + 60 * TIMES)]


def tell(what, outcomes):
    print(
        f'{what}: {sum(outcomes.values())} tried; ' + ', '.join(f'{count} {name}' for name, count in outcomes.items())
    )


def mutated(data, rng):
    """Return data with a bit flipped, bytes overwritten, cut out, doubled or put in."""
    data = bytearray(data)
    place, length = int(rng.integers(len(data))), int(rng.integers(1, 20))
    kind = ('bit', 'overwrite', 'cut', 'double', 'insert', 'end')[int(rng.integers(6))]
    if kind == 'bit':
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == 'overwrite':
        data[place : place + length] = rng.bytes(length)
    elif kind == 'cut':
        del data[place : place + length]
    elif kind == 'double':
        data[place:place] = data[place : place + length]
    elif kind == 'insert':
        data[place:place] = WORDS[int(rng.integers(len(WORDS)))]
    else:
        del data[place:]
    return bytes(data)


def test_killed_training_ends_the_same(tmp_path):
    """Trainer, checkpoint and log: killed at moments spread over a whole run, in and around every write."""
    sweep = ROOT / 'test' / 'training' / 'kill_sweep.py'
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(sweep), str(tmp_path), str(60 * TIMES), '--toy'],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    outcomes = Counter('different' if kill['different'] else 'the same' for kill in report)
    tell('kills of a training', outcomes)
    assert set(outcomes) == {'the same'}


def test_damaged_checkpoints(tmp_path):
    rng = np.random.default_rng(TIMES)
    path, options, outcomes = tmp_path / 'checkpoint.pt', {'seed': 1}, Counter()
    for step in (1, 2):
        save_checkpoint(path, {'options': options, 'step': step, 'weights': torch.arange(500.0)})
    whole = path.read_bytes()
    for _ in range(1000 * TIMES):
        data = mutated(whole, rng)
        if data == whole:
            continue
        path.write_bytes(data)
        outcomes['found' if load_checkpoint(path, options)['step'] == 1 else 'trained on'] += 1
    tell('damage to checkpoints', outcomes)
    assert set(outcomes) == {'found'}


def test_damaged_flow_caches(tmp_path, monkeypatch):
    rng = np.random.default_rng(TIMES)
    (tmp_path / 'clip').mkdir()
    for k in range(4):
        cv2.imwrite(str(tmp_path / 'clip' / f'{k}.png'), rng.integers(0, 256, (32, 64, 3), np.uint8))
    clips = find_clips([str(tmp_path / 'clip')], 'train')

    def opened():
        monkeypatch.setattr(chunks, '_checked', set())  # as another process
        backend = DisFlow((32, 64), 'ultrafast')
        return flow_cache.cached_clips(clips, tmp_path / 'cache', backend, 'dis', flow_cache.CacheOptions((16, 32), 1))[
            0
        ]

    def read():
        clip = opened()
        return [np.stack([clip.image(k) for k in range(4)]), np.stack([clip.flow(k, 1) for k in range(3)])]

    expected = read()
    files = sorted(opened().folder.glob('*.npy'))
    outcomes = Counter()
    for number in range(200 * TIMES):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, rng))
        try:
            found = chunks.repaired(read)
        except Exception as error:  # noqa: BLE001 - counted
            outcomes[type(error).__name__] += 1
            path.write_bytes(whole)
            continue
        same = all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        outcomes['mended' if same and path.read_bytes() == whole else 'trained on'] += 1
    tell('damage to flow caches', outcomes)
    assert set(outcomes) == {'mended'}


@pytest.fixture
def lesson(tmp_path):
    """A clip with its flow, and the parameters of a small detector that teaches."""
    rng = np.random.default_rng(TIMES)
    (tmp_path / 'clip').mkdir()
    for k in range(11):
        cv2.imwrite(str(tmp_path / 'clip' / f'{k:02d}.png'), rng.integers(0, 256, (32, 64, 3), np.uint8))
    found = find_clips([str(tmp_path / 'clip')], 'train')
    options = flow_cache.CacheOptions((16, 32), 1)
    cached = flow_cache.cached_clips(found, tmp_path / 'cache', DisFlow((32, 64), 'fast'), 'fast', options)
    torch.manual_seed(1)
    about = {'flow_input': 'residual', 'flow_backend': 'dis', 'height': '16', 'width': '32'}
    save_network(Generator(2, 4).eval(), tmp_path / 'teacher.safetensors', about)
    parameters = tmp_path / 'teacher.yaml'
    parameters.write_text(
        f'/**: {{ros__parameters: {{model: {tmp_path / "teacher.safetensors"}, engine: torch, flow.preset: fast, '
        'flow.height: 32, flow.width: 64, window.past: 1, window.future: 1, gate.min_motion: 0.0}}'
    )
    return parameters, [(found[0], cached[0])]


def taught(lesson, cache):
    """Return the targets, made where they are not there yet."""
    parameters, clips = lesson
    return Teacher(parameters, torch.device('cpu')).targets(clips, cache)[0]


def test_damaged_targets(lesson, tmp_path, monkeypatch):
    # The detector starts anew in each chunk, and goes over those alone that are missing.
    monkeypatch.setattr(teacher, 'SEGMENT', 1)
    rng, outcomes = np.random.default_rng(TIMES), Counter()

    def read():
        monkeypatch.setattr(chunks, '_checked', set())  # as another process
        targets = taught(lesson, tmp_path / 'cache')
        return np.stack([targets(frame) for frame in range(11)])

    expected = read()
    files = sorted((tmp_path / 'cache').rglob('*-target.npy'))
    assert len(files) == 2
    assert expected[:, 1].any()
    for number in range(20 * TIMES):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, rng))
        same = np.array_equal(chunks.repaired(read), expected)
        outcomes['mended' if same and path.read_bytes() == whole else 'trained on'] += 1
    tell('damage to targets', outcomes)
    assert set(outcomes) == {'mended'}
    # Complete, they may be where nobody may write.
    lock = files[0].with_name('lock')
    lock.unlink()
    lock.mkdir()
    assert np.array_equal(read(), expected)


def test_targets_made_by_several_at_once_and_by_killed_ones(lesson, tmp_path):
    """Processes that are killed at any moment while others wait for them: the same targets, and no part of a file."""
    taught(lesson, tmp_path / 'alone')
    whole = {path.name: path.read_bytes() for path in (tmp_path / 'alone').rglob('*.npy')}
    assert whole
    rng, outcomes = np.random.default_rng(TIMES), Counter()
    context = multiprocessing.get_context('fork')
    for number in range(3 * TIMES):
        cache = tmp_path / f'cache {number}'
        makers = [context.Process(target=taught, args=(lesson, cache)) for _ in range(3)]
        for maker in makers:
            maker.start()
        time.sleep(float(rng.random()))
        makers[0].kill()
        for maker in makers:
            maker.join(120)
        assert [maker.exitcode for maker in makers[1:]] == [0, 0]
        outcomes[
            'the same' if {path.name: path.read_bytes() for path in cache.rglob('*.npy')} == whole else 'others'
        ] += 1
    tell('several makers of targets, one killed', outcomes)
    assert set(outcomes) == {'the same'}


def test_damaged_models(tmp_path):
    rng = np.random.default_rng(TIMES)
    path, outcomes = tmp_path / 'model.safetensors', Counter()
    about = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '96', 'width': '192'}
    save_network(Generator(), path, about)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], 'little')
    weights, metadata = load_weights(path)
    for number in range(300 * TIMES):
        # Most of a file is weights: half of the damage goes to its header.
        data = mutated(whole[:start], rng) + whole[start:] if number % 2 else mutated(whole, rng)
        path.write_bytes(data)
        try:
            state, found = load_weights(path)
        except ModelError as error:
            outcomes['refused' if str(error).isprintable() else 'refused in a bad sentence'] += 1
            continue
        same = found == metadata and all(torch.equal(tensor, weights[name]) for name, tensor in state.items())
        outcomes['harmless' if same else 'taken for good'] += 1
    tell('damage to models', outcomes)
    assert set(outcomes) <= {'refused', 'harmless'}


CLAIMS = {
    'height': ('1', '0', '-4', '4.0', '\u0661\u0666', '2049', '9' * 5000, '96\n'),
    'width': ('1', '4097', ' 96', '999999999996'),
    'flow_input': ('normalised', 'geometric', 'residual ', '\x1b[2J', 'x' * 10**5),
    'flow_backend': ('\x1b[2J\nroot:', 'x' * 10**5, ''),
    'architecture': ('inpainter', 'pwcnet', '\x1b[31m'),
    'format': ('2', '3', '\x1b[2J'),
    'channels': ('-1', '9' * 5000),
}
SHAPES = ((), (0,), (1,), (4,), (5,), (4, 4), (0, 0, 0, 0), (4, 8, 5, 5), (4, 4, 5, 5), (2, 10**4, 1, 1), (1,) * 9)
KINDS = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64, torch.float8_e5m2)


def test_models_of_any_shape_and_claim(tmp_path):
    """What a file says of itself and what its tensors are need not fit; nothing of it has a wrong checksum."""
    rng, path, outcomes = np.random.default_rng(TIMES), tmp_path / 'model.safetensors', Counter()
    weights = {
        inputs: {name: tensor.detach() for name, tensor in Generator(inputs, 4).state_dict().items()}
        for inputs in (2, 3, 8)
    }
    about = {'format': '1', 'architecture': 'generator', 'flow_input': 'residual', 'flow_backend': 'dis'}
    about |= {'height': '96', 'width': '192'}
    for _ in range(300 * TIMES):
        state, claims = dict(weights[int(rng.choice((2, 2, 3, 8)))]), dict(about)
        if rng.random() < 0.6:
            key = str(rng.choice(list(CLAIMS)))
            claims[key] = CLAIMS[key][int(rng.integers(len(CLAIMS[key])))]
        if rng.random() < 0.6:
            # The first two tell how large the network is.
            first = ['conv1.gamma', 'conv1.conv.weight']
            name = str(rng.choice(first if rng.random() < 0.6 else [*state, 'a\x1b[2J' + 'b' * 10**5]))
            kind = KINDS[int(rng.integers(len(KINDS)))] if rng.random() < 0.4 else torch.float32
            state[name] = torch.zeros(SHAPES[int(rng.integers(len(SHAPES)))]).to(kind)
        path.write_bytes(save(state, claims))
        try:
            network, found = load_network(path)
        except ModelError as error:
            outcomes['refused' if str(error).isprintable() and len(str(error)) < 2000 else 'badly said'] += 1
            continue
        fits = FLOW_CHANNELS[found['flow_input']] == network.flow_channels and int(found['height']) <= 2048
        outcomes['taken' if fits else 'taken for good'] += 1
    tell('models of any shape and claim', outcomes)
    assert set(outcomes) == {'refused', 'taken'}


def test_damaged_parameter_files(tmp_path):
    rng = np.random.default_rng(TIMES)
    path, outcomes = tmp_path / 'config.yaml', Counter()
    for name, load in (
        ('train.yaml', lambda file: load_plain_config(TrainConfig(), file)),
        ('cpu.yaml', read_parameter_file),
    ):
        whole = (ROOT / 'config' / name).read_bytes()
        for _ in range(250 * TIMES):
            data = whole
            for _ in range(int(rng.integers(1, 6))):
                data = mutated(data or b'x', rng)
            path.write_bytes(data)
            try:
                load(path)
                outcomes['read'] += 1
            except UserError as error:
                outcomes['refused' if str(error).isprintable() else 'refused in a bad sentence'] += 1
    tell('damage to parameter files', outcomes)
    assert set(outcomes) <= {'read', 'refused'}
