"""PWC-Net: optical flow by pyramid, warping and cost volume (Sun et al., CVPR 2018).

The variant with a densely connected decoder and a context network. Names and order of the parameters
are those of the authors' PyTorch release, whose checkpoint loads unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE: Final = 64  # pixels: height and width must be multiples of it
FLOW_DIVISOR: Final = 20.0  # output times this is flow in input pixels
LEAKY_SLOPE: Final = 0.1
COST_RADIUS: Final = 4  # of the cost volume, in pixels of a level
PYRAMID: Final = (16, 32, 64, 96, 128, 196)
DECODER: Final = (128, 128, 96, 64, 32)
CONTEXT_LAYERS: Final = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1))  # channels, dilation
VALID: Final = 0.9999


def padded(size: tuple[int, int]) -> tuple[int, int]:
    """Round ``size`` (height, width) up to what the network takes."""
    height, width = (-(-length // MULTIPLE) * MULTIPLE for length in size)
    return height, width


def cost_volume(a: Tensor, b: Tensor) -> Tensor:
    """Correlate features ``a`` with ``b`` displaced by up to four pixels each way (section 3 of the paper).

    Both are (B, C, H, W). Channel c of the result, (B, 81, H, W), is the mean over C of ``a(y, x) * b(y + c // 9 - 4, x
    + c % 9 - 4)``, where ``b`` is zero outside.
    """
    height, width = a.shape[-2], a.shape[-1]
    padded = functional.pad(b, (COST_RADIUS,) * 4)
    side = 2 * COST_RADIUS + 1
    return torch.cat(
        [
            (a * padded[:, :, dy : dy + height, dx : dx + width]).mean(1, keepdim=True)
            for dy in range(side)
            for dx in range(side)
        ],
        1,
    )


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Sample ``x`` (B, C, H, W) at ``position + flow``, bilinearly; positions even partly outside give zero.

    ``flow`` is (B, 2, H, W), u right and v down, in pixels of ``x``; the result has the type of ``x``.
    """
    batch, _, height, width = x.shape
    # Normalised coordinates in half precision would be off by a good part of a pixel.
    flow = flow.float()
    columns = torch.arange(width, dtype=torch.float32, device=x.device)
    rows = torch.arange(height, dtype=torch.float32, device=x.device)[:, None]
    grid = torch.stack(
        (
            (columns + flow[:, 0]) * (2.0 / max(width - 1, 1)) - 1.0,
            (rows + flow[:, 1]) * (2.0 / max(height - 1, 1)) - 1.0,
        ),
        -1,
    )
    sampled = functional.grid_sample(x.float(), grid, align_corners=True)
    ones = torch.ones((batch, 1, height, width), dtype=torch.float32, device=x.device)
    inside = functional.grid_sample(ones, grid, align_corners=True) >= VALID
    return (sampled * inside).to(x.dtype)


def _conv(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation),
        nn.LeakyReLU(LEAKY_SLOPE),
    )


class PWCNet(nn.Module):
    """Flow from image 1 to image 2; 9,374,340 parameters.

    For a stream of frames, compute each frame's pyramid once and decode it against several others.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for level, outputs in enumerate(PYRAMID, 1):
            for name in _pyramid_layers(level):
                stride = 1 if inputs == outputs else 2
                self.add_module(name, _conv(inputs, outputs, stride))
                inputs = outputs
        dense = 0
        for level in (6, 5, 4, 3, 2):
            # The coarsest level takes neither features nor a coarser flow.
            dense = (2 * COST_RADIUS + 1) ** 2 + (PYRAMID[level - 1] + 4 if level < len(PYRAMID) else 0)
            for index, outputs in enumerate(DECODER):
                self.add_module(f'conv{level}_{index}', _conv(dense, outputs))
                dense += outputs
            self.add_module(f'predict_flow{level}', nn.Conv2d(dense, 2, 3, padding=1))
            # deconv2 is unused; it only matches the checkpoint.
            self.add_module(f'deconv{level}', nn.ConvTranspose2d(2, 2, 4, 2, 1))
            if level > 2:
                self.add_module(f'upfeat{level}', nn.ConvTranspose2d(dense, 2, 4, 2, 1))
        for index, (outputs, dilation) in enumerate(CONTEXT_LAYERS, 1):
            self.add_module(f'dc_conv{index}', _conv(dense, outputs, dilation=dilation))
            dense = outputs
        self.dc_conv7 = nn.Conv2d(dense, 2, 3, padding=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def _apply_layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]

    def _cost_volume(self, a: Tensor, b: Tensor) -> Tensor:
        # Training overrides it.
        return cost_volume(a, b)

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Return the features of an image (B, 3, H, W), **BGR** in [0, 1].

        Six maps: (B, 16, H/2, W/2), (B, 32, H/4, W/4), (B, 64, H/8, W/8), (B, 96, H/16, W/16), (B, 128, H/32, W/32) and
        (B, 196, H/64, W/64). Raises ValueError where H or W is not a multiple of 64.
        """
        if image.shape[-2] % MULTIPLE or image.shape[-1] % MULTIPLE:
            raise ValueError(f'PWC-Net input is {tuple(image.shape[-2:])}; height and width must be multiples of 64')
        features = []
        x = image
        for level in range(1, len(PYRAMID) + 1):
            for name in _pyramid_layers(level):
                x = self._apply_layer(name, x)
            features.append(x)
        return features

    def decode_levels(self, pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor]) -> list[Tensor]:
        """Return the flow from image 1 to image 2 at every level, for the training loss, from their pyramids.

        Levels 2 to 6, (B, 2, H/4, W/4) to (B, 2, H/64, W/64), u right and v down, in units of 20 pixels of the full
        input.
        """
        flows: list[Tensor] = []
        x = self._dense(6, functional.leaky_relu(self._cost_volume(pyramid1[5], pyramid2[5]), LEAKY_SLOPE))
        flows.append(self._apply_layer('predict_flow6', x))
        for level in (5, 4, 3, 2):
            up_flow = self._apply_layer(f'deconv{level + 1}', flows[-1])
            up_features = self._apply_layer(f'upfeat{level + 1}', x)
            first = pyramid1[level - 1]
            # A pixel of a level spans 2**level input pixels.
            second = warp(pyramid2[level - 1], up_flow * (FLOW_DIVISOR / 2**level))
            cost = functional.leaky_relu(self._cost_volume(first, second), LEAKY_SLOPE)
            x = self._dense(level, torch.cat((cost, first, up_flow, up_features), 1))
            flows.append(self._apply_layer(f'predict_flow{level}', x))
        for index in range(1, len(CONTEXT_LAYERS) + 2):
            x = self._apply_layer(f'dc_conv{index}', x)
        flows[-1] = flows[-1] + x
        return flows[::-1]

    def _dense(self, level: int, x: Tensor) -> Tensor:
        for index in range(len(DECODER)):
            x = torch.cat((self._apply_layer(f'conv{level}_{index}', x), x), 1)
        return x

    def decode(self, pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor]) -> Tensor:
        """Return the finest of :meth:`decode_levels`, (B, 2, H/4, W/4)."""
        return self.decode_levels(pyramid1, pyramid2)[0]

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        """Return the flow from ``image1`` to ``image2``, see :meth:`pyramid` and :meth:`decode`."""
        return self.decode(self.pyramid(image1), self.pyramid(image2))


def _pyramid_layers(level: int) -> tuple[str, str, str]:
    # The release swaps the first two names of level 6.
    first, second = ('aa', 'a') if level == len(PYRAMID) else ('a', 'aa')
    return f'conv{level}{first}', f'conv{level}{second}', f'conv{level}b'
