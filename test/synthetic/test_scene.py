from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from moving_object_detector.synthetic.scene import Layer, Scene, translation, turn_and_scale

HEIGHT, WIDTH = 40, 60


def smooth_texture(seed, height, width):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def ground(pose, seed=1, moves=False):
    """A ground of 120x160 pixels whose middle is the image's at time 0."""
    return Layer(smooth_texture(seed, 120, 160), None, lambda time: pose(time) @ translation(-50, -40), moves)


def box(x, y, u, v, *, side=10, moves=True, seed=2):
    """A solid square whose upper left pixel is (x, y) at time 0, and which moves by (u, v) a frame."""
    alpha = np.full((side, side), 255, np.uint8)
    pose = lambda time: translation(x + u * time, y + v * time)  # noqa: E731
    return Layer(smooth_texture(seed, side + 6, side + 6)[:side, :side], alpha, pose, moves)


def still(_):
    return np.eye(3)


def square(x, y, side=10):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = True
    return mask


def test_flow_of_a_translation():
    scene = Scene((ground(lambda time: translation(2 * time, -time)),), (HEIGHT, WIDTH))
    flow = scene.flow(0, 3)
    assert flow.dtype == np.float32
    assert np.allclose(flow, (6, -3), atol=1e-5)
    assert np.allclose(scene.flow(5, 3), (-4, 2), atol=1e-5)
    assert not scene.flow(2, 2).any()
    # Whole pixels: the picture itself is shifted, exactly.
    assert np.array_equal(scene.image(3)[: HEIGHT - 3, 6:], scene.image(0)[3:, : WIDTH - 6])


def test_flow_of_a_turn_about_a_point():
    """At angle a, a point at (x, y) from the centre goes to (x cos a - y sin a, x sin a + y cos a)."""
    centre, angle = (29.5, 19.5), 0.05

    def pose(time):
        return translation(*centre) @ turn_and_scale(angle * time, 1.02**time) @ translation(-29.5, -19.5)

    scene = Scene((ground(pose),), (HEIGHT, WIDTH))
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH]
    x, y = xs - centre[0], ys - centre[1]
    cosine, sine = 1.02**2 * math.cos(2 * angle), 1.02**2 * math.sin(2 * angle)
    expected = np.stack((x * cosine - y * sine - x, x * sine + y * cosine - y), -1)
    assert np.allclose(scene.flow(1, 3), expected, atol=1e-4)


def test_flow_of_a_tilt_at_one_pixel():
    tilt = np.eye(3)
    tilt[2, 0] = 0.001
    scene = Scene((ground(lambda time: np.linalg.matrix_power(tilt, int(time))),), (HEIGHT, WIDTH))
    # (50, 20, 1) goes to (50, 20, 1.05).
    assert np.allclose(scene.flow(0, 1)[20, 50], (50 / 1.05 - 50, 20 / 1.05 - 20), atol=1e-4)


def test_mask_flow_and_occlusion_of_a_moving_square_by_hand():
    scene = Scene((ground(still), box(20, 12, 4, -1)), (HEIGHT, WIDTH))
    assert np.array_equal(scene.mask(0), square(20, 12))
    assert np.array_equal(scene.mask(2), square(28, 10))
    expected = np.where(square(20, 12)[:, :, None], (4.0, -1.0), 0.0)
    assert np.allclose(scene.flow(0, 1), expected, atol=1e-5)
    # The square covers what is at its next place and not under it now; nothing of the square itself is lost.
    assert np.array_equal(scene.occluded(0, 1), square(24, 11) & ~square(20, 12))
    assert np.array_equal(scene.occluded(1, 0), square(20, 12) & ~square(24, 11))


def test_what_leaves_the_view_is_occluded():
    scene = Scene((ground(lambda time: translation(3 * time, 0)),), (HEIGHT, WIDTH))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:, WIDTH - 3 :] = True
    assert np.array_equal(scene.occluded(0, 1), expected)
    assert np.array_equal(scene.occluded(1, 0), expected[:, ::-1])


def test_what_moves_with_the_camera_only_is_not_in_the_mask():
    near = box(20, 10, 3, 0, moves=False)
    scene = Scene((ground(lambda time: translation(2 * time, 0)), near), (HEIGHT, WIDTH))
    assert not scene.mask(0).any()
    assert np.allclose(scene.flow(0, 1)[15, 25], (3, 0), atol=1e-5)
    assert scene.instant(0).layer[15, 25] == 1


