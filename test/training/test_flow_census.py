import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from moving_object_detector.training.flow_losses import (
    census_distance,
    census_loss,
    census_transform,
    consistent,
    smoothness,
)


@pytest.fixture
def image():
    noise = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(2))
    return functional.interpolate(noise, (48, 64), mode='bicubic').clamp(0, 1)


def shifted(image, dx, dy):
    """Return the second frame when everything has moved by (dx, dy)."""
    return image.roll((dy, dx), (2, 3))


def constant(u, v, size=(48, 64)):
    return torch.tensor((float(u), float(v)))[None, :, None, None].expand(1, 2, *size).clone()


def test_the_transform_and_the_distance_naively():
    rng = np.random.default_rng(4)
    images = rng.random((2, 3, 7, 9))
    transforms = []
    for image in images:
        grey = 255 * (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2])
        code = np.zeros((48, 7, 9))
        for y in range(7):
            for x in range(9):
                neighbours = [(y + j, x + i) for j in range(-3, 4) for i in range(-3, 4) if (j, i) != (0, 0)]
                for k, (row, column) in enumerate(neighbours):
                    inside = 0 <= row < 7 and 0 <= column < 9
                    difference = (grey[row, column] if inside else 0.0) - grey[y, x]
                    code[k, y, x] = difference / math.sqrt(0.81 + difference**2)
        transforms.append(code)
    found = census_transform(torch.from_numpy(images).float())
    assert np.abs(found.numpy() - np.stack(transforms)).max() < 1e-4
    expected = ((transforms[0] - transforms[1]) ** 2 / (0.1 + (transforms[0] - transforms[1]) ** 2)).mean(0)
    distance = census_distance(found[:1], found[1:])
    assert distance.shape == (1, 1, 7, 9)
    assert np.abs(distance[0, 0].numpy() - expected).max() < 1e-4


def test_brightness_does_not_matter(image):
    """Adding light to a frame leaves its census as it is; another picture has another."""
    darker = image * 0.8
    same = census_distance(census_transform(darker), census_transform(darker + 0.1))[..., 3:-3, 3:-3]
    other = census_distance(census_transform(darker), census_transform(darker.flip(3)))[..., 3:-3, 3:-3]
    assert float(same.max()) < 1e-3
    assert float(other.mean()) > 0.3


def test_true_motion_costs_least(image):
    second = shifted(image, 3, -2)
    costs = {
        (u, v): float(census_loss(image, second, constant(u, v), constant(-u, -v)))
        for u in range(1, 6)
        for v in range(-4, 1)
    }
    assert min(costs, key=costs.__getitem__) == (3, -2)
    assert costs[3, -2] < 0.03
    assert min(cost for motion, cost in costs.items() if motion != (3, -2)) > 0.1


def test_the_gradient_leads_to_the_true_motion(image):
    second = shifted(image, 1, 0)
    flow = constant(0.4, 0.2).requires_grad_()
    census_loss(image, second, flow, constant(-1, 0)).backward()
    assert float(flow.grad[:, 0].sum()) < 0 < float(flow.grad[:, 1].sum())


def test_occlusion_by_hand():
    """A bar moves 4 to the right over a still ground: what it will cover, and what leaves, is not consistent."""
    forward, backward = constant(0, 0, (8, 20)), constant(0, 0, (8, 20))
    forward[0, 0, :, 4:8] = 4
    backward[0, 0, :, 8:12] = -4
    visible = consistent(forward, backward)[0, 0]
    expected = torch.ones(8, 20, dtype=torch.bool)
    expected[:, 8:12] = False
    assert torch.equal(visible, expected)
    out = consistent(constant(6, 0, (8, 20)), constant(-6, 0, (8, 20)))[0, 0]
    assert out[:, :14].all()
    assert not out[:, 14:].any()
    # Half a pixel of disagreement is forgiven, a whole one is not.
    assert consistent(constant(2, 0), constant(-2.5, 0))[0, 0, :, :60].all()
    assert not consistent(constant(2, 0), constant(-3, 0)).any()


def test_what_is_not_visible_does_not_count(image):
    second = shifted(image, 3, -2)
    spoilt = second.clone()
    spoilt[..., 20:30, 30:40] = 0.0
    there, back = constant(3, -2), constant(-3, 2)
    spoilt_back = back.clone()
    spoilt_back[..., 16:34, 26:44] = 9.0
    seen, left_out = (float(census_loss(image, spoilt, there, flow)) for flow in (back, spoilt_back))
    assert seen > 0.03
    assert left_out < 0.4 * seen


def test_each_image_counts_the_same(image):
    second, there, back = shifted(image, 3, -2), constant(2, -2), constant(-2, 2)
    hidden = back.clone()
    hidden[..., 10:] = 20.0
    alone = [float(census_loss(image, second, there, flow)) for flow in (back, hidden)]
    both = census_loss(
        image.repeat(2, 1, 1, 1), second.repeat(2, 1, 1, 1), there.repeat(2, 1, 1, 1), torch.cat((back, hidden))
    )
    assert float(both) == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_smoothness_by_hand():
    flow = torch.zeros(1, 2, 2, 2)
    flow[0, 0, :, 1] = 3.0
    flat, edge = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    edge[..., 1] = 0.2
    # Along x one component of two differs by 3, along y none does.
    assert float(smoothness(flow, flat)) == pytest.approx(1.5 / 2)
    assert float(smoothness(flow, edge)) == pytest.approx(1.5 / 2 * math.exp(-2))
