"""Geometry of a rigid scene against hand-made pinhole scenes with exact flow."""

import numpy as np
import pytest

from moving_object_detector.flow.base import resize_field
from moving_object_detector.flow.rigid_scene import Texture, contradiction
from moving_object_detector.flow.travel import Camera, KnownMotion, estimate_travel
from moving_object_detector.synthetic.flight import FlightOptions, flight

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


EVERYWHERE = np.ones((HEIGHT, WIDTH), np.float32)
# Twenty grey levels a pixel in all directions.
TEXTURED = Texture(np.float32((400, 0, 400))[:, None, None] * EVERYWHERE)


def share(flow, part, camera=CAMERA, motion=None, texture=TEXTURED):
    """Return how much of a part's flow contradicts a rigid scene."""
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[part] = True
    return contradiction(region, flow, estimate_travel(flow, EVERYWHERE, camera, motion), texture).share


def known(travel, turn=(0.0, 0.0, 0.0)):
    return KnownMotion(rotation(turn), np.asarray(travel, float))


def angle(direction, travel):
    cosine = abs(direction @ np.asarray(travel)) / np.linalg.norm(travel)
    return np.degrees(np.arccos(min(float(cosine), 1.0)))


@pytest.mark.parametrize('travel', [(0.03, 0.02, 0.2), (0.15, 0.0, 0.0), (-0.1, 0.02, 0.12), (0.05, -0.1, 0.1)])
@pytest.mark.parametrize('turn', [(0.0, 0.0, 0.0), (0.004, -0.008, 0.006)])
def test_the_direction_of_travel_is_found_within_a_degree_with_a_mover_in_view(travel, turn):
    flow = scene(travel, turn, mover=(0.1, -0.1, 0.0))
    estimate = estimate_travel(flow, EVERYWHERE, CAMERA)
    assert angle(estimate.directions[np.argmax(estimate.likelihood.sum(1))], travel) < 1.0


@pytest.mark.parametrize(('movers', 'degrees'), [(0.15, 1.0), (0.3, 2.0)])
def test_the_direction_of_flights_is_found_though_much_of_the_image_moves(movers, degrees):
    errors = []
    for seed, motion in enumerate(('forward', 'sideways', 'orbit', 'drive', 'takeoff', 'forward', 'sideways', 'orbit')):
        scene = flight((77, seed), FlightOptions((180, 320), True, motion, 1.0, frames=12, camera=False))
        flow = resize_field(np.nan_to_num(scene.flow(3.0, 4.0)), (HEIGHT, WIDTH)).transpose(2, 0, 1).copy()
        rng, moved = np.random.default_rng(seed), np.zeros((HEIGHT, WIDTH), bool)
        while moved.mean() < movers:
            y, x = int(rng.integers(0, HEIGHT - 20)), int(rng.integers(0, WIDTH - 30))
            flow[:, y : y + 20, x : x + 30] += rng.uniform(-3, 3, 2).astype(np.float32)[:, None, None]
            moved[y : y + 20, x : x + 30] = True
        k, across, down = scene.intrinsics, WIDTH / 320, HEIGHT / 180
        camera = Camera(k[0, 0] * across, k[1, 1] * down, (k[0, 2] + 0.5) * across, (k[1, 2] + 0.5) * down)
        estimate = estimate_travel(flow.astype(np.float32), EVERYWHERE, camera)
        best = estimate.directions[np.argmax(estimate.likelihood.sum(1))]
        errors.append(angle(best, (np.linalg.inv(scene.pose(3.0)) @ scene.pose(4.0))[:3, 3]))
    assert np.median(errors) < degrees, errors


def test_the_way_back_is_the_same_travel():
    travel, turn = (-0.1, 0.02, 0.12), (0.004, -0.008, 0.006)
    there = estimate_travel(scene(travel, turn), EVERYWHERE, CAMERA)
    # Seen from the other end the camera goes the other way and turns back.
    ahead = rotation(turn).T @ -np.asarray(travel)
    flow = scene(ahead, -np.asarray(turn))
    back = there.reverse(flow, EVERYWHERE)
    assert angle(back.directions[np.argmax(back.weights())], ahead) < 2.0
    afresh = estimate_travel(flow, EVERYWHERE, CAMERA)
    for estimate in (back, afresh):
        assert contradiction(_region(POST), flow, estimate, TEXTURED).share < 0.1


def _region(part):
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[part] = True
    return region


