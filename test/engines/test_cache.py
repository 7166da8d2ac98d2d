"""The cache never stops anything: what it cannot use or write is a line in the log."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from moving_object_detector.common.files import user_folder
from moving_object_detector.engines.cache import (
    MOST_FILES,
    EngineCache,
)
from moving_object_detector.networks.weights import weights_hash

KEY = {
    'label': 'toy', 'engine': 'openvino', 'device': 'a CPU', 'shapes': 'nx3x4', 'weights': 'ab' * 32,
    'openvino': '2026.4', 'code': 'cd' * 32,
}  # fmt: skip
PAYLOAD = bytes(range(256)) * 40
needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')
not_root = pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


@pytest.fixture
def filled(cache):
    assert cache.store(KEY, PAYLOAD)
    return cache


def refused(cache, caplog, reason):
    """Say whether the engine is not loaded, with one line in the log that gives the reason and the file."""
    caplog.clear()
    assert cache.load(KEY) is None
    (line,) = caplog.messages
    return reason in line and str(cache.path(KEY)) in line and 'the engine is built anew' in line


def test_what_is_stored_is_loaded(filled, caplog):
    assert EngineCache(filled.folder).load(KEY) == PAYLOAD
    assert not caplog.messages
    assert stat.S_IMODE(filled.folder.stat().st_mode) == 0o700


def test_an_empty_cache_says_nothing(cache, caplog):
    assert cache.load(KEY) is None
    assert not caplog.messages


@pytest.mark.parametrize('name', ['label', 'engine', 'device', 'shapes', 'weights', 'openvino', 'code'])
def test_another_engine_is_another_file(filled, name, caplog):
    assert filled.load({**KEY, name: 'other'}) is None
    assert not caplog.messages
    assert filled.store({**KEY, name: 'other'}, b'other')
    assert filled.load(KEY) == PAYLOAD


def test_a_file_of_another_key_under_this_name(filled, caplog):
    other = {**KEY, 'weights': 'ef' * 32}
    assert filled.store(other, b'other')
    filled.path(other).replace(filled.path(KEY))
    assert refused(filled, caplog, 'made for something else')


@pytest.mark.parametrize(
    ('damage', 'reason'),
    [
        (lambda data: b'', 'is damaged'),
        (lambda data: b'text\n' * 100, 'is damaged'),
        (lambda data: data[:-1], 'is damaged'),
        (lambda data: data + b'x', 'is damaged'),
        (lambda data: data[:-1] + b'\x00', 'is damaged'),
        (lambda data: data[: len(data) // 2], 'is damaged'),
    ],
)
def test_damaged_files(filled, caplog, damage, reason):
    path = filled.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert refused(filled, caplog, reason)
    assert filled.store(KEY, PAYLOAD)
    assert filled.load(KEY) == PAYLOAD


@pytest.mark.parametrize('kind', ['folder', 'pipe'])
def test_what_is_not_a_file(cache, caplog, kind):
    path = cache.path(KEY)
    cache.folder.mkdir(mode=0o700)
    if kind == 'folder':
        path.mkdir()
    else:
        os.mkfifo(path)
    assert refused(cache, caplog, 'it is not a file')


@not_root
def test_a_read_only_folder(filled, caplog):
    filled.folder.chmod(0o500)
    try:
        assert filled.load(KEY) == PAYLOAD
        assert not filled.store({**KEY, 'label': 'new'}, PAYLOAD)
    finally:
        filled.folder.chmod(0o700)
    assert 'cannot be written (Permission denied); the engine is built again at the next start' in caplog.text


@not_root
def test_an_unreadable_file(filled, caplog):
    filled.path(KEY).chmod(0o200)
    assert refused(filled, caplog, 'cannot be read (Permission denied)')


def test_a_file_in_place_of_the_folder(tmp_path, caplog):
    (tmp_path / 'file').write_text('')
    cache = EngineCache(tmp_path / 'file' / 'engines')
    assert not cache.store(KEY, PAYLOAD)
    assert 'cannot be written (Not a directory)' in caplog.text
    assert refused(cache, caplog, 'cannot be read (Not a directory)')


def test_a_full_disk(filled, caplog, full_disk):
    with full_disk(after=len(PAYLOAD)):
        assert not filled.store(KEY, PAYLOAD * 100)
    assert 'cannot be written (File too large)' in caplog.text
    assert filled.load(KEY) == PAYLOAD


def test_writers_at_once(cache):
    """Four processes write and read one file fifty times: nobody ever sees half an engine."""
    code = f"""
