from __future__ import annotations

import logging
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.engines import openvino_engine
from moving_object_detector.engines.cache import EngineCache
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import save_network
from moving_object_detector.programs.commands import build_engine as main

needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(1)
    path = tmp_path / 'random.safetensors'
    save_network(
        Generator(), path, {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}
    )
    return path


@needs_openvino
def test_the_second_time_nothing_is_built(model, tmp_path, capsys, monkeypatch):
    """Kept by default only where it takes a second to build, which it does not on every machine."""
    monkeypatch.setattr(openvino_engine, 'WORTH_KEEPING', 0.0)
    folder = tmp_path / 'engines'
    arguments = [
        '--folder',
        str(folder),
        '--set',
        f'model={model}',
        'engine=openvino',
        'precision=float32',
        'device=cpu',
    ]
    assert main(arguments) == 0
    first = capsys.readouterr()
    (file,) = folder.glob('*.engine')
    assert 'generator: OpenVINO builds an engine, which may take a while\ngenerator: built in ' in first.err
    assert first.out.startswith('ready: openvino float32 on cpu, 64x32, dis-medium flow\n')
    assert f'{folder} holds 1 engines, ' in first.out
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert second.err == f'generator: loaded from {file}\n'
    assert second.out == first.out
    assert not logging.getLogger('moving_object_detector.engines').handlers


@needs_openvino
def test_what_the_node_asks_for_is_in_the_cache(model, tmp_path, capsys, monkeypatch, caplog):
    """By the node's own parameter file, with names that the detector does not have."""
    monkeypatch.setattr(openvino_engine, 'WORTH_KEEPING', 0.0)
    parameters = tmp_path / 'node.yaml'
    parameters.write_text('/**: {ros__parameters: {load.target_rate: 10.0, estimate: zero_lag}}\n')
    folder = tmp_path / 'engines'
    arguments = ['--folder', str(folder), '--config', str(parameters)]
    values = {'engine': 'openvino', 'precision': 'float32', 'device': 'cpu', 'height': 96, 'width': 192}
    arguments += ['--set', f'model={model}', *(f'{name}={value}' for name, value in values.items())]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith('ready: openvino float32 on cpu, 192x96, dis-medium flow\n')
    assert len(list(folder.glob('*.engine'))) == 1
    config = DetectorConfig(model=str(model), **values)
    caplog.clear()
    with caplog.at_level(logging.INFO, 'moving_object_detector.engines'):
        build_detector(config, cache=EngineCache(folder))
    assert [' '.join(message.split()[:3]) for message in caplog.messages] == ['generator: loaded from']


def test_pytorch_has_nothing_to_build(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert main(['--set', f'model={model}', 'engine=torch', 'device=cpu']) == 0
    out = capsys.readouterr().out
    assert f'{tmp_path}/moving_object_detector/engines holds 0 engines, 0.0 MB' in out


def test_mistakes_are_told(model, tmp_path, capsys):
    assert main(['--set', 'model=none.safetensors']) == 2
    assert 'error: none.safetensors: no such model file' in capsys.readouterr().err
    assert main(['--set', f'model={model}', 'engine=torch_tensorrt', 'device=cpu']) == 2
    assert 'runs on NVIDIA GPUs, but device is cpu' in capsys.readouterr().err
    assert main(['--set', f'model={model}', 'device=cpu', 'engine=torch', 'flow.backend=pwcnet']) == 2
    assert 'get_weights pwcnet' in capsys.readouterr().err


def test_help_is_instant():
    started = time.monotonic()
    code = (
        'import sys; from moving_object_detector.programs.commands import build_engine as main\ntry: main(["--help"])\n'
    )
    code += 'finally: assert not {"torch", "cv2", "openvino"} & set(sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert 'NAME=VALUE' in result.stdout
    assert time.monotonic() - started < 20
