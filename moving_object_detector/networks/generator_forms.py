"""Forms of the generator for inference: upsampling merged into convolutions, and 8-bit quantisation with its ranges.

**Merged**: a 3x3 convolution of an image whose pixels are repeated twice sees only 2x2 different pixels, so it is a
transposed convolution of the small image: 4x4 taps at stride 2, and 4 products for each output in place of 9. The two
layers where the generator upsamples are a quarter of its work.

**Quantised**: each layer rounds its input to 256 levels between 0-aligned bounds, and its weights to 255 levels for
each output channel; OpenVINO turns such a layer into one convolution of integers. The channels of an input differ up
to a hundredfold in range, so each is first divided by a factor that its weights are multiplied by (SmoothQuant, Xiao
et al. 2023, equation 4, migration strength one half); the factors cost nothing, as they merge with the rounding. The
first layer, whose input is image and flow, and the two narrow last ones stay in floating point: rounding harms most
there, and they cost little.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.common.errors import ModelError
from moving_object_detector.networks.generator import Generator, ScaledConv, pad_same, repeat_twice
from moving_object_detector.networks.weights import read_tensors, weights_hash, write_tensors

UPSAMPLING: Final = ('conv13', 'conv15')
SPREAD: Final = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Along one dimension, which of the three taps each of the four sums."""
FLOATING: Final = ('conv1', 'conv16', 'conv17')
"""Layers that are not quantised."""
TYPICAL: Final = 0.9
"""Quantile of a channel's extremes over samples that bounds it: rarer values would coarsen all others."""
ACTIVATION_LEVELS: Final = 255
WEIGHT_LEVELS: Final = 127
SMALLEST: Final = 1e-6
"""Lower limit of bounds, weights and steps, for dead channels."""

Ranges = Mapping[str, Tensor]
"""For each quantised layer (2, channels): lowest and highest value of each input channel, float32."""
RANGES_FORMAT: Final = '1'
KIND: Final = 'int8 ranges'
REMEDY: Final = 'run quantise on the model, or set precision to auto'