import logging, sys
from pathlib import Path
from moving_object_detector.engines.cache import EngineCache
logging.basicConfig(level=logging.WARNING, format='%(message)s', stream=sys.stdout)
cache, payload = EngineCache(Path({str(cache.folder)!r})), bytes([int(sys.argv[1])]) * 300_000
for _ in range(50):
    cache.store({KEY!r}, payload)
    found = cache.load({KEY!r})
    assert found is not None and len(found) == 300_000 and len(set(found)) == 1
"""
    assert cache.store(KEY, bytes(300_000))
    processes = [
        subprocess.Popen([sys.executable, '-c', code, str(number)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    output = ''.join(process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * 4
    assert not output


def test_the_ones_not_used_for_longest_are_removed(cache):
    kinds = [{**KEY, 'label': f'toy {number}'} for number in range(MOST_FILES)]
    for age, what in enumerate(kinds):
        assert cache.store(what, PAYLOAD)
        os.utime(cache.path(what), (10_000 + age, 10_000 + age))
    assert cache.load(kinds[0]) == PAYLOAD  # used again
    assert cache.store(KEY, PAYLOAD)
    assert not cache.path(kinds[1]).exists()
    assert all(cache.path(what).exists() for what in (KEY, kinds[0], *kinds[2:]))


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert user_folder('cache') / 'engines' == tmp_path / 'moving_object_detector' / 'engines'
    monkeypatch.setenv('HOME', '/home/someone')
    for unset in ('', 'relative'):
        monkeypatch.setenv('XDG_CACHE_HOME', unset)
        assert user_folder('cache') / 'engines' == Path('/home/someone/.cache/moving_object_detector/engines')


def test_the_key_follows_the_weights(toy):
    before = weights_hash(toy.state_dict())
    assert weights_hash(toy.state_dict()) == before
    with torch.no_grad():
        toy.conv.bias[0] += 1e-6
    assert weights_hash(toy.state_dict()) != before


@needs_openvino
@pytest.mark.parametrize('damage', ['none', 'payload'])
def test_openvino_from_the_cache(cache, toy, toy_inputs, caplog, damage, monkeypatch):
    """Also where the payload is whole, but OpenVINO cannot read it."""
    from moving_object_detector.engines import openvino_engine

    class Telling(EngineCache):
        def store(self, key, payload):
            self.key = key
            return super().store(key, payload)

    monkeypatch.setattr(openvino_engine, 'WORTH_KEEPING', 0.0)
    cache = Telling(cache.folder)
    caplog.set_level(logging.INFO)
    inputs = toy_inputs(3)
    built = openvino_engine.OpenVinoEngine(cache=cache).load(toy, inputs, 'toy')(*inputs)
    assert 'toy: built in' in caplog.text
    (file,) = cache.folder.glob('*.engine')
    if damage == 'payload':
        assert cache.path(cache.key) == file
        assert cache.store(cache.key, b'no model' * 100)
    caplog.clear()
    engine = openvino_engine.OpenVinoEngine(cache=cache)
    found = engine.load(toy, inputs, 'toy')(*inputs)
    assert engine.precision == 'float32'
    assert all(torch.equal(a, b) for a, b in zip(built, found, strict=True))
    if damage == 'none':
        assert caplog.messages == [f'toy: loaded from {file}']
    else:
        assert 'the cached engine of the toy cannot be loaded and is built anew' in caplog.text


@needs_openvino
def test_openvino_keeps_what_takes_long_only(cache, toy, toy_inputs, monkeypatch):
    from moving_object_detector.engines import openvino_engine

    monkeypatch.setattr(openvino_engine, 'WORTH_KEEPING', 1000.0)
    openvino_engine.OpenVinoEngine(cache=cache).load(toy, toy_inputs(1), 'toy')
    assert not list(cache.folder.glob('*'))
