from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from moving_object_detector.networks.generator import Generator

# Channels, height and width after each layer for an input of 192x384.
SHAPES = {
    'conv1': (32, 192, 384),
    'conv2': (64, 96, 192),
    'conv3': (64, 96, 192),
    'conv4': (128, 48, 96),
    'conv5': (128, 48, 96),
    'conv6': (128, 48, 96),
    'conv7': (128, 48, 96),
    'conv8': (128, 48, 96),
    'conv9': (128, 48, 96),
    'conv10': (128, 48, 96),
    'conv11': (128, 48, 96),
    'conv12': (128, 48, 96),
    'conv13': (64, 96, 192),
    'conv14': (64, 96, 192),
    'conv15': (32, 192, 384),
    'conv16': (16, 192, 384),
    'conv17': (2, 192, 384),
}


def test_parameter_count() -> None:
    assert sum(parameter.numel() for parameter in Generator().parameters()) == 1_451_062


def test_shape_of_every_layer(noise: Callable[..., Tensor]) -> None:
    generator = Generator().eval()
    shapes = {}
    for name, module in generator.named_children():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        mask = generator(noise(0, 1, 3, 192, 384) - 0.5, noise(1, 1, 2, 192, 384))
    assert shapes == SHAPES
    assert mask.shape == (1, 1, 192, 384)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_new_weights_are_neutral() -> None:
    generator = Generator()
    for name, tensor in generator.state_dict().items():
        if name.endswith(('bias', 'beta')):
            assert not tensor.any(), name
        elif name.endswith('gamma'):
            assert (tensor == 1).all(), name
        else:
            # Xavier: uniform up to sqrt(6 / (fan in + fan out)).
            outputs, inputs, height, width = tensor.shape
            bound = math.sqrt(6 / ((inputs + outputs) * height * width))
            assert 0.8 * bound < tensor.abs().max() <= bound, name


def test_mask_is_the_softmax_of_a_tenth_of_the_last_layer() -> None:
    generator = Generator().eval()
    with torch.no_grad():
        generator.conv17.gamma.zero_()
        generator.conv17.beta.copy_(torch.tensor([3.0, -4.0]))
        mask = generator(torch.rand(1, 3, 8, 12), torch.rand(1, 2, 8, 12))
    torch.testing.assert_close(mask, torch.full((1, 1, 8, 12), 1 / (1 + math.exp(-0.7))))


def test_norm_divides_by_its_epsilon() -> None:
    layer = Generator().conv16
    x = torch.rand(1, 32, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.conv(x) * 0.9995003746877732)  # 1 / sqrt(1.001)


def test_output_equals_that_of_the_released_code(
    fill: Callable[[nn.Module, float], nn.Module], noise: Callable[..., Tensor]
) -> None:
    generator = fill(Generator(), 1.5)
    with torch.no_grad():
        mask = generator(noise(2, 1, 3, 32, 48) - 0.5, noise(3, 1, 2, 32, 48) * 4 - 2)[0, 0]
    # What the released TensorFlow code gave for the same weights and input.
    expected = {(0, 0): 0.444471, (0, 47): 0.489489, (16, 16): 0.442592, (31, 0): 0.470085, (31, 47): 0.447221}
    assert {pixel: mask[pixel].item() for pixel in expected} == pytest.approx(expected, abs=1e-5)


def test_masks_of_a_batch_do_not_depend_on_each_other(fill: Callable[[nn.Module, float], nn.Module]) -> None:
    generator = fill(Generator(), 1.5)
    image, flow = torch.rand(3, 3, 16, 24) - 0.5, torch.randn(3, 2, 16, 24)
    with torch.no_grad():
        batch = generator(image, flow)
        for index in range(3):
            single = generator(image[index : index + 1], flow[index : index + 1])
            torch.testing.assert_close(batch[index : index + 1], single, atol=1e-6, rtol=0)


@pytest.mark.parametrize(('height', 'width'), [(190, 384), (192, 385), (1, 1)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf'\({height}, {width}\).*multiples of 4'):
        Generator()(torch.zeros(1, 3, height, width), torch.zeros(1, 2, height, width))


@pytest.mark.parametrize(('height', 'width'), [(4, 4), (20, 36), (96, 192)])
def test_any_multiple_of_four_works(height: int, width: int) -> None:
    with torch.no_grad():
        mask = Generator()(torch.zeros(2, 3, height, width), torch.zeros(2, 2, height, width))
    assert mask.shape == (2, 1, height, width)
    assert mask.isfinite().all()
