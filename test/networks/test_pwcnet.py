from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moving_object_detector.networks.pwcnet import PWCNet, cost_volume, padded, warp

# The state dict of the authors' pwc_net.pth.tar, in its order: layer and shape of its weight. A bias follows each,
# of as many values as the layer has outputs, which a transposed convolution names second.
LAYERS = """
conv1a.0 16 3 3 3 | conv1aa.0 16 16 3 3 | conv1b.0 16 16 3 3
conv2a.0 32 16 3 3 | conv2aa.0 32 32 3 3 | conv2b.0 32 32 3 3
conv3a.0 64 32 3 3 | conv3aa.0 64 64 3 3 | conv3b.0 64 64 3 3
conv4a.0 96 64 3 3 | conv4aa.0 96 96 3 3 | conv4b.0 96 96 3 3
conv5a.0 128 96 3 3 | conv5aa.0 128 128 3 3 | conv5b.0 128 128 3 3
conv6aa.0 196 128 3 3 | conv6a.0 196 196 3 3 | conv6b.0 196 196 3 3
conv6_0.0 128 81 3 3 | conv6_1.0 128 209 3 3 | conv6_2.0 96 337 3 3 | conv6_3.0 64 433 3 3 | conv6_4.0 32 497 3 3
predict_flow6 2 529 3 3 | deconv6 2 2 4 4 | upfeat6 529 2 4 4
conv5_0.0 128 213 3 3 | conv5_1.0 128 341 3 3 | conv5_2.0 96 469 3 3 | conv5_3.0 64 565 3 3 | conv5_4.0 32 629 3 3
predict_flow5 2 661 3 3 | deconv5 2 2 4 4 | upfeat5 661 2 4 4
conv4_0.0 128 181 3 3 | conv4_1.0 128 309 3 3 | conv4_2.0 96 437 3 3 | conv4_3.0 64 533 3 3 | conv4_4.0 32 597 3 3
predict_flow4 2 629 3 3 | deconv4 2 2 4 4 | upfeat4 629 2 4 4
conv3_0.0 128 149 3 3 | conv3_1.0 128 277 3 3 | conv3_2.0 96 405 3 3 | conv3_3.0 64 501 3 3 | conv3_4.0 32 565 3 3
predict_flow3 2 597 3 3 | deconv3 2 2 4 4 | upfeat3 597 2 4 4
conv2_0.0 128 117 3 3 | conv2_1.0 128 245 3 3 | conv2_2.0 96 373 3 3 | conv2_3.0 64 469 3 3 | conv2_4.0 32 533 3 3
predict_flow2 2 565 3 3 | deconv2 2 2 4 4
dc_conv1.0 128 565 3 3 | dc_conv2.0 128 128 3 3 | dc_conv3.0 128 128 3 3 | dc_conv4.0 96 128 3 3
dc_conv5.0 64 96 3 3 | dc_conv6.0 32 64 3 3 | dc_conv7 2 32 3 3
"""
# Height and width of each level for an input of 192x384, and its channels.
LEVELS = {1: (16, 96, 192), 2: (32, 48, 96), 3: (64, 24, 48), 4: (96, 12, 24), 5: (128, 6, 12), 6: (196, 3, 6)}
DECODER = {'0': 128, '1': 128, '2': 96, '3': 64, '4': 32}
CONTEXT = {'1': 128, '2': 128, '3': 128, '4': 96, '5': 64, '6': 32, '7': 2}


def expected_state() -> list[tuple[str, tuple[int, ...]]]:
    state = []
    for entry in LAYERS.strip().replace('\n', '|').split('|'):
        name, *numbers = entry.split()
        shape = tuple(int(number) for number in numbers)
        outputs = shape[1] if name.startswith(('deconv', 'upfeat')) else shape[0]
        state += [(f'{name}.weight', shape), (f'{name}.bias', (outputs,))]
    return state