class MergedConv(nn.Module):
    """:meth:`ScaledConv.upsampled` as one transposed convolution; 3x3, stride 1, no dilation."""

    @torch.no_grad()
    def __init__(self, layer: ScaledConv) -> None:
        super().__init__()
        scale = layer.scale
        spread = torch.tensor(SPREAD, device=scale.device, dtype=torch.float64)
        weight = torch.einsum('oiyx,my,nx->iomn', layer.conv.weight.double(), spread, spread)
        self.weight = nn.Buffer(weight.to(scale.dtype) * scale[:, None, None])
        self.bias = nn.Buffer(layer.folded()[1])

    def upsampled(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        return functional.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


def merge_upsampling(generator: Generator) -> Generator:
    """Return an equivalent copy of the generator with fewer multiplications; for inference only."""
    result = copy.deepcopy(generator)
    for name in UPSAMPLING:
        setattr(result, name, MergedConv(getattr(generator, name)))
    return result.eval()


def quantised_layers(generator: Generator) -> dict[str, ScaledConv]:
    """Return the layers that are quantised, by name."""
    return {
        name: layer
        for name, layer in generator.named_children()
        if isinstance(layer, ScaledConv) and name not in FLOATING
    }


@torch.inference_mode()
def measure_ranges(generator: Generator, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Run the generator in float32 on the CPU and return the :data:`Ranges` of its layers' inputs.

    Batches are images (B, 3, H, W) and prepared flows (B, C, H, W), as the detector gives them; ValueError without any.
    """
    watched = copy.deepcopy(generator)
    extremes: dict[str, list[Tensor]] = {name: [] for name in quantised_layers(watched)}

    def note(name: str, x: Tensor) -> None:
        extremes[name].append(torch.stack((x.amin((2, 3)), x.amax((2, 3)))))

    for name, layer in quantised_layers(watched).items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
    for image, flow in batches:
        watched(image, flow)
    if not all(extremes.values()):
        raise ValueError('no samples to measure ranges on')
    ranges = {}
    for name, found in extremes.items():
        low, high = torch.cat(found, 1)
        # Zero is always included, since padding holds it.
        bounds = low.quantile(1.0 - TYPICAL, 0).clamp_max(0.0), high.quantile(TYPICAL, 0).clamp_min(0.0)
        ranges[name] = torch.stack(bounds)
    return ranges


def quantise(generator: Generator, ranges: Ranges) -> Generator:
    """Return a copy of the generator that rounds to 8-bit levels; PyTorch computes it in float32."""
    result = copy.deepcopy(generator)
    for name, layer in quantised_layers(generator).items():
        setattr(result, name, QuantisedConv(layer, ranges[name]))
    return result.eval()


class QuantisedConv(nn.Module):
    """A :class:`ScaledConv` with input and weights rounded to 8-bit levels.

    ``bounds`` (2, channels) are the lowest and highest value of each input channel.
    """

    @torch.no_grad()
    def __init__(self, layer: ScaledConv, bounds: Tensor) -> None:
        super().__init__()
        conv = layer.conv
        self._kernel, self._stride, self._dilation = conv.kernel_size[0], conv.stride[0], conv.dilation[0]
        weight, bias = layer.folded()
        largest = weight.abs().amax((0, 2, 3)).clamp_min(SMALLEST)
        factor = (bounds.abs().amax(0).clamp_min(SMALLEST) / largest).sqrt()
        weight = weight * factor[:, None, None]
        lowest, highest = (bounds[0] / factor).min().item(), (bounds[1] / factor).max().item()
        self._step = max((highest - lowest) / ACTIVATION_LEVELS, SMALLEST)
        self._zero = min(round(-lowest / self._step), ACTIVATION_LEVELS)
        step = (weight.abs().amax((1, 2, 3)) / WEIGHT_LEVELS).clamp_min(SMALLEST)
        self.inverse = nn.Buffer((1.0 / factor)[:, None, None])
        self.weight, self.bias = nn.Buffer(weight), nn.Buffer(bias)
        self.weight_step, self.weight_zero = nn.Buffer(step), nn.Buffer(torch.zeros(len(step), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)), no activation."""
        # Pad before rounding: OpenVINO runs no integer convolution after a padding.
        x, padding = pad_same(x, self._kernel, self._stride, self._dilation)
        x = torch.fake_quantize_per_tensor_affine(x * self.inverse, self._step, self._zero, 0, ACTIVATION_LEVELS)
        # Rounded here, not in advance, so that OpenVINO recognises integers.
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.weight_step, self.weight_zero, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )
        return functional.conv2d(x, weight, self.bias, self._stride, padding, self._dilation)

    def upsampled(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W) at stride 1: each pixel repeated twice, then convolved."""
        return self(repeat_twice(x))  # type: ignore[no-any-return]


def ranges_path(model: Path) -> Path:
    """Return the path of a model file's ranges: NAME-int8.safetensors next to NAME.safetensors."""
    return model.with_name(f'{model.stem}-int8{model.suffix}')


def save_ranges(path: Path, generator: Generator, ranges: Ranges, metadata: Mapping[str, str]) -> None:
    """Write ranges, valid for this generator's weights only, with metadata on how they were measured."""
    header = {**metadata, 'format': RANGES_FORMAT, 'kind': KIND, 'weights': weights_hash(generator.state_dict())}
    write_tensors(path, {name: bounds.contiguous() for name, bounds in ranges.items()}, header)


def load_ranges(path: Path, generator: Generator) -> dict[str, Tensor]:
    """Read a file of :func:`save_ranges`; ModelError if it is missing, damaged or for other weights."""
    if not path.is_file():
        raise ModelError(f'{path}: is missing; precision int8 needs the ranges of the model: {REMEDY}')
    ranges, metadata = read_tensors(path, _check_kind)
    if metadata.get('weights') != weights_hash(generator.state_dict()):
        raise ModelError(f'{path}: was measured on other weights than the model has; {REMEDY}')
    layers = quantised_layers(generator)
    expected = {name: ((2, layer.conv.in_channels), torch.float32) for name, layer in layers.items()}
    if {name: (tuple(bounds.shape), bounds.dtype) for name, bounds in ranges.items()} != expected:
        raise ModelError(f'{path}: its tensors are not those of the generator; {REMEDY}')
    for bounds in ranges.values():
        if not bounds.isfinite().all() or (bounds[0] > 0).any() or (bounds[1] < 0).any():
            raise ModelError(f'{path}: its ranges are not finite or leave out zero; {REMEDY}')
    return ranges


def _check_kind(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get('kind') != KIND or metadata.get('format') != RANGES_FORMAT:
        raise ModelError(f'{path}: holds no int8 ranges of this version; {REMEDY}')
