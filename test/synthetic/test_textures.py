from __future__ import annotations

import numpy as np

from moving_object_detector.synthetic.random_scene import CANVAS, pooled_texture, random_texture


def test_a_texture_of_the_pool_is_always_the_same():
    first = pooled_texture(0).copy()
    assert first.shape == (*CANVAS, 3)
    assert first.dtype == np.uint8
    pooled_texture.cache_clear()
    assert np.array_equal(pooled_texture(0), first)
    assert not np.array_equal(pooled_texture(1), first)


def test_drawing_a_texture_does_not_change_the_pool():
    before = [pooled_texture(index).copy() for index in range(2)]
    for seed in range(12):
        random_texture(np.random.default_rng(seed), (50, 70), 2)[:] = 0
    for index in range(2):
        assert np.array_equal(pooled_texture(index), before[index])


def test_random_textures():
    drawn = [random_texture(np.random.default_rng(seed), (50, 70), 2) for seed in range(12)]
    for seed, image in enumerate(drawn):
        assert image.shape == (50, 70, 3)
        assert image.dtype == np.uint8
        assert np.array_equal(image, random_texture(np.random.default_rng(seed), (50, 70), 2))
    assert len({image.tobytes() for image in drawn}) == 12
    assert random_texture(np.random.default_rng(3), pool=2).shape == (*CANVAS, 3)


def test_textures_have_structure_that_flow_can_follow():
    for index in (0, 1):
        grey = pooled_texture(index).astype(float).mean(2)
        assert grey.std() > 20
        # No blank: every patch of 64 pixels varies.
        patches = grey.reshape(12, 64, 16, 64).std((1, 3))
        assert patches.min() > 2
