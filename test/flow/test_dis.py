from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.flow.dis import PRESETS, DisFlow
from moving_object_detector.media.pictures import read_flow
from moving_object_detector.synthetic.scene import Layer, Scene, translation, turn_and_scale

# Mean end-point error in pixels of DIS (medium) on published pairs, measured independently of this project;
# the last pair's truth is the flow of the authors' PWC-Net.
PUBLISHED = {
    'chairs1': 1.59,
    'chairs2': 3.45,
    'chairs3': 1.32,
    'chairs4': 2.67,
    'rubberwhale': 0.23,
    'sintel_pwcnet': 1.56,
}


def texture(seed, height, width):
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.resize(rng.normal(0, 1, (cells, cells, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for cells in (6, 12, 24, 48, 96)
    )
    return np.clip(128 + 30 * image, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def scene():
    """A ground under a camera that shifts, turns and nears; a disc that moves on its own. 192x320 pixels."""
    disc = np.zeros((80, 80), np.uint8)
    cv2.circle(disc, (40, 40), 34, 255, -1, cv2.LINE_AA)

    def ground(time):
        camera = translation(160 + 3 * time, 96 - 2 * time) @ turn_and_scale(0.01 * time, 1 + 0.01 * time)
        return camera @ translation(-240, -160)

    def own(time):
        return translation(110 - 5 * time, 60 + 3 * time)

    layers = Layer(texture(1, 320, 480), None, ground, False), Layer(texture(2, 80, 80), disc, own, True)
    return Scene(layers, (192, 320))


def end_point_error(flow, truth):
    return np.linalg.norm(flow - truth, axis=2)


def flow_between(backend, first, second, size):
    return backend.estimate([backend.features(first)], [backend.features(second)], size)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ('preset', 'median', 'mean', 'on_object'),
    [
        ('ultrafast', 0.25, 0.6, 1.2),
        ('fast', 0.25, 0.6, 1.2),
        ('brisk', 0.1, 0.25, 0.3),
        ('lean', 0.1, 0.25, 0.3),
        ('medium', 0.1, 0.25, 0.3),
    ],
)
@pytest.mark.parametrize('gap', [1, -1])
def test_exact_flow_of_a_rendered_scene(scene, preset, median, mean, on_object, gap):
    backend = DisFlow(scene.size, preset)
    flow = flow_between(backend, scene.image(0), scene.image(gap), scene.size)
    seen = ~scene.occluded(0, gap)
    error = end_point_error(flow, scene.flow(0, gap))[seen]
    assert np.median(error) < median
    assert error.mean() < mean
    # The object's motion is found, too, not only the ground's.
    inside = cv2.erode(scene.mask(0).astype(np.uint8), np.ones((15, 15))) > 0
    assert np.median(end_point_error(flow, scene.flow(0, gap))[inside]) < on_object


@pytest.mark.parametrize('preset', ['brisk', 'medium'])
def test_flow_reduced_to_the_size_of_the_generator(scene, preset):
    backend = DisFlow(scene.size, preset)
    flow = flow_between(backend, scene.image(0), scene.image(1), (96, 160))
    assert flow.shape == (96, 160, 2)
    # Every other pixel of the truth, half as long: the centre of a reduced pixel lies half a pixel off, which is
    # below the bound for motions this smooth.
    truth = scene.flow(0, 1)[::2, ::2] / 2
    seen = ~scene.occluded(0, 1)[::2, ::2]
    error = end_point_error(flow, truth)[seen]
    assert np.median(error) < 0.1
    assert error.mean() < 0.25


def test_flow_is_computed_at_the_backends_size_and_given_in_pixels_of_the_result(scene):
    small = DisFlow((96, 160))
    assert small.features(scene.image(0)).shape == (96, 160)
    flow = flow_between(small, scene.image(0), scene.image(1), scene.size)
    seen = ~scene.occluded(0, 1)
    assert np.median(end_point_error(flow, scene.flow(0, 1))[seen]) < 0.3


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_errors(name, shared):
    pair = shared / 'data' / 'flow' / name
    first, second = (cv2.cvtColor(cv2.imread(str(pair / f'frame{k}.png')), cv2.COLOR_BGR2RGB) for k in (1, 2))
    truth = read_flow(next(pair.glob('*.flo')))
    known = np.abs(truth).max(2) < 1e8  # Middlebury's mark for pixels without truth is 1e9
    backend = DisFlow(truth.shape[:2])
    error = end_point_error(flow_between(backend, first, second, truth.shape[:2]), truth)[known].mean()
    assert error == pytest.approx(PUBLISHED[name], abs=0.07)

    reduced = flow_between(DisFlow(), first, second, (96, 192))
    small_truth = cv2.resize(np.where(known[:, :, None], truth, np.nan), (192, 96), interpolation=cv2.INTER_AREA)
    small_truth *= np.array((192, 96), np.float32) / truth.shape[1::-1]
    reduced_error = np.nanmean(end_point_error(reduced, small_truth))
    print(f'{name}: end-point error {error:.3f} px, reduced to 96x192 {reduced_error:.3f} px')
    # What it would be if reduction did nothing but scale; it averages errors out as well.
    assert reduced_error < 1.05 * error * max(192 / truth.shape[1], 96 / truth.shape[0])


def test_identical_frames_have_no_flow(scene):
    for preset in PRESETS:
        assert not flow_between(DisFlow(scene.size, preset), scene.image(0), scene.image(0), (96, 160)).any()


@pytest.mark.parametrize('preset', ['brisk', 'medium'])
@pytest.mark.parametrize('threads', [1, 3])
def test_pairs_do_not_influence_each_other(scene, threads, preset):
    size = (96, 160)
    backend = DisFlow(size, preset, threads)
    features = [backend.features(scene.image(time)) for time in (0, 2, 4, 7)]
    pairs = [(0, 1), (1, 0), (0, 3), (2, 1)]
    together = backend.estimate([features[a] for a, _ in pairs], [features[b] for _, b in pairs], size)
    assert together.shape == (4, 2, 96, 160)
    assert together.dtype == torch.float32
    reversed_order = backend.estimate(
        [features[a] for a, _ in pairs[::-1]], [features[b] for _, b in pairs[::-1]], size
    )
    assert torch.equal(reversed_order.flip(0), together)
    for flow, (a, b) in zip(together, pairs, strict=True):
        fresh = DisFlow(size, preset).estimate([features[a]], [features[b]], size)
        assert torch.equal(fresh[0], flow)


def test_a_thread_lets_its_error_out(scene):
    features = DisFlow((96, 160)).features(scene.image(0))
    with pytest.raises(cv2.error):
        DisFlow((96, 160), threads=2).estimate([features, features], [features, features[1:]], (96, 160))


def test_grey_features_are_those_of_rgb_images():
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :, 0] = 100
    # Rec. 601 luma: 0.299 of red, 0.114 of blue.
    assert (DisFlow((32, 48)).features(image) == 30).all()
    assert (DisFlow((32, 48)).features(image[:, :, ::-1].copy()) == 11).all()


def test_a_wrong_preset_is_named():
    with pytest.raises(ValueError, match=r'slow.*ultrafast, fast, brisk, lean, medium'):
        DisFlow((96, 192), 'slow')
    assert DisFlow((96, 192), 'fast').name == 'dis-fast'
