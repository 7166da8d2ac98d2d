from __future__ import annotations

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene, followed_scene, random_scene

SMALL = SceneOptions(size=(64, 112), textures=4)
HASH = """
import hashlib
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene, random_scene
options = SceneOptions(size=(64, 112), textures=4)
for scene in (random_scene(11, options), random_scene((3, 4), options), clip_scene(5, options)):
    data = b''.join(x.tobytes() for t in (0, 3.5) for x in (scene.image(t), scene.mask(t), scene.flow(t, t + 2)))
    print(hashlib.sha256(data).hexdigest())
"""


def moving(scene):
    return [layer for layer in scene.layers if layer.moves]


def test_the_same_seed_gives_the_same_pixels_in_a_fresh_process():
    run = subprocess.run([sys.executable, '-c', HASH], capture_output=True, text=True, check=True)
    here = []
    for scene in (random_scene(11, SMALL), random_scene((3, 4), SMALL), clip_scene(5, SMALL)):
        data = b''.join(x.tobytes() for t in (0, 3.5) for x in (scene.image(t), scene.mask(t), scene.flow(t, t + 2)))
        here.append(hashlib.sha256(data).hexdigest())
    assert run.stdout.split() == here
    assert len(set(here)) == 3


def test_another_seed_gives_another_scene():
    pictures = {random_scene(seed, SMALL).image(0).tobytes() for seed in range(8)}
    pictures |= {clip_scene(seed, SMALL).image(0).tobytes() for seed in range(8)}
    assert len(pictures) == 16


def test_a_frame_does_not_depend_on_those_asked_for_before():
    late = clip_scene(2, SMALL)
    for time in range(6):
        late.image(time)
    assert np.array_equal(late.image(6), clip_scene(2, SMALL).image(6))


def test_scenes_without_objects():
    for seed in range(6):
        for scene in (
            random_scene(seed, SceneOptions(size=(64, 112), textures=4, objects=(0, 0))),
            clip_scene(seed, SceneOptions(size=(64, 112), textures=4, objects=(0, 0))),
        ):
            assert not moving(scene)
            assert not scene.mask(3).any()
    bare = random_scene(1, SceneOptions(size=(64, 112), textures=4, objects=(0, 0), standing=(0, 0)))
    assert len(bare.layers) == 1


def test_the_number_of_objects_is_kept():
    """Sheets of an object follow each other; one object has at most four."""
    for seed in range(12):
        scene = random_scene(seed, SceneOptions(size=(64, 112), textures=4, objects=(2, 2), standing=(0, 0)))
        assert 2 <= len(moving(scene)) <= 8
        standing = random_scene(seed, SceneOptions(size=(64, 112), textures=4, objects=(0, 0), standing=(3, 3)))
        assert len(standing.layers) == 4


def test_standing_things_move_with_the_camera_up_to_parallax():
    """Their flow goes the ground's way and is at most a share of it longer."""
    options = SceneOptions(size=(64, 112), textures=4, objects=(0, 0), standing=(2, 2), parallax=0.15)
    seen = 0
    for seed in range(12):
        scene = random_scene(seed, options)
        flow, layer = scene.flow(0, 1), scene.instant(0).layer
        ground = scene.layers[0].pose
        ys, xs = np.nonzero(layer > 0)
        if not len(ys):
            continue
        motion = ground(1) @ np.linalg.inv(ground(0))
        px, py, pw = motion @ np.stack((xs, ys, np.ones_like(xs)))
        expected = np.stack((px / pw - xs, py / pw - ys), 1)
        length = np.linalg.norm(expected, axis=1)
        assert (np.linalg.norm(flow[ys, xs] - expected, axis=1) < 0.3 * length.max() + 1e-3).all()
        seen += 1
    assert seen > 6


@pytest.mark.parametrize('make', [random_scene, clip_scene])
def test_exact_flow_aligns_the_pictures(make):
    for seed in range(4):
        scene = make(seed, SceneOptions(size=(96, 160), textures=4, objects=(1, 2)))
        flow = scene.flow(1, 2)
        ys, xs = np.mgrid[0:96, 0:160].astype(np.float32)
        aligned = cv2.remap(
            scene.image(2), xs + flow[:, :, 0], ys + flow[:, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        layers = scene.instant(1).layer.astype(np.uint8)
        edges = cv2.dilate(layers, np.ones((5, 5))) != cv2.erode(layers, np.ones((5, 5)))
        seen = (cv2.dilate(scene.occluded(1, 2).astype(np.uint8), np.ones((5, 5))) == 0) & ~edges
        difference = np.abs(aligned.astype(int) - scene.image(1)).mean(2)
        assert seen.mean() > 0.7
        unaligned = np.abs(scene.image(2).astype(int) - scene.image(1)).mean(2)
        # What is left is bilinear interpolation of textures as rough as nature's.
        assert np.median(difference[seen]) < 3
        assert difference[seen].mean() < 0.7 * unaligned[seen].mean()


def test_objects_of_a_clip_stay_in_view():
    """The middle of an object's body, its first sheet, never comes near the border."""
    for seed in range(30):
        body = moving(clip_scene(seed, SceneOptions(size=(72, 128), textures=4, objects=(1, 1))))[0]
        height, width = body.alpha.shape
        for time in range(80):
            x, y, w = body.pose(time) @ (width / 2, height / 2, 1)
            assert 0.09 < x / w / 128 < 0.91
            assert 0.14 < y / w / 72 < 0.86


def test_objects_of_a_clip_are_seen():
    hidden = 0
    for seed in range(24):
        scene = clip_scene(seed, SceneOptions(size=(72, 128), textures=4, objects=(1, 2)))
        shares = [scene.mask(time).mean() for time in range(0, 80, 5)]
        assert np.mean(shares) > 0.01
        hidden += sum(share < 0.002 for share in shares)
    # At times one is behind a standing thing.
    assert hidden < 0.03 * 24 * 16


def test_the_camera_of_a_clip_keeps_flying():
    for seed in range(6):
        ground = clip_scene(seed, SMALL).layers[0].pose
        shifts = [(ground(time + 10) @ np.linalg.inv(ground(time)) @ (56, 32, 1))[0] - 56 for time in (0, 40, 70)]
        assert min(abs(shift) for shift in shifts) > 1
        assert len({np.sign(shift) for shift in shifts}) == 1


def test_speeds_scale_with_the_width():
    """The same seed at twice the size is the same scene: flow is twice as long."""
    for seed in range(3):
        small = random_scene(seed, SceneOptions(size=(64, 128), textures=4, standing=(0, 0), objects=(0, 0)))
        large = random_scene(seed, SceneOptions(size=(128, 256), textures=4, standing=(0, 0), objects=(0, 0)))
        assert np.allclose(large.flow(0, 2)[::2, ::2], 2 * small.flow(0, 2), rtol=0.02, atol=0.02)


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match='non-negative'):
        random_scene(-1, SMALL)


def test_a_camera_that_follows_sees_the_ground_pass_and_its_object_stay():
    slower = []
    for seed in range(6):
        scene = followed_scene((5, seed), SceneOptions(size=(128, 256), standing=(0, 0), objects=(1, 1)))
        mask = scene.mask(2.0)
        speed = np.hypot(*np.moveaxis(scene.flow(2.0, 3.0), 2, 0))
        slower.append(np.median(speed[mask]) / np.median(speed[~mask]))
    assert np.median(slower) < 0.5
