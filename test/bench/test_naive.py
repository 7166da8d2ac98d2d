"""The pipeline that speed is compared with gives the detector's masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.bench.tasks import FrameTask, NaivePipeline, NaiveTask
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import FLOW_CHANNELS, save_network
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

SMALL = ['engine=torch', 'device=cpu', 'height=48', 'width=96', 'flow.height=96', 'flow.width=192', 'flow.preset=fast']
# The naive pipeline knows no frame before.
SMALL.append('mask.hysteresis=false')


@pytest.fixture(scope='module')
def images():
    scene = clip_scene(7, SceneOptions(size=(96, 192), objects=(1, 1)))
    return np.stack([scene.image(time) for time in range(7)])


def config(*values):
    return load_config(DetectorConfig(), None, [*SMALL, *values])


def refined_masks(options, images):
    detector = build_detector(options)
    results = [
        result for index, image in enumerate(images) for result in detector.step(image, index * 33_000_000).results
    ]
    results += detector.flush().results
    return [result.mask for result in results if result.estimate == 'refined']


def overlap(a, b):
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


@pytest.mark.parametrize(
    'values',
    [
        (
            'window.past=2',
            'window.future=1',
            'refinement.method=none',
            'gate.min_motion=0.0',
            'mask.threshold=0.2',
            'rigid.min_score=0.0',
        ),
        ('window.past=1', 'window.future=1', 'window.stride=2', 'refinement.method=none'),
        ('window.past=0', 'window.future=1', 'refinement.method=crf', 'gate.min_motion=1000.0'),
    ],
    ids=['uneven window', 'stride, gate and refinement', 'nothing passes the gate'],
)
def test_it_gives_the_masks_of_the_detector(images, values):
    options = config(*values)
    expected = refined_masks(options, images)
    pipeline = NaivePipeline(options)
    complete = range(len(images) - (options.window.past == 0))  # the last one has no neighbour to vote
    masks = [pipeline.mask(images, index) for index in complete]
    assert len(expected) == len(masks)
    assert [overlap(a, b) > 0.99 for a, b in zip(expected, masks, strict=True)] == [True] * len(masks)
    assert any(mask.any() for mask in expected) == (options.gate.min_motion < 1000)


def random_pwcnet():
    """PWC-Net with random weights whose flow is of some pixels."""
    torch.manual_seed(3)
    network = PWCNet()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    return network


def test_with_pwcnet(images, tmp_path):
    torch.manual_seed(5)
    generator = Generator()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)  # masks from near 0 to near 1
    about = {'flow_input': 'normalised', 'flow_backend': 'pwcnet', 'height': '48', 'width': '96'}
    save_network(generator, tmp_path / 'generator.safetensors', about)
    save_network(random_pwcnet(), tmp_path / 'flow.safetensors', {})
    models = (f'model={tmp_path / "generator.safetensors"}', f'flow.model={tmp_path / "flow.safetensors"}')
    sizes = ('flow.backend=pwcnet', 'flow.height=64', 'flow.width=64', 'window.past=1', 'window.future=1')
    options = config(*models, *sizes, 'refinement.method=none', 'rigid.min_score=0.0')
    expected = refined_masks(options, images[:3])
    pipeline = NaivePipeline(options)
    masks = [pipeline.mask(images[:3], index) for index in range(3)]
    assert all(overlap(a, b) > 0.99 for a, b in zip(expected, masks, strict=True))
    assert any(0.01 < (mask > 0).mean() < 0.99 for mask in masks)


@pytest.mark.parametrize('flow_input', ['geometric', 'both_sides'])
@pytest.mark.parametrize('window', [(2, 1, 1), (1, 0, 2), (1, 1, 1), (2, 2, 1)])
def test_with_evidence_behind_the_flow(images, tmp_path, window, flow_input):
    torch.manual_seed(5)
    generator = Generator(FLOW_CHANNELS[flow_input])
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    about = {'flow_input': flow_input, 'flow_backend': 'dis-fast', 'height': '48', 'width': '96'}
    save_network(generator, tmp_path / 'generator.safetensors', about)
    past, future, stride = window
    values = f'window.past={past}', f'window.future={future}', f'window.stride={stride}', 'gate.min_motion=0.0'
    quiet = 'refinement.method=none', 'rigid.min_score=0.0'
    options = config(f'model={tmp_path / "generator.safetensors"}', *values, *quiet)
    expected = refined_masks(options, images)
    pipeline = NaivePipeline(options)
    complete = range(0 if future else stride, len(images))
    masks = [pipeline.mask(images, index) for index in complete]
    assert len(masks) == len(expected)
    assert all(overlap(a, b) > 0.99 for a, b in zip(expected, masks, strict=True))
    assert any(0.01 < (mask > 0).mean() < 0.99 for mask in masks)


@pytest.mark.parametrize('least', [2.0, 4.0, 8.0])
@pytest.mark.parametrize('window', [(1, 1, 1), (2, 2, 1), (1, 1, 2)])
def test_where_only_some_of_the_flows_pass_the_gate(tmp_path, window, least):
    """A square that rests, jolts, creeps and rests again, so that any of the neighbours may be the one that moves."""
    rng = np.random.default_rng(3)
    ground, square = (cv2.GaussianBlur(rng.integers(0, 256, (96, 192, 3), np.uint8), (0, 0), 2) for _ in range(2))
    images = []
    for place in (60, 60, 60, 64, 64.4, 64.8, 65.2, 65.6, 66, 66, 66):
        shift = np.array([[1, 0, place], [0, 1, 30]], np.float32)
        inside = cv2.warpAffine(np.full((40, 40), 255, np.uint8), shift, (192, 96))[..., None] / 255
        moved = cv2.warpAffine(square[:40, :40], shift, (192, 96))
        images.append(np.asarray(moved * inside + ground * (1 - inside), np.uint8))
    torch.manual_seed(5)
    generator = Generator(FLOW_CHANNELS['both_sides'])
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
        # Which of a pair's two flows tells the travel depends on what passes, and is not what is asked here.
        for side in range(3, 3 + generator.flow_channels, 8):
            generator.conv1.conv.weight[:, side + 2 : side + 7] = 0
    about = {'flow_input': 'both_sides', 'flow_backend': 'dis-fast', 'height': '48', 'width': '96'}
    save_network(generator, tmp_path / 'generator.safetensors', about)
    past, future, stride = window
    options = config(
        f'model={tmp_path / "generator.safetensors"}', f'window.past={past}', f'window.future={future}',
        f'window.stride={stride}', f'gate.min_motion={least}', 'refinement.method=none', 'rigid.min_score=0.0',
    )  # fmt: skip
    expected = refined_masks(options, images)
    pipeline = NaivePipeline(options)
    masks = [pipeline.mask(images, index) for index in range(len(images))]
    assert all(overlap(a, b) > 0.99 for a, b in zip(expected, masks, strict=True))
    assert 0 < sum(mask.any() for mask in masks) < len(masks)


def test_both_tasks_turn_the_same_messages_into_the_same_masks(images):
    few = 'refinement.method=none', 'gate.min_motion=0.0', 'rigid.min_score=0.0', 'mask.threshold=0.2'
    options = config('window.past=2', 'window.future=1', 'mask.min_area=0.0', *few)
    ours, naive = (task(options, images[:4]) for task in (FrameTask, NaiveTask))
    for _ in range(ours.fill):
        ours.call()
    # The naive one begins with frame 2, the first that has its whole window; frame 3 completes it.
    ours.call()
    ours.call()
    found = 0
    for index in range(2, 6):  # beyond the last of four frames they come back
        naive.call()
        ours.settle()
        assert overlap(ours.mask, naive.mask) > 0.99, index
        found += bool(naive.mask.any())
        ours.call()
    assert found
    assert naive.mask.shape == (96, 192)
    ours.settle()
    times = ours.watch.take()
    assert {
        'latency',
        'decode',
        'prepare',
        'flow',
        'generator input',
        'generator',
        'vote',
        'refinement and regions',
        'encode',
    } == set(times)
    assert len(times['decode']) == 2 + 2 + 4
