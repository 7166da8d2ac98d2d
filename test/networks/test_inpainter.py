from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from moving_object_detector.networks.inpainter import Inpainter

# Channels, height and width after each layer for an input of 192x384.
ENCODER_SHAPES = {
    'conv1': (16, 96, 192),
    'conv2': (32, 48, 96),
    'conv3': (64, 24, 48),
    'conv31': (64, 24, 48),
    'conv4': (128, 12, 24),
    'conv41': (128, 12, 24),
    'conv5': (128, 6, 12),
    'conv51': (128, 6, 12),
    'conv6': (128, 3, 6),
}
SHAPES = {
    **{encoder + name: shape for encoder in 'ab' for name, shape in ENCODER_SHAPES.items()},
    'deconv5': (128, 6, 12),
    'flow5': (2, 6, 12),
    'deconv4': (128, 12, 24),
    'upflow4': (2, 12, 24),
    'flow4': (2, 12, 24),
    'deconv3': (64, 24, 48),
    'upflow3': (2, 24, 48),
    'flow3': (2, 24, 48),
    'deconv2': (32, 48, 96),
    'upflow2': (2, 48, 96),
    'flow2': (2, 48, 96),
    'deconv1': (16, 96, 192),
    'upflow1': (2, 96, 192),
    'flow1': (2, 96, 192),
}


def test_parameter_count() -> None:
    assert sum(parameter.numel() for parameter in Inpainter().parameters()) == 3_388_610


def test_shape_of_every_layer() -> None:
    inpainter = Inpainter().eval()
    shapes = {}
    for name, module in inpainter.named_children():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        flow = inpainter(torch.zeros(1, 3, 192, 384), torch.zeros(1, 2, 192, 384), torch.ones(1, 1, 192, 384))
    assert shapes == SHAPES
    assert flow.shape == (1, 2, 192, 384)


@pytest.mark.parametrize(
    ('height', 'width', 'expected'),
    [
        # What the released TensorFlow code gave for the same weights and input.
        (
            64,
            64,
            {
                (0, 0): (0.025654, -0.109175),
                (0, 63): (0.133002, 0.156931),
                (32, 21): (0.272222, 0.254404),
                (63, 0): (-0.18494, -0.01003),
                (63, 63): (-0.006759, -0.221478),
            },
        ),
        (
            37,
            51,
            {
                (0, 0): (0.253246, -0.024249),
                (0, 50): (0.101431, 0.134469),
                (18, 17): (0.380531, 0.072838),
                (36, 0): (-0.283182, 0.098214),
                (36, 50): (-0.265899, -0.115073),
            },
        ),
    ],
)
def test_output_equals_that_of_the_released_code(
    height: int,
    width: int,
    expected: dict[tuple[int, int], tuple[float, float]],
    fill: Callable[[nn.Module, float], nn.Module],
    noise: Callable[..., Tensor],
) -> None:
    inpainter = fill(Inpainter(), 1.5)
    image = noise(2, 1, 3, height, width) - 0.5
    mask = noise(4, 1, 1, height, width)
    with torch.no_grad():
        flow = inpainter(image, (noise(3, 1, 2, height, width) * 4 - 2) * (1 - mask), mask)[0]
    for (row, column), vector in expected.items():
        assert flow[:, row, column].tolist() == pytest.approx(vector, abs=2e-5)


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (33, 65), (50, 30)])
def test_odd_sizes(height: int, width: int) -> None:
    with torch.no_grad():
        flow = Inpainter()(
            torch.rand(2, 3, height, width), torch.rand(2, 2, height, width), torch.ones(2, 1, height, width)
        )
    assert flow.shape == (2, 2, height, width)
    assert flow.isfinite().all()


def test_every_layer_is_trained() -> None:
    torch.manual_seed(0)
    inpainter = Inpainter()
    mask = torch.rand(1, 1, 64, 64)
    inpainter(torch.rand(1, 3, 64, 64), torch.rand(1, 2, 64, 64), mask).square().sum().backward()
    assert [name for name, parameter in inpainter.named_parameters() if not parameter.grad.any()] == []
