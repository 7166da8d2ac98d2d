from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.training.pairs import Crop, View, random_crop
from moving_object_detector.training.stages import random_boxes

SIZE = (128, 256)


@pytest.fixture(scope='module')
def rendered():
    """Two frames of a scene, the exact flow between them, and where the first frame's pixels are seen in the second."""
    scene = clip_scene(3, SceneOptions(size=SIZE, textures=4))
    images = [torch.from_numpy(scene.image(time)).permute(2, 0, 1)[None].float() for time in (4, 7)]
    flow = torch.from_numpy(scene.flow(4, 7)).permute(2, 0, 1)[None]
    seen = torch.from_numpy(~scene.occluded(4, 7))[None, None].float()
    assert flow.abs().max() > 2
    return *images, flow, seen


def misfit(first, second, flow, seen):
    """Mean grey-level difference between the first frame and the second fetched by the flow, where it is seen."""
    height, width = flow.shape[-2:]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    fetched = cv2.remap(
        second[0].permute(1, 2, 0).numpy(), xs + flow[0, 0].numpy(), ys + flow[0, 1].numpy(), cv2.INTER_LINEAR
    )
    difference = np.abs(fetched - first[0].permute(1, 2, 0).numpy()).mean(2)
    inside = (xs + flow[0, 0].numpy() > 1) & (xs + flow[0, 0].numpy() < width - 2)
    inside &= (ys + flow[0, 1].numpy() > 1) & (ys + flow[0, 1].numpy() < height - 2)
    inside &= seen[0, 0].numpy() > 0.99
    assert inside.mean() > 0.3
    return float(difference[inside].mean())


VIEWS = [
    View(Crop(0, 0, 128, 256), (128, 256), False, False),
    View(Crop(0, 0, 128, 256), (96, 192), False, False),
    View(Crop(20, 31, 77, 154), (96, 192), False, False),  # grows
    View(Crop(13, 40, 110, 201), (64, 160), True, False),  # not the same scale on both sides
    View(Crop(10, 3, 100, 200), (96, 192), False, True),
    View(Crop(10, 40, 100, 200), (96, 192), True, True),
]


@pytest.mark.parametrize('view', VIEWS)
def test_the_flow_of_a_view_still_leads_to_the_second_frame(rendered, view):
    *frames, flow, seen = rendered
    first, second, seen = (view.maps(one) for one in (*frames, seen))
    moved = view.flow(flow)
    assert all(one.shape[-2:] == view.size for one in (first, second, seen, moved))
    right = misfit(first, second, moved, seen)
    assert right < 4
    # The same with flow that was treated like a picture, with none, and with the one backwards.
    untouched = view._replace(mirrored=False, upside_down=False).maps(flow)
    if not torch.equal(untouched, moved):
        assert misfit(first, second, untouched, seen) > 1.2 * right
    assert misfit(first, second, 0 * moved, seen) > 2 * right
    assert misfit(first, second, -moved, seen) > 3 * right


def test_a_crop_by_hand():
    """From 8 x 16 pixels rows 2 to 5 and columns 4 to 7, twice as high and three times as wide."""
    flow = torch.zeros(1, 2, 8, 16)
    flow[0, 0, 2:6, 4:8] = 5
    flow[0, 1, 2:6, 4:8] = -3
    view = View(Crop(2, 4, 4, 4), (8, 12), mirrored=False).flow(flow)
    assert torch.equal(view[0, 0], torch.full((8, 12), 15.0))
    assert torch.equal(view[0, 1], torch.full((8, 12), -6.0))


def mirrored(maps, *, horizontal, vertical, flow=False):
    size = maps.shape[-2:]
    view = View(Crop(0, 0, *size), size, horizontal, vertical)
    return view.flow(maps) if flow else view.maps(maps)


def test_flips_by_hand():
    flow = torch.zeros(1, 2, 2, 3)
    flow[0, :, 0, 2] = torch.tensor((4.0, -7.0))  # upper right corner
    right = mirrored(flow, horizontal=True, vertical=False, flow=True)
    assert right[0, :, 0, 0].tolist() == [-4, -7]
    assert right.abs().sum() == 11
    down = mirrored(flow, horizontal=False, vertical=True, flow=True)
    assert down[0, :, 1, 2].tolist() == [4, 7]
    assert down.abs().sum() == 11
    both = mirrored(flow, horizontal=True, vertical=True, flow=True)
    assert both[0, :, 1, 0].tolist() == [-4, 7]
    assert torch.equal(both, -torch.rot90(flow, 2, (2, 3)))
    assert torch.equal(mirrored(flow, horizontal=False, vertical=False, flow=True), flow)
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert mirrored(image, horizontal=True, vertical=False).flatten().tolist() == [2, 1, 0, 5, 4, 3]
    assert mirrored(image, horizontal=False, vertical=True).flatten().tolist() == [3, 4, 5, 0, 1, 2]
    assert mirrored(image, horizontal=True, vertical=True).flatten().tolist() == [5, 4, 3, 2, 1, 0]


def test_crops_are_within_the_image_and_cover_their_range():
    rng = np.random.default_rng(2)
    crops = [random_crop(rng, (100, 200), 0.6) for _ in range(2000)]
    assert all(top >= 0 and left >= 0 and top + h <= 100 and left + w <= 200 for top, left, h, w in crops)
    assert all(abs(crop.width - 2 * crop.height) <= 1 for crop in crops)
    shares = np.array([crop.height for crop in crops]) / 100
    assert 0.6 <= shares.min() < 0.61
    assert 0.99 < shares.max() <= 1
    assert shares.mean() == pytest.approx(0.8, abs=0.01)
    # The place is uniform too: on average as much is cut off on either side.
    room = np.array(
        [(crop.top, 100 - crop.height - crop.top, crop.left, 200 - crop.width - crop.left) for crop in crops]
    )
    assert room.min() == 0
    assert np.allclose(room.mean(0), (10, 10, 20, 20), atol=0.8)
    assert random_crop(rng, (100, 200), 1.0) == Crop(0, 0, 100, 200)


def test_boxes():
    rng = np.random.default_rng(3)
    masks = random_boxes(rng, 400, (50, 100))
    assert masks.shape == (400, 1, 50, 100)
    assert masks.dtype == torch.float32
    assert set(masks.unique().tolist()) == {0, 1}
    counts = []
    for mask in masks[:, 0]:
        rows, columns = mask.any(1), mask.any(0)
        count, _, statistics, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8), connectivity=4)
        whole = [box for box in statistics[1:] if box[4] == box[2] * box[3]]  # boxes that do not overlap
        assert all(10 <= width <= 60 and 5 <= height <= 30 for _, _, width, height, _ in whole)
        counts.append(count - 1)
        assert rows.any()
        assert columns.any()
    assert set(counts) == {1, 2, 3}
    # One to three boxes of 0.35 x 0.35 on average; every part of the image is covered at times, also the corners.
    assert 0.1225 < masks.mean() < 2 * 0.1225
    assert torch.nn.functional.max_pool2d(masks.mean((0, 1))[None], 5).min() > 0
    assert not torch.equal(masks[0], masks[1])
    again = random_boxes(np.random.default_rng(3), 400, (50, 100))
    assert torch.equal(again, masks)


def test_boxes_of_a_tiny_image():
    masks = random_boxes(np.random.default_rng(1), 20, (2, 3))
    assert (masks.sum((1, 2, 3)) >= 1).all()
    assert not math.isclose(float(masks.mean()), 1.0)
