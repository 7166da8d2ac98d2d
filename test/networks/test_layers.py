"""Padding and resizing against numbers worked by hand from TensorFlow's definitions, and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moving_object_detector.networks.generator import SameConv2d, repeat_twice, same_padding
from moving_object_detector.networks.inpainter import resize_bilinear_tf1

# Length, kernel, stride, dilation; zeros before, zeros after.
PADDINGS = [
    (192, 3, 1, 1, 1, 1),
    (192, 5, 1, 1, 2, 2),
    (192, 4, 1, 1, 1, 2),
    (6, 3, 2, 1, 0, 1),
    (7, 3, 2, 1, 1, 1),
    (192, 5, 2, 1, 1, 2),
    (192, 7, 2, 1, 2, 3),
    (191, 7, 2, 1, 3, 3),
    (48, 3, 1, 2, 2, 2),
    (48, 3, 1, 16, 16, 16),
    (5, 1, 2, 1, 0, 0),
    (1, 3, 2, 1, 1, 1),
]


@pytest.mark.parametrize(('size', 'kernel', 'stride', 'dilation', 'before', 'after'), PADDINGS)
def test_same_padding(size: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> None:
    assert same_padding(size, kernel, stride, dilation) == (before, after)


def test_stride_two_on_an_even_length_starts_at_the_first_pixel() -> None:
    conv = SameConv2d(1, 1, 3, stride=2)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1] = 1.0  # three ones in the middle row
        conv.bias.fill_(0.5)
        row = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        # Padded (0, 1), so the middle row of the kernel lies on row 1 of the image: 1 + 2 + 3 and 3 + 4 + 0.
        result = conv(torch.cat((torch.zeros(1, 4), row))[None, None])
    assert result.flatten().tolist() == [6.5, 7.5]


@pytest.mark.parametrize(
    ('height', 'width', 'kernel', 'stride', 'dilation', 'top', 'left'),
    [
        (6, 8, 3, 2, 1, 0, 0),
        (7, 6, 3, 2, 1, 1, 0),
        (9, 12, 7, 2, 1, 3, 2),
        (6, 5, 4, 1, 1, 1, 1),
        (10, 7, 5, 2, 1, 1, 2),
        (9, 6, 3, 1, 4, 4, 4),
    ],
)
def test_convolution_against_loops(
    height: int, width: int, kernel: int, stride: int, dilation: int, top: int, left: int
) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(2, 3, kernel, stride, dilation)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(1, 2, height, width)
    image, weight, bias = x[0].double().numpy(), conv.weight.detach().double().numpy(), conv.bias.tolist()
    expected = np.zeros((3, -(-height // stride), -(-width // stride)))
    for channel, row, column in np.ndindex(*expected.shape):
        total = bias[channel]
        for source, i, j in np.ndindex(2, kernel, kernel):
            y, z = row * stride + i * dilation - top, column * stride + j * dilation - left
            if 0 <= y < height and 0 <= z < width:
                total += weight[channel, source, i, j] * image[source, y, z]
        expected[channel, row, column] = total
    np.testing.assert_allclose(conv(x)[0].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize('size', [1, 2, 3, 24, 48, 99])
def test_repeating_is_nearest_neighbour_with_aligned_corners(size: int) -> None:
    indices = [math.floor(i * (size - 1) / (2 * size - 1) + 0.5) for i in range(2 * size)]
    square = torch.arange(size * size, dtype=torch.float32).view(1, 1, size, size)
    expected = square[:, :, indices][:, :, :, indices]
    assert torch.equal(repeat_twice(square), expected)


@pytest.mark.parametrize(
    ('values', 'target', 'expected'),
    [
        ([10.0, 20.0], 4, [10.0, 15.0, 20.0, 20.0]),
        ([1.0, 2.0, 3.0, 4.0], 2, [1.0, 3.0]),
        ([0.0, 10.0, 20.0], 5, [0.0, 6.0, 12.0, 18.0, 20.0]),  # 0.6 a step
        ([7.0], 3, [7.0, 7.0, 7.0]),
        ([0.0, 10.0, 20.0, 30.0, 40.0], 3, [0.0, 50 / 3, 100 / 3]),
    ],
)
def test_bilinear_without_half_pixel_shift(values: list[float], target: int, expected: list[float]) -> None:
    line = torch.tensor(values)
    rows = resize_bilinear_tf1(line.view(1, 1, 1, -1), (1, target))
    columns = resize_bilinear_tf1(line.view(1, 1, -1, 1), (target, 1))
    assert rows.flatten().tolist() == pytest.approx(expected, abs=1e-5)
    assert columns.flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_bilinear_in_both_directions() -> None:
    image = torch.tensor([[0.0, 4.0], [8.0, 16.0]]).view(1, 1, 2, 2)
    expected = [[0, 2, 4, 4], [4, 7, 10, 10], [8, 12, 16, 16], [8, 12, 16, 16]]
    assert resize_bilinear_tf1(image, (4, 4))[0, 0].tolist() == expected


def test_bilinear_to_the_same_size_changes_nothing() -> None:
    image = torch.rand(2, 3, 5, 7)
    assert torch.equal(resize_bilinear_tf1(image, (5, 7)), image)
