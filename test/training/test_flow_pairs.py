import pickle

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.networks.pwcnet import warp
from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene
from moving_object_detector.synthetic.scene import moved, visible
from moving_object_detector.training.flow_pairs import FlowPairOptions, RenderedFlowPairs

SIZE = (64, 128)


def clean(**options):
    return FlowPairOptions(SIZE, photometric=False, **options)


@pytest.fixture
def scene():
    return random_scene(11, SceneOptions(size=(96, 160), objects=(2, 4), standing=(1, 3)))


def test_an_instant_is_the_image_and_the_layers(scene):
    instant = scene.instant(3.5)
    assert np.array_equal(instant.layer, scene.instant(3.5).layer)
    assert len(np.unique(instant.layer)) > 2
    difference = np.abs(instant.image.astype(int) - scene.image(3.5))
    assert difference.max() <= 1
    assert difference.mean() < 0.01
    assert np.array_equal(instant.poses[0], scene.layers[0].pose(3.5))


def test_flow_and_occlusion_are_the_scenes(scene):
    source, target = scene.instant(2.0), scene.instant(4.5)
    ys, xs = np.mgrid[0:96, 0:160].astype(np.float32)
    then_x, then_y, layer = moved(source, target.poses, xs, ys)
    exact, hidden = np.empty((96, 160, 2)), np.zeros((96, 160), bool)
    for y, x in np.ndindex(96, 160):
        index = source.layer[y, x]
        px, py, pw = target.poses[index] @ np.linalg.solve(source.poses[index], (x, y, 1.0))
        exact[y, x] = px / pw - x, py / pw - y
        column, row = round(px / pw), round(py / pw)
        hidden[y, x] = not (0 <= column < 160 and 0 <= row < 96) or target.layer[row, column] != index
    assert np.abs(np.stack((then_x - xs, then_y - ys), 2) - exact).max() < 1e-3
    assert np.abs(scene.flow(2.0, 4.5) - exact).max() < 1e-3
    assert 0.02 < hidden.mean() < 0.9
    # Points within rounding of half a pixel may fall either way.
    assert (visible(target, then_x, then_y, layer, (0, 0, 96, 160)) == ~hidden).mean() > 0.999
    assert (scene.occluded(2.0, 4.5) == hidden).mean() > 0.999


def test_what_leaves_the_crop_is_not_seen(scene):
    instant = scene.instant(0.0)
    xs = np.array(((9.4, 9.6, 39.4, 39.6),), np.float32)
    ys = np.full_like(xs, 30)
    layer = instant.layer[30, [10, 10, 39, 39]][None]
    assert visible(instant, xs, ys, layer, (20, 10, 30, 30)).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize('deformation', [0.0, 1.0])
def test_the_second_frame_warped_by_the_flow_is_the_first(deformation):
    """In all crops, flips, directions and bends; and no other flow does as well."""
    pairs = RenderedFlowPairs(5, clean(deformation=deformation, pairs_per_scene=4))
    aligned, wrong = [], []
    for index in range(24):
        first, second, flow, seen = pairs[index]
        assert first.shape == second.shape == (3, *SIZE)
        assert first.dtype == second.dtype == torch.uint8
        assert flow.shape == (2, *SIZE)
        assert flow.dtype == torch.float32
        for signs, errors in (((1, 1), aligned), ((-1, 1), wrong), ((1, -1), wrong)):
            moved = warp(second[None].float(), flow[None] * torch.tensor(signs)[:, None, None])[0]
            errors.append(float((moved - first)[seen.expand(3, -1, -1)].abs().mean()))
    print(f'mean difference {np.mean(aligned):.2f} levels, mirrored flow {np.mean(wrong):.2f}')
    assert np.mean(aligned) < 0.25 * np.mean(wrong)
    assert np.mean(aligned) < 4


def test_a_pair_depends_on_seed_and_number_alone():
    pairs = RenderedFlowPairs(7, FlowPairOptions(SIZE, pairs_per_scene=2))
    in_order = [pairs[index] for index in range(4)]
    other = pickle.loads(pickle.dumps(RenderedFlowPairs(7, FlowPairOptions(SIZE, pairs_per_scene=2))))
    for index in (3, 0, 2, 1):
        assert all(torch.equal(a, b) for a, b in zip(other[index], in_order[index], strict=True))
    frames = {item.first.numpy().tobytes() for item in (*in_order, RenderedFlowPairs(8, FlowPairOptions(SIZE))[0])}
    assert len(frames) == 5


def test_pairs_of_a_scene_go_forward_and_backward():
    """Scenes drift steadily in the main, so the mean flows of a scene's pairs, unflipped, are opposite."""
    pairs = RenderedFlowPairs(2, clean(deformation=0.0, pairs_per_scene=2))
    ys, xs = np.mgrid[0:72, 0:144].astype(np.float32)
    number, forward = 0, np.zeros(2)
    while np.linalg.norm(forward) < 2:
        number += 1
        source, target = pairs._instants(number)
        forward = _mean_motion(source, target, xs, ys)
    assert np.linalg.norm(forward + _mean_motion(target, source, xs, ys)) < 0.5 * np.linalg.norm(forward)
    first, second, *_ = pairs[2 * number + 1]
    # The second pair of a scene starts at its later instant.
    for image, instant in ((first, target), (second, source)):
        found = [
            cv2.matchTemplate(instant.image, turned, cv2.TM_SQDIFF).min()
            for turned in (np.ascontiguousarray(_turned(image, x, y)) for x in (1, -1) for y in (1, -1))
        ]
        # Sums of squares by Fourier transform are 0 up to rounding.
        assert min(found) < 1e-4 * max(found)


def _mean_motion(source, target, xs, ys):
    x, y, _ = moved(source, target.poses, xs, ys)
    return np.array((x.mean() - xs.mean(), y.mean() - ys.mean()))


def _turned(image, x, y):
    return image.numpy().transpose(1, 2, 0)[::y, ::x]


def test_gaps_are_small_and_large():
    """Speeds spread over a wide range, so that a network meets slow and fast motion alike."""
    pairs = RenderedFlowPairs(1, clean())
    speeds = np.array([float(pairs[2 * index].flow.norm(dim=0).median()) for index in range(24)])
    print('median speeds', np.sort(speeds).round(1))
    assert np.quantile(speeds, 0.2) < 1.5
    assert np.quantile(speeds, 0.9) > 4
