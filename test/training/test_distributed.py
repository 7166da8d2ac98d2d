"""One process alone; several together are tested in test_run.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.setup import Processes, process_device, processes


def test_one_process_alone_changes_nothing(monkeypatch):
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    with processes(torch.device('cpu')) as group:
        assert group == Processes(0, 1)
        assert group.leads
        parameter = nn.Parameter(torch.ones(2))
        parameter.grad = torch.tensor([1.0, 2.0])
        group.average_gradients([parameter])
        group.share_weights([parameter])
        group.wait()
        assert parameter.grad.tolist() == [1.0, 2.0]
        assert group.average({'loss': 3.0}) == {'loss': 3.0}


def test_only_the_first_leads():
    assert [Processes(rank, 3).leads for rank in range(3)] == [True, False, False]


def test_device_by_name():
    assert process_device('cpu') == torch.device('cpu')
    expected = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert process_device('auto').type == expected
    for wrong in ('gpu', 'cuda:x', 'mps', 'meta', ''):
        with pytest.raises(UserError, match=rf'run\.device .*{wrong}'):
            process_device(wrong)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for name in ('cuda', 'cuda:1'):
        with pytest.raises(UserError, match=rf'run\.device .*{name}'):
            process_device(name)


def test_each_process_has_a_gpu_of_its_own_or_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for local in (0, 1):
        monkeypatch.setenv('LOCAL_RANK', str(local))
        assert process_device('auto') == process_device('cuda') == torch.device('cuda', local)
    assert process_device('cuda:0') == torch.device('cuda', 0)
    monkeypatch.setenv('LOCAL_RANK', '2')
    for name in ('auto', 'cuda'):
        with pytest.raises(UserError, match=r'no cuda:2 .* 2 GPUs'):
            process_device(name)
    with pytest.raises(UserError, match=r"run\.device is 'cuda:5'"):
        process_device('cuda:5')
