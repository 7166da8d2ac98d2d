from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file
from torch import Tensor, nn

from moving_object_detector.common.errors import ModelError
from moving_object_detector.networks.generator import Generator, ScaledConv
from moving_object_detector.networks.generator_forms import merge_upsampling
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.networks.weights import (
    load_network,
    load_weights,
    read_tensors,
    save_network,
    write_tensors,
)

ROOT = Path(__file__).resolve().parents[2]
METADATA = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '96', 'width': '192'}
FULL = {**METADATA, 'format': '2', 'architecture': 'generator'}
FOREIGN = {**FULL, 'format': '1'}


class Bomb:
    """Unpickling this makes the file that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), 'w')


def generator_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return Generator().state_dict()


@pytest.mark.parametrize(
    ('network', 'architecture', 'metadata'),
    [
        (Generator, 'generator', METADATA),
        (Inpainter, 'inpainter', METADATA),
        (PWCNet, 'pwcnet', {}),
        (RaftSmall, 'raft_small', {}),
    ],
)
def test_round_trip(network: type[nn.Module], architecture: str, metadata: Mapping[str, str], tmp_path: Path) -> None:
    torch.manual_seed(3)
    saved = network()
    path = tmp_path / 'new folder' / 'model.safetensors'
    save_network(saved, path, {**metadata, 'seed': '3', 'licence': 'Müller & Söhne'})
    expected = {**metadata, 'seed': '3', 'licence': 'Müller & Söhne', 'format': '2', 'architecture': architecture}
    assert load_weights(path, architecture)[1] == expected
    loaded, found = load_network(path, architecture)
    assert found == expected
    assert type(loaded) is network
    assert not loaded.training
    assert list(loaded.state_dict()) == list(saved.state_dict())
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in saved.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert [file.name for file in path.parent.iterdir()] == ['model.safetensors']


def test_loaded_network_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator().eval()
    save_network(generator, tmp_path / 'g.safetensors', METADATA)
    loaded, _ = load_network(tmp_path / 'g.safetensors')
    image, flow = torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(generator(image, flow), loaded(image, flow))


def test_a_generator_of_more_flow_channels_is_known_by_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = Generator(8).eval()
    assert sum(parameter.numel() for parameter in generator.parameters()) == 1_451_062 + 6 * 32 * 5 * 5
    save_network(generator, tmp_path / 'a.safetensors', {**METADATA, 'flow_input': 'geometric'})
    loaded, _ = load_network(tmp_path / 'a.safetensors')
    assert isinstance(loaded, Generator)
    assert loaded.flow_channels == 8
    image, flow = torch.rand(1, 3, 8, 12) - 0.5, torch.randn(1, 8, 8, 12)
    with torch.no_grad():
        assert torch.equal(loaded(image, flow), generator(image, flow))
    save_network(generator, tmp_path / 'b.safetensors', METADATA)
    with pytest.raises(ModelError, match='8 channels'):
        load_network(tmp_path / 'b.safetensors')


@pytest.mark.parametrize(('channels', 'parameters'), [(16, 364_958), (32, 1_451_062)])
def test_a_narrower_generator_is_known_by_its_weights(channels: int, parameters: int, tmp_path: Path) -> None:
    """By hand: 1408.5 c^2 + 273.5 c + 6 parameters of c channels."""
    generator = Generator(channels=channels).eval()
    assert sum(parameter.numel() for parameter in generator.parameters()) == parameters
    save_network(generator, tmp_path / 'a.safetensors', METADATA)
    loaded, _ = load_network(tmp_path / 'a.safetensors')
    image, flow = torch.rand(1, 3, 8, 12) - 0.5, torch.randn(1, 2, 8, 12)
    with torch.no_grad():
        assert torch.equal(loaded(image, flow), generator(image, flow))
        torch.testing.assert_close(merge_upsampling(generator)(image, flow), generator(image, flow), atol=1e-5, rtol=0)
        wider = generator.widened(8)
        assert torch.equal(wider(image, torch.cat((flow, torch.ones(1, 6, 8, 12)), 1)), generator(image, flow))


@pytest.mark.parametrize('channels', [0, 1, 1000])
def test_a_generator_of_too_few_or_too_many_flow_channels_is_refused(channels: int, tmp_path: Path) -> None:
    generator = Generator()
    generator.conv1 = ScaledConv(3 + channels, 32, 5)
    with pytest.raises(ModelError, match=r'conv1\.conv\.weight'):
        save_network(generator, tmp_path / 'a.safetensors', METADATA)


def test_half_precision_is_loaded_as_float32(tmp_path: Path) -> None:
    generator = Generator()
    save_network(generator.half(), tmp_path / 'g.safetensors', METADATA)
    state, _ = load_weights(tmp_path / 'g.safetensors')
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in generator.state_dict().items())


def test_file_can_be_replaced_while_the_weights_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    state, _ = load_weights(path)
    before = {name: tensor.clone() for name, tensor in state.items()}
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    generator = Generator()
    save_network(generator, path, METADATA)
    done = threading.Event()

    def write() -> None:
        for number in range(8):
            save_network(generator, path, {**METADATA, 'step': str(number)})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        load_weights(path)
        reads += 1
    writer.join()
    assert load_weights(path)[1]['step'] == '7'


def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a full disk: the write stops in the middle
    try:
        with pytest.raises(ModelError, match=r'g\.safetensors: cannot be written'):
            save_network(Generator(), path, METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ['g.safetensors']


def test_saving_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / 'g.safetensors').mkdir()
    with pytest.raises(ModelError, match='cannot be written'):
        save_network(Generator(), tmp_path / 'g.safetensors', METADATA)
    assert [file.name for file in tmp_path.iterdir()] == ['g.safetensors']


def test_what_diverged_is_not_saved(tmp_path: Path) -> None:
    generator = Generator()
    with torch.no_grad():
        generator.conv9.beta[3] = torch.nan
    with pytest.raises(ModelError, match=r'conv9\.beta.*not finite'):
        save_network(generator, tmp_path / 'g.safetensors', METADATA)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('key', list(METADATA))
def test_saving_takes_all_metadata(key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=key):
        save_network(Generator(), tmp_path / 'g.safetensors', {k: v for k, v in METADATA.items() if k != key})


def test_other_modules_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match='a Linear cannot be saved; known are generator, inpainter, pwcnet, raft_small'
    ):
        save_network(nn.Linear(2, 2), tmp_path / 'g.safetensors', METADATA)


def test_missing_file(tmp_path: Path) -> None:
    for read in (load_weights, load_network):
        with pytest.raises(ModelError, match=r'none\.safetensors: no such model file'):
            read(tmp_path / 'none.safetensors')


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='is not a file'):
        load_weights(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read every file')
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    path.chmod(0)
    with pytest.raises(ModelError, match='permissions'):
        load_weights(path)


@pytest.mark.parametrize('length', [1, 7, 8, 500, 100_000, -1])
def test_truncated_file(length: int, tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    path.write_bytes(path.read_bytes()[:length])
    for read in (load_weights, load_network):
        with pytest.raises(ModelError, match=r'g\.safetensors: is not a whole safetensors file.*download it again'):
            read(path)


@pytest.mark.parametrize('content', [b'\xff' * 64, b'hello, world, this is text', b'\x10' + bytes(7) + b'{"a": 1}' * 4])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    path.write_bytes(content)
    with pytest.raises(ModelError, match='is not a whole safetensors file'):
        load_weights(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    path.touch()
    with pytest.raises(ModelError, match='is empty'):
        load_weights(path)


@pytest.mark.parametrize('length', [640, 896])
def test_a_header_whose_length_begins_as_a_pickle_does(length: int, tmp_path: Path) -> None:
    """Files begin with that length, in little-endian order: 640 is 80 02, as pickles of protocol 2 begin."""
    path = tmp_path / 'tensors.safetensors'
    write_tensors(path, {'a': torch.ones(2)}, {'format': '2', 'more': ''})
    start = int.from_bytes(path.read_bytes()[:8], 'little')
    write_tensors(path, {'a': torch.ones(2)}, {'format': '2', 'more': 'x' * (length - start)})
    assert path.read_bytes()[:2] == bytes((0x80, length // 256))
    assert read_tensors(path, lambda *_: None)[0]['a'].tolist() == [1, 1]


@pytest.mark.parametrize('name', ['weights.pth', 'weights.safetensors'])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_pytorch_file_is_not_loaded(name: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save(generator_state(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=rf'{name}: is a PyTorch file.*safetensors'):
        load_weights(path)


@pytest.mark.parametrize('protocol', range(6))
def test_pickled_code_does_not_run(protocol: int, tmp_path: Path) -> None:
    bomb, made = tmp_path / 'bomb.safetensors', tmp_path / 'made'
    bomb.write_bytes(pickle.dumps(Bomb(made), protocol))
    for read in (load_weights, load_network):
        with pytest.raises(ModelError, match=r'bomb\.safetensors'):
            read(bomb)
    assert not made.exists()


def test_wrong_architecture(tmp_path: Path) -> None:
    path = tmp_path / 'i.safetensors'
    save_network(Inpainter(), path, METADATA)
    with pytest.raises(ModelError, match='holds weights of architecture inpainter where generator is needed') as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def drop(state: dict[str, Tensor]) -> None:
    del state['conv3.gamma'], state['conv5.conv.weight']


def rename(state: dict[str, Tensor]) -> None:
    state['module.conv1.conv.weight'] = state.pop('conv1.conv.weight')


def transpose(state: dict[str, Tensor]) -> None:
    state['conv1.conv.weight'] = state['conv1.conv.weight'].permute(2, 3, 1, 0).contiguous()


def halve_all(state: dict[str, Tensor]) -> None:
    for name in state:
        state[name] = state[name][: max(1, len(state[name]) // 2)].clone()


def round_off(state: dict[str, Tensor]) -> None:
    state['conv4.beta'] = state['conv4.beta'].int()


def overflow(state: dict[str, Tensor]) -> None:
    state['conv4.conv.weight'][0, 0, 0, 0] = torch.inf


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (drop, r'conv3\.gamma is missing; conv5\.conv\.weight is missing; train or convert'),
        (rename, r'conv1\.conv\.weight is missing; module\.conv1\.conv\.weight is unexpected; train'),
        (transpose, r'conv1\.conv\.weight is \(5, 5, 5, 32\) and should be \(32, 5, 5, 5\)'),
        (halve_all, r'conv2\.conv\.weight is \(32, 32, 3, 3\) and should be \(32, 16, 3, 3\).* and \d+ more'),
        (round_off, r'conv4\.beta holds torch\.int32'),
        (overflow, r'conv4\.conv\.weight holds values that are not finite \(1 of 68 tensors'),
    ],
)
def test_wrong_tensors(change: Callable[[dict[str, Tensor]], None], message: str, tmp_path: Path) -> None:
    state = generator_state()
    change(state)
    path = tmp_path / 'g.safetensors'
    save_file(state, path, FOREIGN)
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(path)
    assert str(caught.value).startswith(f'{path}: ')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'format': '3'}, 'has format 3, and this version reads 2; update moving_object_detector'),
        ({'format': None}, 'no metadata of this project.*convert_weights'),
        ({'architecture': None}, 'no metadata of this project.*convert_weights'),
        (
            {'architecture': 'resnet'},
            "holds the architecture 'resnet'; known are generator, inpainter, pwcnet, raft_small",
        ),
        ({'flow_input': None, 'width': ''}, 'lacks flow_input, width'),
        ({'flow_input': 'raw'}, "flow_input is 'raw'; known are normalised, residual"),
        ({'height': '-4'}, "height is '-4'"),
        ({'height': '4.5'}, r"height is '4\.5'"),
        ({'width': '0'}, "width is '0'"),
        ({'width': '²'}, 'width is '),
        ({'height': '9' * 5000}, 'height is .* from 1 to 2048'),
        ({'height': '999999999996'}, 'height is .* from 1 to 2048'),
        ({'width': '4100'}, 'width is .* from 1 to 4096'),
        ({'flow_input': '\x1b[2J\n' * 50}, r'flow_input is .\\x1b'),
    ],
)
def test_wrong_metadata(change: Mapping[str, str | None], message: str, tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_file(generator_state(), path, {key: value for key, value in {**FULL, **change}.items() if value is not None})
    for read in (load_weights, load_network):
        with pytest.raises(ModelError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_safetensors_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_file(generator_state(), path)
    with pytest.raises(ModelError, match='has no metadata of this project'):
        load_weights(path)


def test_a_file_of_ours_must_have_its_checksum_and_one_of_others_need_not(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    path.write_bytes(path.read_bytes().replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(ModelError, match='damaged'):
        load_weights(path)
    save_file(generator_state(), path, FOREIGN)
    load_weights(path)


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    save_network(Generator(), tmp_path / 'g.safetensors', METADATA)
    with safe_open(tmp_path / 'g.safetensors', framework='np') as file:
        assert {key: text for key, text in file.metadata().items() if key != 'sha256'} == FULL
        assert file.get_tensor('conv1.conv.weight').shape == (32, 5, 5, 5)


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    """In processes of their own, since the order of a table differs from one to the next."""
    code = (
        'import sys, torch; from pathlib import Path\n'
        'from moving_object_detector.networks.generator import Generator\n'
        'from moving_object_detector.networks.weights import save_network\n'
        'torch.manual_seed(1)\n'
        f'about = {METADATA}\n'
        'about |= {f"option {number}": str(number) for number in range(20)}\n'
        'if sys.argv[2] == "1": about = dict(reversed(about.items()))\n'
        'save_network(Generator(), Path(sys.argv[1]), about)\n'
    )
    contents = set()
    for number in range(2):
        path = tmp_path / f'{number}.safetensors'
        subprocess.run([sys.executable, '-c', code, str(path), str(number)], check=True, cwd=ROOT)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / 'g.safetensors'
    save_network(Generator(), path, METADATA)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], 'little')
    for place in torch.randint(start, len(whole), (20,), generator=torch.Generator().manual_seed(1)).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=r'g\.safetensors'):
            load_weights(path)


@pytest.mark.parametrize('kind', ['float8_e4m3fn', 'float8_e5m2', 'int8', 'bool', 'complex64'])
def test_tensors_of_a_kind_that_is_no_float(kind: str, tmp_path: Path) -> None:
    state = generator_state()
    state['conv4.beta'] = state['conv4.beta'].to(getattr(torch, kind))
    path = tmp_path / 'g.safetensors'
    path.write_bytes(save(state, FOREIGN))
    with pytest.raises(ModelError, match=rf'conv4\.beta holds torch\.{kind}'):
        load_weights(path)
