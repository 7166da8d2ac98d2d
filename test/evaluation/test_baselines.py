from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from moving_object_detector.evaluation.methods import BASELINES, otsu, residual_magnitude
from moving_object_detector.media.frames import Frame

HEIGHT, WIDTH = 64, 96


def camera_flow(homography):
    """The flow of a homography, by its definition, pixel by pixel."""
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            px, py, pw = homography @ (x, y, 1)
            flow[y, x] = px / pw - x, py / pw - y
    return flow


CAMERA = np.array(((1.01, 0.02, -3.0), (-0.015, 0.99, 2.0), (1e-4, -5e-5, 1.0)))


def test_what_is_left_is_the_objects_own_motion():
    flow = camera_flow(CAMERA)
    assert residual_magnitude(flow).max() < 0.01
    flow[20:50, 30:60] += (3, -4)
    left = residual_magnitude(flow)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[20:50, 30:60] = True
    assert np.abs(left[inside] - 5).max() < 0.05
    assert left[~inside].max() < 0.05


@pytest.mark.parametrize('value', [0, 7])
def test_flow_that_is_the_same_everywhere_leaves_nothing(value):
    assert residual_magnitude(np.full((HEIGHT, WIDTH, 2), value, np.float32)).max() < 1e-3


def test_flow_that_leads_to_one_point_is_measured_from_rest():
    """No homography leads all points to one: then nothing is taken off."""
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    left = residual_magnitude(np.stack((-xs, -ys), 2))
    assert np.isfinite(left).all()


def exhaustive_otsu(values):
    """The partition into low and high that has the largest variance between the classes, trying every value."""
    best, threshold = -1.0, 0.0
    for candidate in np.unique(values)[:-1]:
        low, high = values[values <= candidate], values[values > candidate]
        between = low.size * high.size * (low.mean() - high.mean()) ** 2
        if between > best:
            best, threshold = between, candidate
    return values > threshold


def test_otsu_against_trying_every_threshold():
    rng = np.random.default_rng(3)
    for share in (0.05, 0.3, 0.7):
        values = np.where(rng.random((30, 40)) < share, rng.normal(5, 0.7, (30, 40)), rng.normal(1, 0.5, (30, 40)))
        values = np.abs(values).astype(np.float32)
        found = otsu(values)
        assert set(np.unique(found)) == {0, 255}
        assert np.mean((found > 0) != exhaustive_otsu(values)) < 0.002
    assert not otsu(np.zeros((4, 5), np.float32)).any()


SHIFT = 6
"""Pixels a frame that the object of :func:`clip` goes to the right; the ground goes 2 to the left."""


def clip(count, camera=2):
    """Frames in which a textured square goes to the right over textured ground, and where it is."""
    rng = np.random.default_rng(2)
    ground = cv2.resize(rng.integers(0, 256, (24, 60, 3), np.uint8), (300, 120), interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(0, 256, (10, 10, 3), np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
    frames, masks = [], []
    for number in range(count):
        left = 20 + SHIFT * number
        image = ground[:, camera * number : camera * number + 240].copy()
        image[40:88, left : left + 48] = square
        mask = np.zeros((120, 240), bool)
        mask[40:88, left : left + 48] = True
        frames.append(Frame(image, number * 40_000_000, str(number)))
        masks.append(mask)
    return frames, masks


def run(method, frames, indexes=None):
    return list(method.masks('clip', zip(indexes or range(len(frames)), frames, strict=True)))


def test_homography_makes_no_pair_across_a_gap():
    """Each part of the clip is as if it stood alone."""
    frames, _ = clip(6)
    later = [replace(frame, stamp=frame.stamp + 3 * 10**9) for frame in frames[3:]]
    together = run(BASELINES['homography'](), [*frames[:3], *later])
    alone = run(BASELINES['homography'](), frames[:3]) + run(BASELINES['homography'](), later, range(3, 6))
    assert [finding.index for finding in together] == [finding.index for finding in alone] == list(range(6))
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.mask, b.mask)


@pytest.mark.parametrize('name', BASELINES)
def test_every_frame_gets_one_prediction_in_order(name):
    frames, _ = clip(5)
    method = BASELINES[name]()
    findings = run(method, frames)
    assert method.variants == (name,)
    assert method.identity['baseline'] == name
    assert [finding.index for finding in findings] == list(range(5))
    for finding, frame in zip(findings, frames, strict=True):
        assert finding.variant == name
        assert finding.image is frame.image
        assert finding.mask.shape == (120, 240)
        assert finding.mask.dtype == np.uint8
        assert set(np.unique(finding.mask)) <= {0, 255}


@pytest.mark.parametrize('name', BASELINES)
def test_a_clip_is_not_changed_by_the_one_before(name):
    frames, _ = clip(5)
    method = BASELINES[name]()
    fresh = [finding.mask for finding in run(method, frames)]
    run(method, clip(3, camera=5)[0])
    for again, first in zip(run(method, frames), fresh, strict=True):
        assert np.array_equal(again.mask, first)


def test_homography_finds_what_moves_before_a_moving_camera():
    frames, masks = clip(6)
    findings = run(BASELINES['homography'](), frames)
    for finding, truth in zip(findings, masks, strict=True):
        assert (finding.mask[truth] > 0).mean() > 0.6
        assert (finding.mask[~truth] > 0).mean() < 0.2


def test_homography_over_a_lost_frame():
    """Frame 2 could not be read: frame 1 is compared with frame 3, which is not the next one."""
    frames, masks = clip(5)
    findings = run(BASELINES['homography'](), frames[:2] + frames[3:], [0, 1, 3, 4])
    assert [finding.index for finding in findings] == [0, 1, 3, 4]
    assert (findings[1].mask[masks[1]] > 0).mean() > 0.6


def test_homography_of_short_clips():
    frames, _ = clip(2)
    method = BASELINES['homography']()
    assert run(method, []) == []
    assert run(method, frames[:1]) == []
    assert [finding.index for finding in run(method, frames)] == [0, 1]


def test_mog2_finds_what_moves_before_a_camera_that_stands():
    frames, masks = clip(24, camera=0)
    findings = run(BASELINES['mog2'](), frames)
    for finding, truth in list(zip(findings, masks, strict=True))[10:]:
        assert (finding.mask[truth] > 0).mean() > 0.5
        assert (finding.mask[~truth] > 0).mean() < 0.1


def test_mog2_leaves_shadows_out():
    """What is darker by a constant factor is a shadow by its definition; what has another colour is not."""
    ground = np.full((60, 80, 3), (200, 150, 100), np.uint8)
    frames = [Frame(ground, number, str(number)) for number in range(30)]
    last = ground.copy()
    last[10:30, 10:30] = np.round(ground[10:30, 10:30] * 0.7)
    last[10:30, 50:70] = (30, 30, 200)
    mask = run(BASELINES['mog2'](), [*frames, Frame(last, 30, '30')])[-1].mask
    assert not mask[10:30, 10:30].any()
    assert (mask[10:30, 50:70] == 255).all()


def test_everything_and_nothing():
    frames, _ = clip(2)
    assert all((finding.mask == 255).all() for finding in run(BASELINES['everything'](), frames))
    assert not any(finding.mask.any() for finding in run(BASELINES['nothing'](), frames))


def test_baselines_are_told_apart_and_kept_as_json():
    identities = [json.dumps(dict(BASELINES[name]().identity)) for name in BASELINES]
    assert len(set(identities)) == len(BASELINES)
