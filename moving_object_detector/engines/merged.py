"""The generator's upsampling merged into the convolutions behind it: the same masks from fewer products.

A 3x3 convolution of an image whose pixels are repeated twice sees only 2x2 different pixels, so it is a transposed
convolution of the small image: 4x4 taps at stride 2, and 4 products for each output in place of 9. The two layers
where the generator upsamples are a quarter of its work.
"""

from __future__ import annotations

import copy
import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.networks.generator import BATCH_NORM_EPSILON, Generator, ScaledConv

UPSAMPLING: Final = ('conv13', 'conv15')
SPREAD: Final = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Which of the three taps add up in each of the four along one dimension."""


class MergedConv(nn.Module):
    """What :meth:`ScaledConv.upsampled` computes, in one transposed convolution.

    Args:
        layer: 3x3, stride 1, no dilation.

    """

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ScaledConv) -> None:
        super().__init__()
        conv = layer.conv
        assert conv.bias is not None
        assert (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        scale = layer.gamma.detach() / math.sqrt(1.0 + BATCH_NORM_EPSILON)
        spread = torch.tensor(SPREAD, device=scale.device, dtype=torch.float64)
        weight = torch.einsum('oiyx,my,nx->iomn', conv.weight.detach().double(), spread, spread)
        self.register_buffer('weight', weight.to(scale.dtype) * scale[:, None, None])
        self.register_buffer('bias', conv.bias.detach() * scale + layer.beta.detach())

    def upsampled(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W)."""
        return functional.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


def merge_upsampling(generator: Generator) -> Generator:
    """Return a copy of the generator that computes the same with fewer products; for inference alone."""
    result = copy.deepcopy(generator)
    for name in UPSAMPLING:
        setattr(result, name, MergedConv(getattr(generator, name)))
    return result.eval()
