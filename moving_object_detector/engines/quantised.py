"""The generator in 8-bit integers.

Each quantised layer rounds its input to 256 levels between 0-aligned bounds, and its weights to 255 levels for each
output channel; OpenVINO turns such a layer into one convolution of integers. The channels of an input differ up to a
hundredfold in range, so each is first divided by a factor that its weights are multiplied by (SmoothQuant, Xiao et
al. 2023, equation 4, migration strength one half); the factors cost nothing, as they merge with the rounding.

The first layer, whose input is image and flow, and the two narrow last ones stay in floating point: they are where
rounding harms most and cost little.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.networks.generator import BATCH_NORM_EPSILON, Generator, ScaledConv
from moving_object_detector.networks.layers import repeat_twice, same_padding

FLOATING: Final = ('conv1', 'conv16', 'conv17')
"""Layers that are not quantised."""
TYPICAL: Final = 0.9
"""Quantile over samples of a channel's extremes that is taken for its bounds: rarer ones would coarsen all others."""
ACTIVATION_LEVELS: Final = 255
WEIGHT_LEVELS: Final = 127
SMALLEST: Final = 1e-6
"""Bounds, weights and factors of dead channels are taken for this."""

Ranges = Mapping[str, Tensor]
"""For each quantised layer (2, channels): lowest and highest value of each input channel, float32."""


def quantised_layers(generator: Generator) -> dict[str, ScaledConv]:
    """Return the layers that are quantised, by name."""
    return {
        name: layer
        for name, layer in generator.named_children()
        if isinstance(layer, ScaledConv) and name not in FLOATING
    }


@torch.inference_mode()
def measure_ranges(generator: Generator, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Run the generator in float32 and note what its layers get.

    Args:
        generator: With its weights loaded, on the CPU.
        batches: Images (B, 3, H, W) and prepared flows (B, 2, H, W), as the detector gives them.

    Returns:
        As :data:`Ranges`.

    Raises:
        ValueError: There is no batch.

    """
    extremes: dict[str, list[Tensor]] = {name: [] for name in quantised_layers(generator)}

    def note(name: str, x: Tensor) -> None:
        extremes[name].append(torch.stack((x.amin((2, 3)), x.amax((2, 3)))))

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, layer in quantised_layers(generator).items()
    ]
    try:
        for image, flow in batches:
            generator(image, flow)
    finally:
        for hook in hooks:
            hook.remove()
    if not all(extremes.values()):
        raise ValueError('no samples to measure ranges on')
    rows = {name: torch.cat(found, 1) for name, found in extremes.items()}
    # Zero is always within, since it is what the padding holds.
    return {
        name: torch.stack(
            (found[0].quantile(1.0 - TYPICAL, 0).clamp_max(0.0), found[1].quantile(TYPICAL, 0).clamp_min(0.0))
        )
        for name, found in rows.items()
    }


def quantise(generator: Generator, ranges: Ranges) -> Generator:
    """Return a copy of the generator whose layers round as integers do; in PyTorch it computes in float32.

    Args:
        generator: With its weights loaded.
        ranges: Of its layers' inputs.

    """
    result = copy.deepcopy(generator)
    for name, layer in quantised_layers(generator).items():
        setattr(result, name, QuantisedConv(layer, ranges[name]))
    return result.eval()


class QuantisedConv(nn.Module):
    """What :class:`ScaledConv` computes, with input and weights rounded as 8-bit integers.

    Args:
        layer: The layer in floating point.
        bounds: (2, channels): lowest and highest value of each input channel.

    """

    inverse: Tensor
    weight: Tensor
    bias: Tensor
    weight_step: Tensor
    weight_zero: Tensor

    def __init__(self, layer: ScaledConv, bounds: Tensor) -> None:
        super().__init__()
        conv = layer.conv
        assert conv.bias is not None
        self._kernel, self._stride, self._dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
        scale = layer.gamma.detach() / math.sqrt(1.0 + BATCH_NORM_EPSILON)
        weight = conv.weight.detach() * scale[:, None, None, None]
        largest = weight.abs().amax((0, 2, 3)).clamp_min(SMALLEST)
        factor = (bounds.abs().amax(0).clamp_min(SMALLEST) / largest).sqrt()
        weight = weight * factor[:, None, None]
        lowest, highest = (bounds[0] / factor).min().item(), (bounds[1] / factor).max().item()
        self._step = max((highest - lowest) / ACTIVATION_LEVELS, SMALLEST)
        self._zero = min(round(-lowest / self._step), ACTIVATION_LEVELS)
        step = (weight.abs().amax((1, 2, 3)) / WEIGHT_LEVELS).clamp_min(SMALLEST)
        # Not used again, but what tells one quantised network from another has all its numbers.
        self.register_buffer('bounds', bounds)
        self.register_buffer('inverse', (1.0 / factor)[:, None, None])
        self.register_buffer('weight', weight)
        self.register_buffer('bias', conv.bias.detach() * scale + layer.beta.detach())
        self.register_buffer('weight_step', step)
        self.register_buffer('weight_zero', torch.zeros(len(step), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)), no activation."""
        top, bottom = same_padding(x.shape[-2], self._kernel, self._stride, self._dilation)
        left, right = same_padding(x.shape[-1], self._kernel, self._stride, self._dilation)
        padding = (top, left)
        if padding != (bottom, right):
            # Before the rounding: OpenVINO has no integer convolution behind a padding.
            x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
        x = torch.fake_quantize_per_tensor_affine(x * self.inverse, self._step, self._zero, 0, ACTIVATION_LEVELS)
        # Rounded here and not before: OpenVINO must see that these are integers.
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_step, self.weight_zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )
        return functional.conv2d(x, weight, self.bias, self._stride, padding, self._dilation)

    def upsampled(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W) at stride 1: each pixel repeated twice, then convolved."""
        return self(repeat_twice(x))  # type: ignore[no-any-return]
