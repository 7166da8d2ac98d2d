from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.evaluation.methods import Prediction
from moving_object_detector.evaluation.signals import Signals, at_size, push_mask
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

SIZE = (96, 192)
FRAMES = 8


def finding(index, mask, flow=None):
    return Prediction(index, 'refined', np.zeros((*mask.shape, 3), np.uint8), mask.astype(np.uint8) * 255, flow=flow)


def signals_of(masks, flows):
    signals = Signals()
    for index, (mask, flow) in enumerate(zip(masks, flows, strict=True)):
        signals.add(finding(index, mask, flow))
    return signals.columns(len(masks))


@pytest.fixture(scope='module', params=[3, 4, 7])
def scene(request):
    """Exact masks and flow of a rendered clip; of the last frame the flow is not known."""
    made = clip_scene(request.param, SceneOptions(size=SIZE, objects=(1, 2)))
    masks = [made.mask(time) for time in range(FRAMES)]
    assert all(0.01 < mask.mean() < 0.5 for mask in masks)
    return masks, [made.flow(time, time + 1) for time in range(FRAMES - 1)] + [None]


def test_exact_masks_are_consistent(scene):
    columns = signals_of(*scene)
    assert columns['consistency'][-1] is None
    assert min(columns['consistency'][:-1]) > 0.93
    assert columns['flip'] == (*[0.0] * (FRAMES - 1), None)
    assert 'information' not in columns


def test_complements_of_exact_masks_are_consistent_too(scene):
    masks, flows = scene
    columns = signals_of([~mask for mask in masks], flows)
    assert min(columns['consistency'][:-1]) > 0.93
    assert columns['flip'] == (*[0.0] * (FRAMES - 1), None)


def test_a_flip_is_found_where_it_happens_and_back(scene):
    masks, flows = scene
    columns = signals_of([~mask if 3 <= index < 5 else mask for index, mask in enumerate(masks)], flows)
    assert columns['flip'] == (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, None)
    assert columns['consistency'][2] < 0.1
    assert columns['consistency'][3] > 0.93


def test_masks_of_other_frames_and_places_are_not_consistent(scene):
    masks, flows = scene
    exact = signals_of(masks, flows)['consistency'][:-1]
    rng = np.random.default_rng(5)
    shifted = [np.roll(mask, tuple(rng.integers(20, 70, 2)), (0, 1)) for mask in masks]
    shuffled = signals_of(shifted, flows)
    assert np.mean(shuffled['consistency'][:-1]) < 0.5 * np.mean(exact)
    # Small masks that jump have not changed their sign.
    assert set(shuffled['flip'][:-1]) == {0.0}


def test_flow_is_what_masks_are_carried_by(scene):
    """Without it, a fast object's masks overlap less."""
    masks, flows = scene
    still = [np.zeros_like(flow) if flow is not None else None for flow in flows]
    assert np.mean(signals_of(masks, still)['consistency'][:-1]) < np.mean(signals_of(masks, flows)['consistency'][:-1])


def shift(x, y, size=(20, 30)):
    return np.broadcast_to(np.array((x, y), np.float32), (*size, 2))


