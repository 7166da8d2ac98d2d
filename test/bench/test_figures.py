from __future__ import annotations

import pytest
import torch
from torch import nn

from moving_object_detector.bench.figures import (
    count_flops,
    generator_flops,
    pwcnet_flops,
    ratio,
    share,
    summary,
)


def conv(inputs, outputs, kernel, pixels):
    """A multiplication and an addition for each weight and pixel of the output."""
    return 2 * inputs * outputs * kernel**2 * pixels


def test_summary_by_hand():
    seconds = [k / 1000 for k in range(1, 102)]  # 1 to 101 ms
    assert summary(seconds) == {'median': 51.0, 'p95': 96.0, 'p99': 100.0}
    assert summary([0.0012345]) == {'median': 1.23, 'p95': 1.23, 'p99': 1.23}
    # Between the second and the third of three: 95 % is nine tenths of the way.
    assert summary([0.01, 0.02, 0.03]) == {'median': 20.0, 'p95': 29.0, 'p99': 29.8}


def test_ratio_by_hand():
    # The third round fell into a time when the machine was five times slower, for both.
    slow, fast = [[4.0], [6.0], [20.0]], [[2.0, 2.0, 9.0], [2.0], [10.0]]
    # Medians 6 and 2; the rounds' own ratios are 2, 3 and 2.
    assert ratio(slow, fast) == {'ratio': 3.0, 'low': 2.0, 'high': 2.5}
    assert ratio(fast, fast) == {'ratio': 1.0, 'low': 1.0, 'high': 1.0}


def test_share():
    assert share(108.0, 100.0) == 1.08
    assert share(1.0, 3.0) == 0.333
    assert share(1.0, None) is None


def test_operations_of_a_convolution_by_hand():
    # 10 x 12 pixels become 5 x 6 at stride 2; 8 outputs of 3 x 9 multiplications and additions each.
    assert count_flops(lambda: nn.Conv2d(3, 8, 3, 2, 1), (1, 3, 10, 12)) == conv(3, 8, 3, 30) == 12960
    assert count_flops(lambda: nn.Linear(7, 11, bias=False), (5, 7)) == 2 * 5 * 7 * 11


def test_operations_of_the_generator_by_hand():
    """Layer by layer as the method is described, not as it is written here."""
    full, half, quarter = 96 * 192, 48 * 96, 24 * 48
    expected = conv(5, 32, 5, full) + conv(32, 64, 3, half) + conv(64, 64, 3, half) + conv(64, 128, 3, quarter)
    expected += 8 * conv(128, 128, 3, quarter)  # 5 and 6, four dilated ones, 11 and 12
    expected += conv(128, 64, 3, half) + conv(64, 64, 3, half)
    expected += conv(64, 32, 3, full) + conv(32, 16, 3, full) + conv(16, 2, 3, full)
    assert generator_flops((96, 192)) == expected
    # All convolutions are over pixels.
    assert generator_flops((192, 384)) == 4 * expected


def test_operations_of_pwcnet_by_hand():
    height, width = 64, 128
    pixels = {level: (height >> level) * (width >> level) for level in range(1, 7)}
    channels = (3, 16, 32, 64, 96, 128, 196)
    pyramid = sum(
        conv(channels[level - 1], channels[level], 3, pixels[level])
        + 2 * conv(channels[level], channels[level], 3, pixels[level])
        for level in range(1, 7)
    )
    decoder = 0
    for level in (6, 5, 4, 3, 2):
        inputs = 81 if level == 6 else 81 + channels[level] + 2 + 2
        for outputs in (128, 128, 96, 64, 32):
            decoder += conv(inputs, outputs, 3, pixels[level])
            inputs += outputs
        decoder += conv(inputs, 2, 3, pixels[level])
        if level > 2:
            # Transposed: each pixel of the input goes to 4 x 4 of the output, for the flow and for the features.
            decoder += conv(2, 2, 4, pixels[level]) + conv(inputs, 2, 4, pixels[level])
    for outputs in (128, 128, 128, 96, 64, 32, 2):
        decoder += conv(inputs, outputs, 3, pixels[2])
        inputs = outputs
    assert pwcnet_flops((height, width)) == (pyramid, decoder)


def test_counting_takes_no_memory():
    """A network of a terabyte, of which nothing but the shape is made."""
    assert count_flops(lambda: nn.Linear(500_000, 500_000, bias=False), (1, 500_000)) == 2 * 500_000**2
    assert torch.empty(1).device == torch.device('cpu')


@pytest.mark.parametrize('size', [(96, 192), (64, 64)])
def test_generator_size_is_in_proportion(size):
    assert generator_flops(size) * 96 * 192 == generator_flops((96, 192)) * size[0] * size[1]
