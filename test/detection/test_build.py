"""Flow backends and engines as the options ask for them."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import fetched_weights, generator_path
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import build_detector, create_flow, load_generator
from moving_object_detector.detection.config import DetectorConfig, FlowConfig
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.flow.raft_small import RaftSmallFlow
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.networks.weights import save_network

CPU = torch.device('cpu')
NETWORKS = {'pwcnet': PWCNet, 'raft_small': RaftSmall}
PICTURES = [
    cv2.resize(np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8), (128, 64)) for seed in (1, 2)
]


def test_options_of_a_network_without_one_are_said(caplog: pytest.LogCaptureFixture) -> None:
    create_flow(FlowConfig(model='weights.pth', iterations=3), CPU)
    assert [record.args for record in caplog.records] == [('model', 'dis'), ('iterations', 'dis')]
    caplog.clear()
    create_flow(FlowConfig(), CPU)
    assert not caplog.records


def test_the_generator_is_the_one_for_the_flow_that_auto_stands_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    config = DetectorConfig(flow=FlowConfig(backend='auto'))
    assert load_generator(config).path == generator_path('', 'dis')
    save_network(RaftSmall(), fetched_weights('raft_small'), {})
    assert load_generator(config).path == generator_path('', 'raft_small') != generator_path('', 'dis')
    # A generator is for the flow that it was trained on: the small one has seen DIS alone.
    assert generator_path('small', 'raft_small') == generator_path('', 'raft_small')
    assert generator_path('small', 'dis') not in (generator_path('', 'dis'), generator_path('', 'raft_small'))


def test_the_small_generator_runs_in_a_third_of_the_parameters() -> None:
    detectors = [build_detector(DetectorConfig(model=name)) for name in ('', 'small')]
    full, small = (load_generator(detector.config).network for detector in detectors)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in full.parameters()) / 3
    for index, picture in enumerate(PICTURES):
        outcome = detectors[1].step(picture, index)
    assert outcome.results[0].mask.shape == PICTURES[0].shape[:2]


@pytest.mark.parametrize(('architecture', 'released'), [('raft_small', True), ('raft_small', False), ('pwcnet', False)])
def test_networks_from_either_kind_of_file(architecture: str, released: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETWORKS[architecture]()
    path = tmp_path / ('weights.pth' if released else 'weights.safetensors')
    if released:
        torch.save({f'module.{name}': tensor for name, tensor in network.state_dict().items()}, path)
    else:
        save_network(network, path, {})
    backend = create_flow(FlowConfig(backend=architecture, height=64, width=128, model=str(path), iterations=2), CPU)
    expected = (
        PwcFlow(network, (64, 128), CPU) if architecture == 'pwcnet' else RaftSmallFlow(network, (64, 128), CPU, 2)
    )
    flows = [
        each.estimate([each.features(PICTURES[0])], [each.features(PICTURES[1])], (48, 96))
        for each in (backend, expected)
    ]
    assert backend.name == architecture
    assert torch.equal(*flows)


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    return tmp_path / 'moving_object_detector' / 'weights'


@pytest.mark.parametrize('backend', ['pwcnet', 'raft_small'])
def test_a_network_needs_its_weights(backend: str, data_folder: Path) -> None:
    config = DetectorConfig(device='cpu', flow=FlowConfig(backend=backend))
    with pytest.raises(UserError, match=rf'get_weights {backend}.*flow\.model'):
        build_detector(config)


@pytest.mark.parametrize('backend', ['pwcnet', 'raft_small'])
def test_weights_that_were_fetched_are_found(backend: str, data_folder: Path) -> None:
    save_network(NETWORKS[backend](), data_folder / f'{backend}.safetensors', {})
    for name in (backend, 'auto'):
        assert create_flow(FlowConfig(backend=name, height=64, width=128), CPU).name == backend


def test_learned_flow_where_its_weights_are(data_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert create_flow(FlowConfig(backend='auto'), CPU).name == 'dis-medium'
    assert 'get_weights raft_small' in caplog.text
    with pytest.raises(UserError, match=r'flow\.backend'):
        create_flow(FlowConfig(backend='auto', model='pwc.pth'), CPU)


def test_the_profile_for_gpus_starts_without_one(data_folder: Path) -> None:
    for override in ([], ['device=cpu']):
        config = load_config(DetectorConfig(), Path('config/gpu.yaml'), [*override, 'flow.height=64', 'flow.width=128'])
        assert build_detector(config).flow.name == 'dis-medium'


@pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')
@pytest.mark.parametrize('precision', ['auto', 'int8'])
def test_where_masks_are_computed_in_less_flow_is_in_float32(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    network, path = PWCNet(), tmp_path / 'weights.safetensors'
    save_network(network, path, {})
    config = DetectorConfig(
        device='cpu',
        precision=precision,
        height=32,
        width=64,
        flow=FlowConfig(backend='pwcnet', height=64, width=128, model=str(path)),
    )
    detector = build_detector(config)
    cpu = Path('/proc/cpuinfo')
    if not cpu.is_file() or platform.machine() != 'x86_64':
        pytest.skip('only x86-64 Linux says in /proc/cpuinfo whether there are bfloat16 instructions')
    has = {'avx512_bf16', 'amx_bf16'} & set(cpu.read_text().split())
    masks = {'auto': 'bfloat16' if has else 'float32', 'int8': 'int8'}[precision]
    assert detector.engine.name == f'openvino {masks} on cpu'
    found, expected = (
        each.estimate([each.features(PICTURES[0])], [each.features(PICTURES[1])], (64, 128))
        for each in (detector.flow, PwcFlow(network, (64, 128), CPU))
    )
    # Relative, for random weights give long vectors; bfloat16 has but 8 bits.
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'weights.safetensors'
    save_network(PWCNet(), path, {})
    with pytest.raises(UserError, match=r'weights\.safetensors: holds weights of architecture pwcnet'):
        create_flow(FlowConfig(backend='raft_small', model=str(path)), CPU)
