"""People and animals: limbs hold together, move, and stand on the ground; by points and connected pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.synthetic.figures import add_figure
from moving_object_detector.synthetic.random_scene import SceneOptions, followed_scene, random_scene
from moving_object_detector.synthetic.things import Builder, Course, Joint


def build(seed, *, animal):
    rng = np.random.default_rng(seed)
    builder = Builder(rng, np.array((0.0, 0.0, 1.0)), (np.full(3, 0.5), np.full(3, 0.5)))
    builder.instances = 1
    course = Course(np.array((3.0, 1.0, 0.0)), (1.2, 0.0, 0.0), 0.0)
    add_figure(builder, course, float(rng.normal(0, 0.2)), 1.0 if animal else 1.8, animal=animal)
    return builder


def corners(builder, seconds):
    """Return the corners of all faces in the world, (n, 4, 3)."""
    found = []
    for face in builder.faces:
        rotation, place = builder.parts[face.part].pose(seconds)
        rest = [face.origin + a * face.edge_s + b * face.edge_t for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        found.append([rotation @ point + place for point in rest])
    return np.array(found)


def test_a_knee_is_carried_by_its_hip():
    axis = np.array((0.0, 1.0, 0.0))
    hip = Joint(np.array((0.0, 0.0, 1.0)), axis, 0.0, 1.0, 0.0, rest=np.pi / 2)
    knee = Joint(np.array((0.0, 0.0, 0.5)), axis, 0.0, 1.0, 0.0, rest=-np.pi / 2, carrier=hip)
    # By hand: the hip's quarter turn about y takes the thigh from -z to -x; the knee turns the shin down again.
    rotation, place = knee.pose(0.3)
    assert rotation @ (0.0, 0.0, 0.5) + place == pytest.approx((-0.5, 0.0, 1.0))
    assert rotation @ (0.0, 0.0, 0.0) + place == pytest.approx((-0.5, 0.0, 0.5))


@pytest.mark.parametrize('animal', [False, True])
def test_cards_keep_their_shape_and_their_plane_and_limbs_swing(animal):
    for seed in range(6):
        builder = build(seed, animal=animal)
        then, now = corners(builder, 0.0), corners(builder, 0.37)
        for one, other in zip(then, now, strict=True):
            distances = [np.linalg.norm(points[:, None] - points[None], axis=-1) for points in (one, other)]
            np.testing.assert_allclose(distances[0], distances[1], atol=1e-9)
        # Beyond the course, 1.2 metres a second along x, some of it moves.
        own = now - then - (1.2 * 0.37, 0.0, 0.0)
        assert np.abs(own).max() > 0.01  # the least is a cyclist who coasts
        flat = now.reshape(-1, 3) - now.reshape(-1, 3).mean(0)
        assert np.linalg.svd(flat)[1][2] < 0.1  # one upright plane, but for the order of the cards
        low = min(corners(builder, second)[..., 2].min() for second in np.linspace(0, 2, 21))
        assert -0.35 < low < 0.25


@pytest.mark.parametrize('make', [followed_scene, random_scene])
def test_figures_of_sheets_hold_together_and_bend(make):
    options = SceneOptions(size=(192, 384), objects=(1, 1), standing=(0, 0), object_extent=(0.5, 0.6), figures=1.0)
    together, bent = [], []
    for seed in range(12):
        scene = make((3, seed), options)
        before, after = (scene.mask(time).astype(np.uint8) for time in (0.0, 3.0))
        if min(before.mean(), after.mean()) < 0.01:
            continue
        sizes = np.sort(cv2.connectedComponentsWithStats(after)[2][1:, cv2.CC_STAT_AREA])
        together.append(sizes[-1] / sizes.sum())
        # The best rigid motion between the frames leaves a difference: limbs move against each other.
        poses = np.array([layer.pose(3.0) @ np.linalg.inv(layer.pose(0.0)) for layer in scene.layers[1:]])
        poses /= poses[:, 2:, 2:]
        bent.append(np.abs(poses - poses[0]).max())
    assert len(together) > 6
    assert np.mean(together) > 0.95
    assert min(bent) > 0.05
