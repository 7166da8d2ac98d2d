"""Sixteen bits to eight, against numbers worked out by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError
from moving_object_detector.media.frames import SampleScale, check_size, resize_image


def ramp(low, high, shape=(64, 100)):
    """All levels of a range, in no order."""
    levels = np.linspace(low, high, shape[0] * shape[1]).round().astype(np.uint16)
    return np.random.default_rng(6).permutation(levels).reshape(shape)


def test_eight_bits_stay_as_they_are():
    samples = np.array([[0, 7, 255]], np.uint8)
    scale = SampleScale()
    assert scale(samples) is samples
    assert scale.range is None


@pytest.mark.parametrize(('low', 'high'), [(29000, 31040), (0, 4095), (100, 60000)])
def test_the_first_image_sets_the_scale_and_others_keep_it(low, high):
    """The range with an eighth of it on either side, as far as there are levels."""
    scale = SampleScale()
    first = scale(ramp(low, high))
    black, white = max(low - (high - low) / 8, 0), min(high + (high - low) / 8, 65535)
    assert scale.range == pytest.approx((black, white), abs=0.02 * (high - low))
    expected = 255 * (ramp(low, high).astype(float) - black) / (white - black)
    assert np.abs(first - expected).max() < 5
    before = scale.range
    middle = ramp(low + (high - low) // 4, low + (high - low) // 2)
    assert np.abs(scale(middle) - 255 * (middle.astype(float) - black) / (white - black)).max() < 5
    assert scale.range == before


def test_dead_pixels_say_nothing():
    image = ramp(5000, 6000, (200, 200))
    image[0, 0], image[4, 4] = 0, 65535
    scale = SampleScale()
    scale(image)
    assert scale.range == pytest.approx((4875, 6125), abs=20)


def test_the_range_grows_but_never_shrinks():
    scale = SampleScale()
    scale(ramp(10000, 12000))
    scale(ramp(10000, 20000))
    assert scale.range == pytest.approx((9750 - 1281, 20000 + 1281), abs=100)
    before = scale.range
    scale(ramp(10000, 10010))
    assert scale.range == before


def test_noise_of_a_dark_image_is_no_picture():
    scale = SampleScale()
    noise = np.random.default_rng(1).integers(1000, 1004, (64, 64)).astype(np.uint16)
    assert np.ptp(scale(noise)) <= 4


def test_both_byte_orders_and_colours():
    image = ramp(0, 60000).reshape(32, 50, 4)[:, :, :3]
    assert np.array_equal(SampleScale()(image.astype('>u2')), SampleScale()(image))
    assert SampleScale()(image).shape == (32, 50, 3)


def test_sizes():
    check_size(16, 4096)
    for size in ((15, 100), (100, 15), (0, 20), (4097, 100), (100, 4097)):
        with pytest.raises(ImageError, match=f'{size[1]}x{size[0]}'):
            check_size(*size)
    check_size(4, 9000, largest=9000, smallest=1)


def test_resizing_is_by_area_where_the_image_shrinks():
    image = np.random.default_rng(2).integers(0, 256, (40, 60, 3), np.uint8)
    assert np.array_equal(resize_image(image, (10, 15)), cv2.resize(image, (15, 10), interpolation=cv2.INTER_AREA))
    means = image.reshape(10, 4, 15, 4, 3).mean((1, 3))
    assert np.abs(resize_image(image, (10, 15)) - means).max() <= 0.5
    for size in ((80, 120), (20, 120), (20, 60)):
        expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(resize_image(image, size), expected)
    assert resize_image(image, (40, 60)) is image
