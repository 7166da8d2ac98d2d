"""Flow networks from the files that their authors released, and from files that only look like it."""

from __future__ import annotations

import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moving_object_detector.common.errors import ModelError
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.networks.weights import save_network

NETWORKS = {'pwcnet': PWCNet, 'raft_small': RaftSmall}


class Bomb:
    """Unpickling this makes the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), 'w')


@pytest.fixture(scope='module')
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return RaftSmall().state_dict()


@pytest.mark.parametrize(
    ('architecture', 'prefix', 'zipped'),
    [
        ('raft_small', 'module.', False),
        ('raft_small', 'module.', True),
        ('raft_small', '', True),
        ('pwcnet', '', False),
    ],
)
def test_released_checkpoint(architecture: str, prefix: str, zipped: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = NETWORKS[architecture]()
    path = tmp_path / 'released.pth'
    content = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_flow_network(path, architecture)
    assert type(loaded) is NETWORKS[architecture]
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize('architecture', NETWORKS)
def test_model_file_of_this_project(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    network = NETWORKS[architecture]()
    save_network(network, tmp_path / 'flow.safetensors', {})
    for path in (tmp_path / 'flow.safetensors', '~/flow.safetensors'):
        loaded = load_flow_network(path, architecture)
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def saved(content: object, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (lambda state: b'', 'is empty; copy or download it again'),
        (lambda state: b'some text, no weights', 'is not a whole safetensors file'),
        (lambda state: saved(state)[:-1000], 'is no whole PyTorch checkpoint; copy it again'),
        (lambda state: saved(state, zipped=False)[:-1000], 'is no whole PyTorch checkpoint|or is damaged'),
        (lambda state: saved([1, 2]), 'holds no state dict; give the pwc_net.pth.tar or raft-small.pth'),
        (lambda state: saved({'epoch': 3}), "'epoch' is no tensor with a name"),
        (lambda state: saved({'module.features.0.weight': torch.zeros(1)}), r'fnet\.conv1\.weight is missing'),
        (
            lambda state: saved({**state, 'fnet.conv1.weight': torch.zeros(64, 3, 7, 7)}),
            r'fnet\.conv1\.weight is \(64, 3, 7, 7\) and should be \(32, 3, 7, 7\)',
        ),
        (
            lambda state: saved({**state, 'fnet.conv1.bias': torch.full((32,), torch.inf)}),
            r'fnet\.conv1\.bias holds values that are not finite',
        ),
    ],
)
def test_files_that_hold_no_raft(
    content: Callable[[dict[str, Tensor]], bytes], message: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / 'raft-small.pth'
    path.write_bytes(content(state))
    with pytest.raises(ModelError, match=message) as caught:
        load_flow_network(path, 'raft_small')
    assert str(caught.value).startswith(f'{path}: ')


def test_weights_of_the_other_network(tmp_path: Path) -> None:
    torch.save(PWCNet().state_dict(), tmp_path / 'pwc_net.pth.tar')
    with pytest.raises(ModelError, match=r'is not a raft_small.*fnet\.conv1\.weight is missing'):
        load_flow_network(tmp_path / 'pwc_net.pth.tar', 'raft_small')
    save_network(PWCNet(), tmp_path / 'pwcnet.safetensors', {})
    with pytest.raises(ModelError, match='holds weights of architecture pwcnet where raft_small is needed'):
        load_flow_network(tmp_path / 'pwcnet.safetensors', 'raft_small')


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'none\.pth: no such model file'):
        load_flow_network(tmp_path / 'none.pth', 'raft_small')
    with pytest.raises(ModelError, match='is not a file'):
        load_flow_network(tmp_path, 'raft_small')


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'pickle'])
def test_pickled_code_does_not_run(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, made = tmp_path / 'raft-small.pth', tmp_path / 'made'
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(Bomb(made), 2))
    else:
        path.write_bytes(saved({**state, 'bomb': Bomb(made)}, zipped=kind == 'zip'))
    with pytest.raises(ModelError, match='was not loaded: it holds more than tensors, which could run code'):
        load_flow_network(path, 'raft_small')
    assert not made.exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'pwcnet.safetensors')
    with pytest.raises(ModelError, match='is not a file'):
        load_flow_network(tmp_path / 'pwcnet.safetensors', 'pwcnet')


# As they were saved


@pytest.fixture(scope='module')
def pwcnet_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return PWCNet().state_dict()


@pytest.mark.parametrize('form', ['wrapped', 'parallel', 'python 2'])
def test_pwcnet_in_other_forms(form: str, pwcnet_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / 'pwc_net.pth.tar'
    if form == 'python 2':
        path.write_bytes(python2_checkpoint(pwcnet_state))
    elif form == 'wrapped':
        torch.save({'state_dict': pwcnet_state, 'epoch': 3, 'best_EPE': 1.5}, path)
    else:
        torch.save(OrderedDict((f'module.{name}', tensor) for name, tensor in pwcnet_state.items()), path)
    loaded = load_flow_network(path, 'pwcnet').state_dict()
    assert loaded.keys() == pwcnet_state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in pwcnet_state.items())


def test_raft_small_as_published(shared: Path) -> None:
    path = shared / 'weights' / 'raft_small.pth'
    state = load_flow_network(path, 'raft_small').state_dict()
    published = torch.load(path, map_location='cpu', weights_only=True)
    assert {f'module.{name}' for name in state} == set(published)
    assert all(torch.equal(tensor, published[f'module.{name}']) for name, tensor in state.items())


def python2_checkpoint(state: dict[str, Tensor]) -> bytes:
    """Write a checkpoint as PyTorch 0.2 did under Python 2: byte strings, storages of a GPU, the first rebuild."""

    def string(text: str) -> bytes:
        return b'U' + struct.pack('<B', len(text)) + text.encode()

    def number(value: int) -> bytes:
        return b'J' + struct.pack('<i', value)

    items = io.BytesIO()
    for index, (name, tensor) in enumerate(state.items()):
        storage = b'(' + string('storage') + b'ctorch.cuda\nFloatStorage\n' + string(str(index)) + string('cuda:0')
        storage += number(tensor.numel()) + b'NtQ'
        size = b'(' + b''.join(map(number, tensor.shape)) + b't'
        stride = b'(' + b''.join(map(number, tensor.stride())) + b't'
        rebuild = b'ctorch._utils\n_rebuild_tensor\n(' + storage + number(0) + size + stride + b'tR'
        items.write(b'](' + string(name) + rebuild + b'e')
    body = b'\x80\x02ccollections\nOrderedDict\n(](' + items.getvalue() + b'etR.'
    start = [0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}]
    keys = pickle.dumps([str(index) for index in range(len(state))], 2)
    storages = b''.join(struct.pack('<q', tensor.numel()) + tensor.numpy().tobytes() for tensor in state.values())
    return b''.join(pickle.dumps(part, 2) for part in start) + body + keys + storages
