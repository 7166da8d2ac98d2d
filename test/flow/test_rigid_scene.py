"""Geometry of a rigid scene against hand-made pinhole scenes with exact flow."""

import numpy as np
import pytest

from moving_object_detector.flow.rigid_scene import Camera, contrast, estimate_travel, explained_share

HEIGHT, WIDTH = 96, 192
CAMERA = Camera(170.0, 151.0, 96.0, 48.0)
POST = (slice(20, 70), slice(120, 128))
HEDGE = (slice(30, 75), slice(40, 60))
BALL = (slice(30, 48), slice(80, 98))


def rotation(angles):
    x, y, z = angles
    return np.array(((1, -z, y), (z, 1, -x), (-y, x, 1))) @ np.diag((1, 1, 1))


def scene(travel, turn=(0.0, 0.0, 0.0), things=True, mover=None, noise=0.03):
    """Return the flow (2, h, w) over a ground 4 m below, 3 m posts on it, and a ball that moves by itself."""
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = np.stack(((xs - CAMERA.cx) / CAMERA.fx, (ys - CAMERA.cy) / CAMERA.fy, np.ones_like(xs)), -1)
    # A camera that looks 30 degrees down: the ground is the plane n X = 4.
    normal = np.array((0.0, np.cos(0.52), np.sin(0.52)))
    depth = 4.0 / (rays @ normal).clip(0.05)
    if things:
        for part in (POST, HEDGE):
            depth[part] = depth[part][-1].mean()
    depth[BALL] = 0.7 * depth[BALL].min()
    points = rays * depth[..., None]
    if mover is not None:
        points[BALL] += mover
    moved = (points - np.asarray(travel)) @ rotation(turn)
    flow = np.stack(
        (
            moved[..., 0] / moved[..., 2] * CAMERA.fx + CAMERA.cx - xs,
            moved[..., 1] / moved[..., 2] * CAMERA.fy + CAMERA.cy - ys,
        )
    )
    return (flow + np.random.default_rng(1).normal(0, noise, flow.shape)).astype(np.float32)


def share(flow, part, camera=CAMERA):
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[part] = True
    return explained_share(region, [flow], [estimate_travel(flow, np.ones((HEIGHT, WIDTH), np.float32), camera)])


@pytest.mark.parametrize('travel', [(0.03, 0.02, 0.2), (0.15, 0.0, 0.0), (-0.1, 0.02, 0.12), (0.05, -0.1, 0.1)])
@pytest.mark.parametrize('turn', [(0.0, 0.0, 0.0), (0.004, -0.008, 0.006)])
def test_the_direction_of_travel_is_found_within_a_degree_with_a_mover_in_view(travel, turn):
    flow = scene(travel, turn, mover=(0.1, -0.1, 0.0))
    estimate = estimate_travel(flow, np.ones((HEIGHT, WIDTH), np.float32), CAMERA)
    best = estimate.directions[np.argmax(estimate.likelihood.sum(1))]
    cosine = abs(best @ np.asarray(travel)) / np.linalg.norm(travel)
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 1.0


@pytest.mark.parametrize('travel', [(0.0, 0.0, 0.2), (0.15, 0.0, 0.0), (-0.1, 0.02, 0.12)])
def test_what_stands_is_explained_and_what_moves_is_not(travel):
    flow = scene(travel, (0.003, 0.005, -0.002), mover=(0.05, -0.12, 0.0))
    assert share(flow, POST) > 0.9
    assert share(flow, HEDGE) > 0.9
    assert share(flow, BALL) < 0.2


def test_a_mover_along_its_line_that_would_be_farther_than_the_ground_behind_it_is_not_explained():
    # Flown sideways beside the camera, as what a camera follows: it stays where it is in the image.
    assert share(scene((0.15, 0.0, 0.0), mover=(0.15, 0.0, 0.0)), BALL) < 0.2


def test_a_camera_that_only_turns_explains_no_mover():
    flow = scene((0.0, 0.0, 0.0), (0.004, 0.008, 0.002), mover=(0.08, 0.0, 0.0))
    assert share(flow, BALL) < 0.3


def test_a_still_camera_explains_no_mover():
    assert share(scene((0.0, 0.0, 0.0), mover=(0.0, 0.06, 0.0)), BALL) < 0.3


def test_a_focal_length_a_fifth_off_still_tells_a_post_from_a_mover():
    camera = Camera(CAMERA.fx * 1.2, CAMERA.fy * 1.2, CAMERA.cx, CAMERA.cy)
    flow = scene((-0.1, 0.02, 0.12), mover=(0.05, -0.12, 0.0))
    assert share(flow, POST, camera) > 0.7
    assert share(flow, BALL, camera) < 0.2


def test_without_flow_or_region_nothing_is_explained():
    assert explained_share(np.ones((HEIGHT, WIDTH), bool), [], []) == 0
    assert share(scene((0.1, 0.0, 0.0)), (slice(0, 0), slice(0, 0))) == 0


def test_a_clear_sky_has_no_contrast_and_a_dim_image_has_what_there_is():
    texture = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    texture[:40] = 200
    for image in (texture, texture // 32):
        known = contrast(image)
        assert known[:34].max() < 0.1
        assert known[44:].mean() > 0.9