@pytest.mark.parametrize('travel', [(0.0, 0.0, 0.2), (0.15, 0.0, 0.0), (-0.1, 0.02, 0.12)])
def test_what_stands_is_explained_and_what_moves_is_not(travel):
    flow = scene(travel, (0.003, 0.005, -0.002), mover=(0.05, -0.12, 0.0))
    for motion in (None, known(travel, (0.003, 0.005, -0.002))):
        assert share(flow, POST, motion=motion) < 0.1
        assert share(flow, HEDGE, motion=motion) < 0.1
        assert share(flow, BALL, motion=motion) > 0.8


def test_a_mover_along_its_line_that_would_be_farther_than_the_ground_behind_it_is_not_explained():
    # Flown sideways beside the camera, as what a camera follows: it stays where it is in the image.
    flow = scene((0.15, 0.0, 0.0), mover=(0.15, 0.0, 0.0))
    assert share(flow, BALL) > 0.8
    assert share(flow, BALL, motion=known((0.15, 0.0, 0.0))) > 0.8


def test_which_way_the_camera_goes_tells_a_mover_that_would_be_behind_it():
    # Overtakes the camera on its own course: as if it were still and the camera flew backwards.
    flow = scene((0.0, 0.0, 0.1), mover=(0.0, 0.0, 0.25))
    assert share(flow, BALL, motion=known((0.0, 0.0, 0.1))) > 0.8
    assert share(flow, HEDGE, motion=known((0.0, 0.0, 0.1))) < 0.1


def test_a_known_motion_holds_where_most_of_the_image_moves():
    travel = (0.15, 0.0, 0.0)
    flow, moving = scene(travel), scene((0.05, 0.15, 0.0))
    flow[:, 8:88, 30:] = moving[:, 8:88, 30:]
    most = slice(8, 88), slice(30, WIDTH)
    assert share(flow, most) < 0.3
    assert share(flow, most, motion=known(travel)) > 0.6


def test_flow_along_an_edge_contradicts_nothing():
    flow = scene((0.15, 0.0, 0.0), mover=(0.0, -0.12, 0.0))
    assert share(flow, BALL) > 0.8
    # Vertical edges alone: how far it goes down is made up.
    edges = Texture(TEXTURED.tensor * np.float32((1, 0, 0))[:, None, None])
    assert share(flow, BALL, texture=edges) < 0.2


def test_a_camera_that_only_turns_explains_no_mover():
    flow = scene((0.0, 0.0, 0.0), (0.004, 0.008, 0.002), mover=(0.08, 0.0, 0.0))
    assert share(flow, BALL) > 0.7


def test_a_still_camera_explains_no_mover():
    assert share(scene((0.0, 0.0, 0.0), mover=(0.0, 0.06, 0.0)), BALL) > 0.7


def test_a_focal_length_a_fifth_off_still_tells_a_post_from_a_mover():
    camera = Camera(CAMERA.fx * 1.2, CAMERA.fy * 1.2, CAMERA.cx, CAMERA.cy)
    flow = scene((-0.1, 0.02, 0.12), mover=(0.05, -0.12, 0.0))
    assert share(flow, POST, camera) < 0.3
    assert share(flow, BALL, camera) > 0.8


def test_a_clear_sky_has_no_contrast_and_a_dim_image_has_what_there_is():
    texture = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    texture[:40] = 200
    for image in (texture, texture // 32):
        known = Texture.of(image).contrast
        assert known[:34].max() < 0.1
        assert known[44:].mean() > 0.9


def test_what_leads_out_of_view_is_not_known():
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    flow[0] = 60.0
    travel = estimate_travel(flow, EVERYWHERE, CAMERA)
    found = contradiction(_region((slice(0, 96), slice(150, 192))), flow, travel, TEXTURED)
    assert found.known == 0
    image = np.random.default_rng(3).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    assert contradiction(_region(BALL), flow, travel, Texture.of(image)).known > 0.9


@pytest.mark.filterwarnings('error')
def test_of_a_region_between_the_pixels_of_the_flow_nothing_is_known():
    flow = np.zeros((2, HEIGHT, WIDTH), np.float32)
    nowhere = np.zeros((HEIGHT, WIDTH), bool)
    found = contradiction(nowhere, flow, estimate_travel(flow, EVERYWHERE, CAMERA), TEXTURED)
    assert (found.share, found.known) == (0, 0)
