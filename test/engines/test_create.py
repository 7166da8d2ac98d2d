from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.errors import UserError
from moving_object_detector.networks.generator import Generator

CPU = torch.device('cpu')
needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')


@pytest.fixture
def threads():
    """Put PyTorch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_auto_is_the_gpu_where_there_is_one():
    assert choose_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert choose_device('cpu') == CPU


@pytest.mark.parametrize(
    'name', ['', 'gpu', 'CPU', 'cpu:0', 'cuda:', 'cuda:-1', 'cuda:one', 'cuda:²', ' cuda', 'cuda:0:1']
)
def test_what_is_no_device(name):
    with pytest.raises(UserError, match='takes auto, cpu, cuda or cuda:N') as caught:
        choose_device(name)
    assert repr(name) in str(caught.value)


def test_a_gpu_that_is_not_there():
    missing = f'cuda:{torch.cuda.device_count()}'
    with pytest.raises(UserError, match=f"device is '{missing}', but PyTorch .* sees .* set device to cpu"):
        choose_device(missing)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match='sees 0 CUDA devices'):
            choose_device('cuda')


@needs_openvino
def test_auto_takes_openvino_on_a_cpu():
    engine = create_engine('auto', Generator(), (16, 32), CPU)
    assert engine.name == 'openvino float32 on cpu'
    assert engine.device == CPU


def test_auto_takes_pytorch_where_openvino_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    assert create_engine('auto', Generator(), (16, 32), CPU).name == 'torch float32 on cpu'
    with pytest.raises(UserError, match='OpenVINO is not installed; pip install openvino, or set engine to torch'):
        create_engine('openvino', Generator(), (16, 32), CPU)


def test_pytorch_when_asked_for():
    assert create_engine('torch', Generator(), (16, 32), CPU).name == 'torch float32 on cpu'


@needs_openvino
def test_openvino_is_for_the_cpu():
    with pytest.raises(UserError, match='engine openvino runs on the CPU, but device is cuda:1'):
        create_engine('openvino', Generator(), (16, 32), torch.device('cuda:1'))


def test_an_unknown_engine():
    with pytest.raises(UserError, match="engine is 'tensorflow', but takes one of auto, torch, openvino"):
        create_engine('tensorflow', Generator(), (16, 32), CPU)


def test_threads_of_pytorch(threads):
    create_engine('torch', Generator(), (16, 32), CPU, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    create_engine('torch', Generator(), (16, 32), CPU)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
def test_auto_takes_pytorch_on_a_gpu():
    device = choose_device('auto')
    assert create_engine('auto', Generator(), (16, 32), device).device == device