def box(top, bottom, left, right, size=(20, 30)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_whole_pixels():
    carried, known = push_mask(box(5, 10, 4, 9), shift(3, -2))
    assert np.array_equal(carried, box(3, 8, 7, 12))
    assert np.array_equal(known, box(0, 18, 3, 30))


def test_what_leaves_the_view_is_gone_and_what_enters_is_not_known():
    carried, known = push_mask(box(5, 10, 24, 30), shift(4, 0))
    assert np.array_equal(carried, box(5, 10, 28, 30))
    assert np.array_equal(known, box(0, 20, 4, 30))
    carried, known = push_mask(box(0, 20, 0, 30), shift(40, 0))
    assert not carried.any()
    assert not known.any()


def test_an_object_in_front_hides_what_it_comes_over():
    mask = box(5, 10, 4, 12)
    carried, known = push_mask(mask, np.where(mask[..., None], shift(3, 0), shift(0, 0)).astype(np.float32))
    assert np.array_equal(carried, box(5, 10, 7, 15))
    # Where it was, something is seen that this frame does not show.
    assert np.array_equal(known, ~box(5, 10, 4, 7))


def test_growth_leaves_no_holes():
    ys, xs = np.mgrid[0:40, 0:60].astype(np.float32)
    flow = np.stack(((xs - 30) * 0.2, (ys - 20) * 0.2), 2)
    carried, known = push_mask(box(10, 30, 20, 40, (40, 60)), flow)
    # Its pixels, columns 20 to 39 and rows 10 to 29, come to lie from 18 to 40.8 and from 8 to 30.8.
    assert np.array_equal(carried, box(8, 32, 18, 42, (40, 60)))
    assert known.all()


def slow_carry(mask, flow):
    """The same by its definition, pixel by pixel."""
    height, width = mask.shape
    pushed, all_of_it = np.zeros(mask.shape), np.zeros(mask.shape)
    for y in range(height):
        for x in range(width):
            u, v = flow[y, x]
            for row in range(height):
                for column in range(width):
                    weight = max(0, 1 - abs(x + u - column)) * max(0, 1 - abs(y + v - row))
                    all_of_it[row, column] += weight
                    pushed[row, column] += weight * mask[y, x]
    return pushed >= 0.5, all_of_it >= 0.5


def test_carrying_against_a_second_implementation():
    rng = np.random.default_rng(1)
    for _ in range(4):
        mask = rng.random((9, 11)) < 0.4
        flow = rng.normal(0, 2, (9, 11, 2)).astype(np.float32)
        for found, expected in zip(push_mask(mask, flow), slow_carry(mask, flow), strict=True):
            assert np.array_equal(found, expected)


def test_flow_that_is_not_finite_carries_nothing():
    flow = shift(0, 0).copy()
    flow[5, 6] = np.nan
    flow[7, 8] = np.inf
    carried, known = push_mask(box(0, 20, 0, 30), flow)
    assert not carried[5, 6]
    assert not known[7, 8]
    assert known.sum() == 20 * 30 - 2


def test_hand_worked_numbers():
    """A box of 5x5 that the flow takes 3 to the right, found 2 to the right: 20 of 30 pixels overlap."""
    columns = signals_of([box(5, 10, 4, 9), box(5, 10, 6, 11)], [shift(3, 0), None])
    assert columns['consistency'] == (pytest.approx(20 / 30), None)
    assert columns['flip'] == (0.0, None)


def test_what_is_not_known():
    something, nothing = box(5, 10, 4, 9), box(0, 0, 0, 0)
    columns = signals_of(
        [something, nothing, nothing, something, something, something],
        [shift(0, 0), shift(0, 0), shift(0, 0), None, shift(0, 0), shift(0, 0)],
    )
    assert columns['consistency'] == (0.0, None, 0.0, None, 1.0, None)
    assert columns['flip'] == (None, None, None, None, 0.0, None)


def test_frames_left_out_have_no_value():
    signals = Signals()
    mask = box(5, 10, 4, 9)
    for index in (1, 2, 4, 5):
        signals.add(finding(index, mask, shift(0, 0)))
    assert signals.columns(8)['consistency'] == (None, 1.0, None, None, 1.0, None, None, None)
    signals.start()
    signals.add(finding(6, mask, shift(0, 0)))
    assert signals.columns(8)['consistency'] == (None,) * 8


def test_nothing_of_the_last_frame_stays_in_view():
    columns = signals_of([box(5, 10, 4, 9), box(5, 10, 4, 9)], [shift(100, 0), None])
    assert columns == {'consistency': (None, None), 'flip': (None, None)}


def test_flow_of_another_size_than_the_mask():
    """Flow at half the size of the masks, in pixels of its own."""
    masks = [box(10, 20, 8, 18, (40, 60)), box(10, 20, 14, 24, (40, 60))]
    assert signals_of(masks, [shift(3, 0), None])['consistency'][0] == 1.0
    masks = [box(2, 5, 2, 6, (10, 15)), box(2, 5, 4, 8, (10, 15))]
    assert signals_of(masks, [shift(4, 0), None])['consistency'][0] == 1.0


def test_a_mask_is_reduced_by_majority():
    mask = np.array([[255, 255, 0, 0], [255, 0, 0, 255]], np.uint8)
    assert np.array_equal(at_size(mask, (1, 2)), [[True, False]])
    assert np.array_equal(at_size(mask, (2, 4)), mask > 0)