def expected_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {f'conv{level}{part}': shape for level, shape in LEVELS.items() for part in ('a', 'aa', 'b')}
    for level in range(2, 7):
        height, width = LEVELS[level][1:]
        shapes |= {f'conv{level}_{index}': (channels, height, width) for index, channels in DECODER.items()}
        shapes[f'predict_flow{level}'] = (2, height, width)
        if level > 2:
            shapes |= {f'{name}{level}': (2, 2 * height, 2 * width) for name in ('deconv', 'upfeat')}
    return shapes | {f'dc_conv{index}': (channels, 48, 96) for index, channels in CONTEXT.items()}


def test_parameter_count() -> None:
    assert sum(parameter.numel() for parameter in PWCNet().parameters()) == 9_374_340


def test_state_dict_is_that_of_the_released_checkpoint() -> None:
    state = [(name, tuple(tensor.shape)) for name, tensor in PWCNet().state_dict().items()]
    assert state == expected_state()
    assert len(state) == 128


def test_shape_of_every_layer() -> None:
    network = PWCNet().eval()
    shapes = {}
    for name, module in network.named_children():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: shapes.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        flow = network(torch.rand(1, 3, 192, 384), torch.rand(1, 3, 192, 384))
    assert shapes == expected_shapes()  # deconv2 is not among them: nothing uses it
    assert flow.shape == (1, 2, 48, 96)


def test_cost_volume_against_loops() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 6, 7), torch.randn(2, 3, 6, 7)
    expected = np.zeros((2, 81, 6, 7))
    for batch, channel, y, x in np.ndindex(*expected.shape):
        i, j = y + channel // 9 - 4, x + channel % 9 - 4
        if 0 <= i < 6 and 0 <= j < 7:
            expected[batch, channel, y, x] = sum(float(a[batch, c, y, x] * b[batch, c, i, j]) for c in range(3)) / 3
    np.testing.assert_allclose(cost_volume(a, b).numpy(), expected, atol=1e-6)


def test_cost_volume_peaks_at_the_displacement() -> None:
    torch.manual_seed(0)
    a = torch.randn(1, 64, 12, 16)
    b = torch.roll(a, shifts=(-2, 3), dims=(2, 3))  # what is at (y, x) moves to (y - 2, x + 3)
    best = cost_volume(a, b)[0, :, 4:-4, 4:-4].argmax(0)
    assert (best == (4 - 2) * 9 + (4 + 3)).all()


def naive_warp(x: np.ndarray, flow: np.ndarray) -> np.ndarray:
    _, height, width = x.shape
    result = np.zeros_like(x)
    for row, column in np.ndindex(height, width):
        v, u = row + float(flow[1, row, column]), column + float(flow[0, row, column])
        if not (0 <= v <= height - 1 and 0 <= u <= width - 1):
            continue
        top, left = min(math.floor(v), height - 2), min(math.floor(u), width - 2)
        p, q = v - top, u - left
        result[:, row, column] = (1 - p) * ((1 - q) * x[:, top, left] + q * x[:, top, left + 1]) + p * (
            (1 - q) * x[:, top + 1, left] + q * x[:, top + 1, left + 1]
        )
    return result


def test_warp_against_loops() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 13)
    flow = torch.randn(2, 2, 9, 13) * 3
    expected = np.stack([naive_warp(x[i].double().numpy(), flow[i].double().numpy()) for i in range(2)])
    assert 0.1 < (expected == 0).mean() < 0.9  # both cases occur
    np.testing.assert_allclose(warp(x, flow).numpy(), expected, atol=1e-4)


def test_warp_by_whole_pixels_is_a_shift() -> None:
    x = torch.arange(20.0).view(1, 1, 4, 5) + 1
    flow = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 5)
    expected = torch.tensor([[0.0, 0, 0, 0, 0], [2, 3, 4, 5, 0], [7, 8, 9, 10, 0], [12, 13, 14, 15, 0]])
    warped = warp(x, flow)[0, 0]
    torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)
    assert torch.equal(warped == 0, expected == 0)


