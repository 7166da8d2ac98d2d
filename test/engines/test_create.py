from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import describe
from moving_object_detector.engines.create import choose_device, choose_engine, create_engine

CPU, GPU = torch.device('cpu'), torch.device('cuda:1')
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
    engine = create_engine('auto', CPU)
    assert describe(engine) == 'openvino float32 on cpu'


def test_auto_takes_pytorch_where_nothing_else_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    monkeypatch.setitem(sys.modules, 'torch_tensorrt', None)
    assert describe(create_engine('auto', CPU)) == 'torch float32 on cpu'
    assert choose_engine('auto', GPU) == 'torch'
    with pytest.raises(UserError, match='OpenVINO is not installed; pip install openvino, or set engine to torch'):
        create_engine('openvino', CPU)
    with pytest.raises(UserError, match=r'is torch_tensorrt, but it is not installed; pip install .*engine to torch'):
        create_engine('torch_tensorrt', GPU)


def test_auto_takes_the_plain_road_on_a_gpu(monkeypatch, tmp_path):
    (tmp_path / 'torch_tensorrt.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_engine('auto', GPU) == 'torch'
    assert choose_engine('torch_tensorrt', GPU) == 'torch_tensorrt'


def test_pytorch_when_asked_for():
    assert describe(create_engine('torch', CPU)) == 'torch float32 on cpu'


def test_engines_of_other_devices():
    with pytest.raises(UserError, match='engine openvino runs on the CPU, but device is cuda:1'):
        create_engine('openvino', GPU)
    with pytest.raises(UserError, match='torch_tensorrt runs on NVIDIA GPUs, but device is cpu; set device to cuda'):
        create_engine('torch_tensorrt', CPU)


def test_an_unknown_engine():
    with pytest.raises(UserError, match=r'engine is .*tensorflow.*auto'):
        create_engine('tensorflow', CPU)


@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_pytorch_has_one_precision_on_a_cpu(precision):
    with pytest.raises(UserError, match=f'precision is {precision}, but engine torch computes in float32 on a CPU'):
        create_engine('torch', CPU, precision=precision)


def test_threads_of_pytorch(threads):
    create_engine('torch', CPU, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    create_engine('torch', CPU)
    assert torch.get_num_threads() == 2
