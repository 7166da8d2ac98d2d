from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.networks.pwcnet import PWCNet

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def network():
    """Random weights, scaled so that the flow is a few pixels and differs from place to place."""
    torch.manual_seed(3)
    network = PWCNet().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.05)
    return network


def picture(seed, height, width):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def as_input(image):
    """BGR in [0, 1], as the authors' weights take it."""
    return torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255


def reference(network, first, second, size):
    """Run the network on images of its own size; interpolate each component, in pixels of ``size``."""
    with torch.no_grad():
        flow = network(as_input(first), as_input(second)) * 20
    height, width = first.shape[:2]
    resized = functional.interpolate(flow, size, mode='bilinear')
    return torch.stack((resized[:, 0] * size[1] / width, resized[:, 1] * size[0] / height), 1)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_flow_is_that_of_the_network(network):
    first, second = picture(1, 64, 128), picture(2, 64, 128)
    backend = PwcFlow(network, (64, 128), CPU)
    flow = backend.estimate([backend.features(first)], [backend.features(second)], (64, 128))
    expected = reference(network, first, second, (64, 128))
    assert expected.std() > 0.1
    assert flow.shape == (1, 2, 64, 128)
    assert close(flow, expected)


@pytest.mark.parametrize('size', [(48, 96), (33, 50), (64, 100), (100, 64), (16, 32)])
def test_vectors_are_rescaled_with_the_result(network, size):
    first, second = picture(1, 64, 128), picture(2, 64, 128)
    backend = PwcFlow(network, (64, 128), CPU)
    flow = backend.estimate([backend.features(first)], [backend.features(second)], size)
    assert flow.shape == (1, 2, *size)
    assert close(flow, reference(network, first, second, size))


@pytest.mark.parametrize('shape', [(129, 257), (70, 130), (65, 129), (200, 131), (31, 47), (64, 128)])
def test_images_of_any_size_are_resized_first(network, shape):
    first, second = picture(3, *shape), picture(4, *shape)
    small = [
        cv2.resize(image, (128, 64), interpolation=cv2.INTER_AREA if shape[0] > 64 else cv2.INTER_LINEAR)
        for image in (first, second)
    ]
    backend = PwcFlow(network, (64, 128), CPU)
    flow = backend.estimate([backend.features(first)], [backend.features(second)], (64, 128))
    assert close(flow, reference(network, *small, (64, 128)))


def test_an_odd_size_of_computation_is_rounded_up_to_multiples_of_64(network):
    backend = PwcFlow(network, (50, 65), CPU)
    pyramid = backend.features(picture(1, 90, 160))
    assert [tuple(level.shape[2:]) for level in pyramid] == [(64 // 2**k, 128 // 2**k) for k in range(2, 7)]


def test_pairs_of_a_batch_are_estimated_alone(network):
    backend = PwcFlow(network, (64, 128), CPU)
    pyramids = [backend.features(picture(seed, 80, 150)) for seed in range(4)]
    pairs = [(0, 1), (1, 0), (3, 2)]
    together = backend.estimate([pyramids[a] for a, _ in pairs], [pyramids[b] for _, b in pairs], (48, 96))
    for flow, (a, b) in zip(together, pairs, strict=True):
        assert close(flow[None], backend.estimate([pyramids[a]], [pyramids[b]], (48, 96)))
    assert not close(together[:1], together[1:2])


def test_results_can_be_used_in_training_code(network):
    backend = PwcFlow(network, (64, 128), CPU)
    assert backend.name == 'pwcnet'
    flow = backend.estimate([backend.features(picture(1, 64, 128))], [backend.features(picture(2, 64, 128))], (16, 32))
    assert not flow.requires_grad
    assert flow.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
def test_the_gpu_agrees_with_the_cpu():
    torch.manual_seed(3)
    network = PWCNet()
    size = (64, 128)
    results = []
    for device in (CPU, torch.device('cuda')):
        backend = PwcFlow(network, size, device)
        features = [backend.features(picture(seed, 90, 160)) for seed in (1, 2)]
        results.append(backend.estimate(features[:1], features[1:], size).cpu())
    assert torch.allclose(results[1], results[0], rtol=1e-2, atol=1e-2 * float(results[0].abs().max()))
