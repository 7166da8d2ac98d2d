"""Upsampling merged into convolutions: equal to repeating pixels and convolving, and fewer products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moving_object_detector.engines.merged import MergedConv, merge_upsampling
from moving_object_detector.networks.generator import ScaledConv


@pytest.mark.parametrize('size', [(1, 1), (4, 6), (5, 3)])
def test_layer_against_loops(size):
    """Each output by nine products of the enlarged image, its border zero."""
    torch.manual_seed(1)
    layer = ScaledConv(2, 3)
    with torch.no_grad():
        for parameter in (layer.gamma, layer.beta, layer.conv.bias):
            parameter.normal_()
    x = torch.randn(2, 2, *size)
    large = np.pad(x.numpy().repeat(2, 2).repeat(2, 3), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight, bias, gamma, beta = (
        value.detach().numpy() for value in (layer.conv.weight, layer.conv.bias, layer.gamma, layer.beta)
    )
    expected = np.zeros((2, 3, 2 * size[0], 2 * size[1]))
    for row in range(2 * size[0]):
        for column in range(2 * size[1]):
            window = large[:, :, row : row + 3, column : column + 3]
            sums = np.einsum('biyx,oiyx->bo', window, weight) + bias
            expected[:, :, row, column] = sums * gamma / np.sqrt(1.001) + beta
    with torch.no_grad():
        np.testing.assert_allclose(MergedConv(layer).upsampled(x).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(layer.upsampled(x).numpy(), expected, atol=1e-5)


def test_generator_is_the_same_with_less_work(generator):
    torch.manual_seed(2)
    image, flow = torch.rand(2, 3, 32, 64) - 0.5, torch.randn(2, 2, 32, 64)
    merged = merge_upsampling(generator)
    work = []
    masks = []
    for network in (generator, merged):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            masks.append(network(image, flow))
        work.append(counter.get_total_flops())
    torch.testing.assert_close(masks[1], masks[0], atol=1e-5, rtol=0)
    assert masks[0].std() > 0.05
    # PyTorch counts a transposed convolution by its inputs: 16 taps for 4 outputs.
    assert work[1] < 0.9 * work[0]
