"""Damage and hostile files: nothing wrong passes for right. Bounded here; CAMPAIGN=30 tries thirty times as much.

Each test prints what it tried and what came of it (pytest -s).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import ModelError, UserError
from moving_object_detector.common.parameter_files import load_plain_config, read_parameter_file
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import load_weights, save_network
from moving_object_detector.training import flow_cache
from moving_object_detector.training.checkpoint import load_checkpoint, save_checkpoint
from moving_object_detector.training.config import TrainConfig

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
        monkeypatch.setattr(flow_cache, '_checked', set())  # as another process
        backend = DisFlow((32, 64), 'ultrafast')
        return flow_cache.cached_clips(
            clips, tmp_path / 'cache', backend, 'dis', flow_cache.CacheOptions((16, 32), 1), progress=False
        )[0]

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
            found = flow_cache.repaired(read, alone=True)
        except Exception as error:  # noqa: BLE001 - counted
            outcomes[type(error).__name__] += 1
            path.write_bytes(whole)
            continue
        same = all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        outcomes['mended' if same and path.read_bytes() == whole else 'trained on'] += 1
    tell('damage to flow caches', outcomes)
    assert set(outcomes) == {'mended'}


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
