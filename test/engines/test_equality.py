"""What the engines give on frames: the same masks and the same flow as PyTorch."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import (
    DetectorConfig,
    FlowConfig,
    GateConfig,
    MaskConfig,
    RefinementConfig,
    RigidConfig,
)
from moving_object_detector.engines.create import create_engine
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.flow.raft_small import RaftSmallFlow
from moving_object_detector.networks.pwcnet import PWCNet, warp
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene

CPU = torch.device('cpu')
SEQUENCES = ('bear', 'car-turn')
FRAMES = 3
pytestmark = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')


def rendered(seed, size, frames=FRAMES):
    scene = random_scene(seed, SceneOptions(size=size))
    return [scene.image(time) for time in range(frames)]


def real(shared, sequence):
    files = sorted((shared / 'data' / 'davis2016' / 'JPEGImages' / '480p' / sequence).glob('*.jpg'))[:FRAMES]
    return [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]


@pytest.fixture(scope='module')
def detectors():
    """Return the package's own model, by each engine."""
    config = DetectorConfig(
        device='cpu',
        flow=FlowConfig(height=128, width=256),
        # Neither gate nor test of regions, which would hide a difference behind an empty mask, nor hysteresis, whose
        # threshold may make a large one of a small one.
        mask=MaskConfig(hysteresis=False),
        gate=GateConfig(min_motion=0.0),
        rigid=RigidConfig(min_score=0.0),
        refinement=RefinementConfig(method='none'),
    )
    made = {}
    for engine, precision in (('torch', 'float32'), ('openvino', 'float32'), ('openvino', 'bfloat16')):
        try:
            detector = build_detector(replace(config, engine=engine, precision=precision))
        except UserError as error:  # of half precision on a CPU that has none
            assert precision == 'bfloat16'
            made[engine, precision] = str(error)
            continue
        assert detector.engine.name == f'{engine} {precision} on cpu'
        made[engine, precision] = detector
    return made


@pytest.mark.parametrize(('precision', 'tolerance'), [('float32', 1e-3), ('bfloat16', 0.1)])
@pytest.mark.parametrize('clip', [*(pytest.param(name, marks=pytest.mark.shared) for name in SEQUENCES), 'rendered 1'])
def test_masks_of_frames(detectors, clip, precision, tolerance, request):
    if isinstance(detectors['openvino', precision], str):
        pytest.skip(detectors['openvino', precision])
    frames = (
        rendered(int(clip[-1]), (128, 256))
        if clip.startswith('rendered')
        else real(request.getfixturevalue('shared'), clip)
    )
    results = []
    for detector in (detectors['openvino', precision], detectors['torch', 'float32']):
        detector.reset()
        found = [
            result for index, frame in enumerate(frames) for result in detector.step(frame, index * 33_000_000).results
        ]
        results.append(found + detector.flush().results)
    ours, theirs = results
    assert len(ours) == len(theirs) == 2 * FRAMES - 1
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.probability - b.probability).max() < tolerance
        intersection, union = np.count_nonzero(a.mask & b.mask), np.count_nonzero(a.mask | b.mask)
        assert intersection > 0.99 * union or union == 0
    assert any(result.mask.any() for result in theirs)


@pytest.fixture(scope='module')
def flows():
    """Return PWC-Net with random weights, whose flow is some pixels, by PyTorch and by OpenVINO."""
    torch.manual_seed(3)
    network = PWCNet().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    size = (64, 128)
    return {name: PwcFlow(network, size, CPU, create_engine(name, CPU).load, 3) for name in ('torch', 'openvino')}


def test_flow_of_frames(flows):
    """Every pyramid is used in several pairs and both ways, as the detector does."""
    frames = rendered(4, (100, 200), 3)
    pairs = [(0, 1), (1, 0), (2, 1), (1, 2), (0, 2)]
    results = {}
    for name, backend in flows.items():
        pyramids = [backend.features(frame) for frame in frames]
        results[name] = backend.estimate([pyramids[a] for a, _ in pairs], [pyramids[b] for _, b in pairs], (64, 128))
        alone = backend.estimate([pyramids[2]], [pyramids[1]], (64, 128))
        torch.testing.assert_close(alone[0], results[name][2], atol=1e-3, rtol=0)
    expected = results['torch']
    x = torch.arange(128) + expected[:, 0]
    assert 1 < expected.std() < 100
    assert 0.01 < ((x < 0) | (x > 127)).float().mean() < 0.99
    torch.testing.assert_close(results['openvino'], expected, atol=1e-3, rtol=0)


def test_raft_small_flow_of_frames():
    """With a start from the frame before, at another number of pairs than the usual."""
    torch.manual_seed(3)
    network = RaftSmall().eval()
    with torch.no_grad():
        network.update_block.flow_head.conv2.weight.mul_(20)
    frames = rendered(4, (64, 128), 3)
    results = {}
    for name in ('torch', 'openvino'):
        backend = RaftSmallFlow(network, (64, 128), CPU, 3, 2, create_engine(name, CPU).load, 2)
        first = backend.features(frames[0])
        second = backend.features(frames[1], first)
        backend.estimate([second, first], [first, second], (64, 128))
        third = backend.features(frames[2], second)
        results[name] = backend.estimate([third, second, third], [second, third, first], (64, 128))
    assert 1 < results['torch'].std() < 100
    torch.testing.assert_close(results['openvino'], results['torch'], atol=1e-3, rtol=1e-3)


class Warp(nn.Module):
    def forward(self, x, flow):
        return warp(x, flow)


def test_warp_is_zero_outside_in_openvino_too():
    """Look-ups at whole pixels, between pixels, at the border and far outside."""
    torch.manual_seed(0)
    x, flow = torch.randn(2, 3, 9, 13), torch.randn(2, 2, 9, 13) * 4
    flow[1] = flow[1].round()
    flow[1, :, :3] = 1000.0
    run = create_engine('openvino', CPU).load(Warp(), (x[:1], flow[:1]), 'warp')
    expected = warp(x, flow)
    assert 0.1 < (expected == 0).float().mean() < 0.9
    (warped,) = run(x, flow)
    torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)
    assert torch.equal(warped == 0, expected == 0)
