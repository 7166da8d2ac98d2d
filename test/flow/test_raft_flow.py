from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.flow import raft_small
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.raft_small import RaftSmallFlow, carry, match_quality
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.synthetic.random_scene import random_texture
from moving_object_detector.synthetic.scene import Layer, Scene, translation, turn_and_scale

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def network():
    """Random weights, scaled so that the flow is a few pixels and differs from place to place."""
    torch.manual_seed(3)
    network = RaftSmall().eval()
    with torch.no_grad():
        network.update_block.flow_head.conv2.weight.mul_(20)
    return network


def picture(seed, height, width):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def as_input(image):
    """RGB in [-1, 1], as the authors' weights take it."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255 * 2 - 1


def reference(network, first, second, size, iterations=3):
    """Run the network on images of its own size; resize each component as OpenCV does, in pixels of ``size``."""
    with torch.no_grad():
        flow = network(as_input(first), as_input(second), iterations)
    height, width = first.shape[:2]
    rule = cv2.INTER_AREA if size[0] < height and size[1] < width else cv2.INTER_LINEAR
    resized = torch.from_numpy(cv2.resize(flow[0].permute(1, 2, 0).numpy(), size[::-1], interpolation=rule))
    resized = resized.permute(2, 0, 1)[None]
    return torch.stack((resized[:, 0] * size[1] / width, resized[:, 1] * size[0] / height), 1)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def flow_between(backend, first, second, size):
    return backend.estimate([backend.features(first)], [backend.features(second)], size)


def test_flow_is_that_of_the_network(network):
    first, second = picture(1, 64, 128), picture(2, 64, 128)
    flow = flow_between(RaftSmallFlow(network, (64, 128), CPU, 3), first, second, (64, 128))
    expected = reference(network, first, second, (64, 128))
    assert expected.std() > 0.1
    assert flow.shape == (1, 2, 64, 128)
    assert close(flow, expected)
    # Red is not blue, and the number of iterations is the one that was asked for.
    assert not close(flow, reference(network, first[:, :, ::-1], second[:, :, ::-1], (64, 128)))
    assert not close(flow, reference(network, first, second, (64, 128), 4))


@pytest.mark.parametrize('size', [(48, 96), (33, 50), (64, 100), (100, 64), (16, 32)])
def test_vectors_are_rescaled_with_the_result(network, size):
    first, second = picture(1, 64, 128), picture(2, 64, 128)
    flow = flow_between(RaftSmallFlow(network, (64, 128), CPU, 3), first, second, size)
    assert flow.shape == (1, 2, *size)
    assert close(flow, reference(network, first, second, size))


@pytest.mark.parametrize('shape', [(129, 257), (70, 130), (200, 131), (31, 47)])
def test_images_of_any_size_are_resized_first(network, shape):
    first, second = picture(3, *shape), picture(4, *shape)
    small = [
        cv2.resize(image, (128, 64), interpolation=cv2.INTER_AREA if shape[0] > 64 else cv2.INTER_LINEAR)
        for image in (first, second)
    ]
    flow = flow_between(RaftSmallFlow(network, (64, 128), CPU, 3), first, second, (64, 128))
    assert close(flow, reference(network, *small, (64, 128)))


@pytest.mark.parametrize(('asked', 'computed'), [((65, 130), (72, 136)), ((32, 200), (64, 200)), ((64, 64), (64, 64))])
def test_an_odd_size_of_computation_is_rounded_up_to_multiples_of_8(network, asked, computed):
    backend = RaftSmallFlow(network, asked, CPU, 1)
    features = backend.features(picture(1, 90, 160))
    assert features.matching.shape[2:] == features.context.shape[2:] == (computed[0] // 8, computed[1] // 8)
    assert backend.estimate([features], [features], (24, 48)).isfinite().all()


@pytest.mark.parametrize('pairs_held', [1, 2, 10])
def test_pairs_of_a_batch_are_estimated_alone(network, pairs_held, monkeypatch):
    monkeypatch.setattr(raft_small, 'MOST_CORRELATIONS', pairs_held * (8 * 16) ** 2)
    backend = RaftSmallFlow(network, (64, 128), CPU, 3)
    features = [backend.features(picture(seed, 80, 150)) for seed in range(4)]
    pairs = [(0, 1), (1, 0), (3, 2)]
    together = backend.estimate([features[a] for a, _ in pairs], [features[b] for _, b in pairs], (48, 96))
    assert together.shape == (3, 2, 48, 96)
    for flow, (a, b) in zip(together, pairs, strict=True):
        assert close(flow[None], backend.estimate([features[a]], [features[b]], (48, 96)))
    assert not close(together[:1], together[1:2])


def test_results_can_be_used_in_training_code(network):
    backend = RaftSmallFlow(network, (64, 128), CPU, 1)
    assert backend.name == 'raft_small'
    flow = flow_between(backend, picture(1, 64, 128), picture(2, 64, 128), (16, 32))
    assert not flow.requires_grad
    assert flow.dtype == torch.float32


@pytest.fixture(scope='module')
def scene():
    """A ground under a camera that shifts, turns and nears; a disc as fast as its radius. 192x320 pixels."""
    rng = np.random.default_rng(1)
    disc = np.zeros((64, 64), np.uint8)
    cv2.circle(disc, (32, 32), 28, 255, -1, cv2.LINE_AA)

    def ground(time):
        camera = translation(160 + 4 * time, 96 - 3 * time) @ turn_and_scale(0.02 * time, 1 + 0.02 * time)
        return camera @ translation(-240, -160)

    def own(time):
        return translation(110 - 27 * time, 60 + 18 * time)

    layers = (
        Layer(random_texture(rng, (320, 480)), None, ground, False),
        Layer(random_texture(rng, (64, 64)), disc, own, True),
    )
    return Scene(layers, (192, 320))


@pytest.mark.parametrize('gap', [1, -1])
def test_exact_flow_of_a_rendered_scene(scene, gap, shared):
    network = load_flow_network(shared / 'weights' / 'raft_small.pth', 'raft_small')
    seen = ~scene.occluded(0, gap)
    inside = cv2.erode(scene.mask(0).astype(np.uint8), np.ones((17, 17))) > 0
    errors = {}
    for backend in (RaftSmallFlow(network, scene.size, CPU, 12), DisFlow(scene.size, 'medium')):
        flow = flow_between(backend, scene.image(0), scene.image(gap), scene.size)[0].permute(1, 2, 0).numpy()
        errors[backend.name] = np.linalg.norm(flow - scene.flow(0, gap), axis=2)
    assert np.median(errors['raft_small'][seen]) < 0.25
    assert errors['raft_small'][seen].mean() < 0.6
    assert errors['raft_small'][seen].mean() < errors['dis-medium'][seen].mean()
    # What DIS loses altogether: an object as fast as it is large.
    assert np.median(errors['raft_small'][inside]) < 0.6
    assert np.median(errors['dis-medium'][inside]) > 10


def stream(backend, images, size):
    """Flow of each frame to the next and back, as the frames come in."""
    before, flows = None, []
    for image in images:
        frame = backend.features(image, before)
        if before:
            flows.append(backend.estimate([before, frame], [frame, before], size))
        before = frame
    return flows


def test_what_was_found_at_the_frame_before_is_worth_many_iterations(shared):
    """A camera that goes fast and evenly: one iteration from the flow carried along, against one from nothing."""
    network = load_flow_network(shared / 'weights' / 'raft_small.pth', 'raft_small')
    ground = random_texture(np.random.default_rng(1), (320, 480))
    shift = (30, -18)
    layer = Layer(ground, None, lambda time: translation(-100 + shift[0] * time, -60 + shift[1] * time), False)
    scene = Scene((layer,), (128, 192))
    images = [scene.image(time) for time in range(4)]
    errors = {}
    for cold, warm in ((12, 1), (1, 0)):
        flows = stream(RaftSmallFlow(network, scene.size, CPU, cold, warm), images, scene.size)[-1]
        there, back = flows[0] - torch.tensor(shift)[:, None, None], flows[1] + torch.tensor(shift)[:, None, None]
        errors[cold] = [error[:, 40:-40, 48:-48].norm(dim=0).mean() for error in (there, back)]
    assert max(errors[12]) < 1
    assert min(errors[1]) > 3


def test_a_new_stream_knows_nothing_of_the_last(network):
    images = [picture(seed, 64, 128) for seed in range(4)]
    fresh = stream(RaftSmallFlow(network, (64, 128), CPU, 3, 2), images, (16, 32))
    used = RaftSmallFlow(network, (64, 128), CPU, 3, 2)
    stream(used, images[::-1], (16, 32))
    assert all(torch.equal(a, b) for a, b in zip(fresh, stream(used, images, (16, 32)), strict=True))
    cold = stream(RaftSmallFlow(network, (64, 128), CPU, 3), images, (16, 32))
    assert torch.equal(fresh[0], cold[0])
    assert not torch.equal(fresh[1], cold[1])


def test_pairs_that_start_anew_and_such_that_do_not_in_one_batch(network):
    """Each as alone: the flow to the frame before last has no predecessor yet where the one to the last frame has."""
    images = [picture(seed, 64, 128) for seed in range(3)]
    found = []
    for together in (True, False):
        backend = RaftSmallFlow(network, (64, 128), CPU, 3, 2)
        a = backend.features(images[0])
        b = backend.features(images[1], a)
        backend.estimate([a, b], [b, a], (16, 32))
        c = backend.features(images[2], b)
        pairs = [(c, b), (c, a), (a, c), (b, c)]
        batches = [pairs] if together else [[pair] for pair in pairs]
        found.append(torch.cat([backend.estimate(*zip(*batch, strict=True), (16, 32)) for batch in batches]))
    assert close(found[0], found[1])


def test_flow_carried_along_itself():
    flow = torch.zeros(2, 3, 6)
    flow[0, 0, 1] = 2.2  # to column 3
    flow[:, 2, 0] = torch.tensor((1.0, -1.0))  # to row 1, column 1
    flow[0, 1, 4] = 9.0  # out of the image
    flow[0, 2, 5] = float('nan')
    carried = carry(flow, 1)
    assert carried[:, 0, 3].tolist() == pytest.approx([1.1, 0.0])  # the mean with what stayed there
    assert carried[:, 1, 1].tolist() == [0.5, -0.5]
    assert carried[0, 0, 1] == pytest.approx(2.2)  # nothing arrives: as it was
    assert carried[0, 1, 4] == 9.0
    # To the frame before, it is the other way; over two frames, one frame moves it by half.
    assert carry(flow, -1)[0, 0, 0] == 0
    assert carry(flow, 2)[0, 0, 2] == pytest.approx(1.1)


def test_match_by_hand():
    correlations = torch.rand(2, 32, 4, 8)
    shift = torch.zeros(2, 2, 4, 8)
    shift[:, 0] = 1.2
    cells = torch.arange(32).view(4, 8)
    correlations.flatten(2)[0, cells[:, :-1].flatten(), cells[:, 1:].flatten()] = 5.0
    quality = match_quality(correlations, shift)
    assert quality[0] == pytest.approx(5 * 7 / 8)  # the last column leads out of the image
    assert quality[1] < 1


def test_after_a_cut_the_flow_before_it_is_no_start(shared):
    """Frames of fast and of no motion: the start is that of a new stream, where the flow before the cut is no match."""
    network = load_flow_network(shared / 'weights' / 'raft_small.pth', 'raft_small')
    still = random_texture(np.random.default_rng(5), (64, 128))
    moving = random_texture(np.random.default_rng(6), (64, 256))
    images = [moving[:, 30 * time : 30 * time + 128] for time in range(3)] + [still, still]
    flow = stream(RaftSmallFlow(network, (64, 128), CPU, 8, 2), images, (64, 128))[-1]
    cold = stream(RaftSmallFlow(network, (64, 128), CPU, 2), images[-2:], (64, 128))[-1]
    assert torch.equal(flow, cold)
    assert flow.norm(dim=1).mean() < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
def test_the_gpu_agrees_with_the_cpu():
    torch.manual_seed(3)
    network = RaftSmall()
    size = (64, 128)
    results = []
    for device in (CPU, torch.device('cuda')):
        backend = RaftSmallFlow(network, size, device, 3)
        features = [backend.features(picture(seed, 90, 160)) for seed in (1, 2)]
        results.append(backend.estimate(features[:1], features[1:], size).cpu())
    assert torch.allclose(results[1], results[0], rtol=1e-2, atol=1e-2 * float(results[0].abs().max()))