def test_warp_in_half_precision_looks_up_at_the_right_place() -> None:
    x = (torch.arange(512) % 7).half().view(1, 1, 1, 512).expand(1, 1, 4, 512)
    flow = torch.tensor([3.0, 0.0]).half().view(1, 2, 1, 1).expand(1, 2, 4, 512)
    warped = warp(x, flow)
    assert warped.dtype == torch.float16
    torch.testing.assert_close(warped[..., :509], x[..., 3:], atol=2e-3, rtol=0)


def test_output_equals_that_of_the_released_code(
    fill: Callable[[nn.Module, float], nn.Module], noise: Callable[..., Tensor]
) -> None:
    network = fill(PWCNet(), 2.0)
    with torch.no_grad():
        levels = network.decode_levels(
            network.pyramid(noise(2, 1, 3, 64, 128)), network.pyramid(noise(3, 1, 3, 64, 128))
        )
    # Top left, middle and bottom right of levels 2 to 6, as the authors' code gave them for the same weights.
    expected = [
        [(-0.14632, 0.34574), (-0.06709, -2.41007), (0.2083, -0.03535)],
        [(0.32108, -0.34601), (-0.45045, 0.60737), (-0.25948, 0.54439)],
        [(-0.12082, -0.1556), (1.47453, 0.42994), (0.65717, -0.29809)],
        [(0.46262, 0.10485), (-0.03389, -0.17703), (-0.10913, -0.1273)],
        [(-0.13011, 0.17462), (-0.15335, 0.14209), (-0.15335, 0.14209)],
    ]
    for flow, vectors in zip(levels, expected, strict=True):
        height, width = flow.shape[2:]
        for (row, column), vector in zip(((0, 0), (height // 2, width // 2), (-1, -1)), vectors, strict=True):
            assert flow[0, :, row, column].tolist() == pytest.approx(vector, abs=1e-4)


def test_pyramids_can_be_kept_and_batched(
    fill: Callable[[nn.Module, float], nn.Module], noise: Callable[..., Tensor]
) -> None:
    network = fill(PWCNet(), 2.0)
    assert isinstance(network, PWCNet)
    frames = [noise(seed, 1, 3, 64, 64) for seed in range(3)]
    with torch.no_grad():
        kept = [network.pyramid(frame) for frame in frames]
        assert [tuple(level.shape[1:]) for level in kept[0]] == [
            (16, 32, 32),
            (32, 16, 16),
            (64, 8, 8),
            (96, 4, 4),
            (128, 2, 2),
            (196, 1, 1),
        ]
        both = network.decode(
            [torch.cat(level) for level in zip(kept[0], kept[2], strict=True)],
            [torch.cat(level) for level in zip(kept[1], kept[1], strict=True)],
        )
        torch.testing.assert_close(both[:1], network(frames[0], frames[1]), atol=1e-4, rtol=0)
        torch.testing.assert_close(both[1:], network(frames[2], frames[1]), atol=1e-4, rtol=0)
        assert torch.equal(network.decode_levels(kept[0], kept[1])[0], network.decode(kept[0], kept[1]))


def test_every_layer_but_the_unused_one_is_trained() -> None:
    torch.manual_seed(0)
    network = PWCNet()
    image = torch.rand(1, 3, 64, 64)
    levels = network.decode_levels(network.pyramid(image), network.pyramid(image.flip(3)))
    sum(flow.square().sum() for flow in levels).backward()
    idle = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert idle == ['deconv2.weight', 'deconv2.bias']
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_exports_without_losing_anything() -> None:
    network = PWCNet().eval()
    a, b = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    exported = torch.export.export(network, (a, b)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(a, b), network(a, b))


@pytest.mark.parametrize(('height', 'width'), [(100, 128), (64, 65)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf'\({height}, {width}\).*multiples of 64'):
        PWCNet().pyramid(torch.zeros(1, 3, height, width))


def test_sizes_are_rounded_up() -> None:
    assert padded((64, 65)) == (64, 128)
    assert padded((1, 640)) == (64, 640)