def test_an_object_behind_a_standing_thing_is_hidden():
    scene = Scene((ground(still), box(20, 10, 1, 0), box(25, 10, 0, 0, moves=False, seed=3)), (HEIGHT, WIDTH))
    assert np.array_equal(scene.mask(0), square(20, 10) & ~square(25, 10))
    assert np.array_equal(scene.mask(5), square(25, 10) & ~square(25, 10))
    assert scene.occluded(0, 1)[10:20, 24].all()  # goes behind
    assert not scene.occluded(0, 1)[10:20, 20:24].any()


@pytest.mark.parametrize('place', [(-4, 5), (55, 30), (-10, -10), (60, 40), (200, 200), (-300, 10), (25, -9)])
def test_objects_at_and_beyond_the_border(place):
    scene = Scene((ground(still), box(*place, 0, 0)), (HEIGHT, WIDTH))
    assert np.array_equal(scene.mask(0), square(*place))
    alone = Scene((ground(still),), (HEIGHT, WIDTH)).image(0)
    changed = (scene.image(0) != alone).any(2)
    assert not (changed & ~square(*place)).any()
    assert changed[square(*place)].mean() > 0.9 if square(*place).any() else not changed.any()


def test_pixels_of_whole_pixel_poses_are_the_textures():
    layers = ground(still), box(20, 12, 0, 0)
    image = Scene(layers, (HEIGHT, WIDTH)).image(0)
    expected = layers[0].texture[40 : 40 + HEIGHT, 50 : 50 + WIDTH].copy()
    expected[12:22, 20:30] = layers[1].texture
    assert np.array_equal(image, expected)


def test_half_transparent_sheets_are_mixed():
    white = Layer(
        np.full((10, 10, 3), 200, np.uint8), np.full((10, 10), 51, np.uint8), lambda _: translation(5, 5), True
    )
    black = Layer(np.zeros((80, 80, 3), np.uint8), None, still, False)
    scene = Scene((black, white), (HEIGHT, WIDTH))
    assert (scene.image(0)[5:15, 5:15] == 40).all()  # 200 * 51 / 255
    assert not scene.mask(0).any()  # less than half of it is there


def test_exact_flow_aligns_the_pictures():
    """Looked up where the flow says, the later picture is the earlier one."""

    def camera(time):
        about = translation(30, 20) @ turn_and_scale(0.03 * time, 1.01**time) @ translation(-30, -20)
        return translation(1.3 * time, -0.7 * time) @ about

    disc = np.zeros((24, 24), np.uint8)
    cv2.circle(disc, (12, 12), 10, 255, -1, cv2.LINE_AA)

    def own(time):
        return camera(time) @ translation(18 - 2.5 * time, 8 + 1.2 * time) @ turn_and_scale(0.1 * time, 1.0)

    scene = Scene((ground(camera), Layer(smooth_texture(5, 24, 24), disc, own, True)), (HEIGHT, WIDTH))
    for time, target in ((0, 1), (0, -2), (2.5, 4)):
        flow = scene.flow(time, target)
        ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        aligned = cv2.remap(
            scene.image(target),
            xs + flow[:, :, 0],
            ys + flow[:, :, 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        # Pixels on an outline mix two layers, so they and their neighbours are left out.
        seen = cv2.dilate(scene.occluded(time, target).astype(np.uint8), np.ones((5, 5))) == 0
        outline = cv2.morphologyEx(scene.mask(time).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
        difference = np.abs(aligned.astype(int) - scene.image(time)).max(2)
        unaligned = np.abs(scene.image(target).astype(int) - scene.image(time)).max(2)
        where = seen & ~outline
        assert where.mean() > 0.6
        assert difference[where].mean() < 3
        assert difference[where].max() < 25
        assert unaligned[where].mean() > 5 * difference[where].mean()


def test_a_scene_needs_a_background():
    with pytest.raises(ValueError, match='first layer'):
        Scene((), (HEIGHT, WIDTH))
    with pytest.raises(ValueError, match='must have no alpha'):
        Scene((box(0, 0, 0, 0),), (HEIGHT, WIDTH))
