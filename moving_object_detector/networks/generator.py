"""The mask generator G of "Unsupervised Moving Object Detection via Contextual Information Separation".

Padding and resizing are TensorFlow 1's, so that the authors' checkpoints stay importable.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_CHANNELS: Final = 3
PAPERS_CHANNELS: Final = 32
"""Channels of the paper's first layer."""
BATCH_NORM_EPSILON: Final = 0.001
LOGIT_DIVISOR: Final = 10.0


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the zeros ``(before, after)`` that TensorFlow's ``SAME`` puts on either side of one dimension.

    The odd zero goes to the end, so an even ``size`` at stride 2 with a 3-tap kernel is padded ``(0, 1)``, where
    PyTorch's symmetric padding would give ``(1, 1)``.
    """
    output = -(-size // stride)
    total = max((output - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, dilation: int) -> tuple[Tensor, tuple[int, int]]:
    """Apply ``SAME`` padding only if it is asymmetric; return the (vertical, horizontal) padding still to do."""
    (top, bottom), (left, right) = (same_padding(length, kernel, stride, dilation) for length in x.shape[-2:])
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom)), (0, 0)


class SameConv2d(nn.Conv2d):
    """Square convolution with TensorFlow's ``SAME`` padding: (B, C, H, W) to H and W / stride, rounded up.

    Weights are initialised by Xavier, the bias is zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape (B, in_channels, H, W)."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve ``x`` with another weight and bias of the same shapes."""
        x, padding = pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        return functional.conv2d(x, weight, bias, self.stride, padding, self.dilation)


def repeat_twice(x: Tensor) -> Tensor:
    """Repeat each pixel, (B, C, H, W) to (B, C, 2H, 2W): TensorFlow's nearest neighbour with aligned corners."""
    return functional.interpolate(x, scale_factor=2.0, mode='nearest')


class ScaledConv(nn.Module):
    """Convolution, bias, learned scale and shift: a batch norm whose statistics the released code never updates."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(inputs, outputs, kernel, stride, dilation)
        self.gamma = nn.Parameter(torch.ones(outputs))
        self.beta = nn.Parameter(torch.zeros(outputs))

    @property
    def scale(self) -> Tensor:
        """The scale of each output channel, (outputs,)."""
        return self.gamma / math.sqrt(1.0 + BATCH_NORM_EPSILON)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the equivalent plain convolution."""
        scale = self.scale
        return self.conv.weight * scale[:, None, None, None], self.conv.bias * scale + self.beta  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride)), no activation."""
        # Scaling the weights instead of the outputs saves a fifth of a training step.
        return self.conv.convolve(x, *self.folded())

    def upsampled(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W) at stride 1: each pixel repeated twice, then convolved."""
        return self(repeat_twice(x))  # type: ignore[no-any-return]


class Generator(nn.Module):
    """Proposes the region that moves on its own: ``chi = G(I, u)`` (equation 9 of the paper).

    1,451,062 parameters with the paper's two channels of flow. The flow must have been prepared as the weights expect
    (flow/generator_input.py). The first layer has ``channels``, even, the deeper ones two and four times as many.
    """

    def __init__(self, flow_channels: int = 2, channels: int = PAPERS_CHANNELS) -> None:
        super().__init__()
        self.flow_channels, self.channels = flow_channels, channels
        one, two, four = channels, 2 * channels, 4 * channels
        self.conv1 = ScaledConv(IMAGE_CHANNELS + flow_channels, one, kernel=5)
        self.conv2 = ScaledConv(one, two, stride=2)
        self.conv3 = ScaledConv(two, two)
        self.conv4 = ScaledConv(two, four, stride=2)
        self.conv5 = ScaledConv(four, four)
        self.conv6 = ScaledConv(four, four)
        self.conv7 = ScaledConv(four, four, dilation=2)
        self.conv8 = ScaledConv(four, four, dilation=4)
        self.conv9 = ScaledConv(four, four, dilation=8)
        self.conv10 = ScaledConv(four, four, dilation=16)
        self.conv11 = ScaledConv(four, four)
        self.conv12 = ScaledConv(four, four)
        self.conv13 = ScaledConv(four, two)
        self.conv14 = ScaledConv(two, two)
        self.conv15 = ScaledConv(two, one)
        self.conv16 = ScaledConv(one, one // 2)
        self.conv17 = ScaledConv(one // 2, 2)

    def widened(self, flow_channels: int) -> Generator:
        """Return a copy that takes more channels of flow; the new ones have zero weights."""
        wider = Generator(flow_channels, self.channels)
        state = self.state_dict()
        first = state['conv1.conv.weight']
        state['conv1.conv.weight'] = functional.pad(first, (0, 0, 0, 0, 0, flow_channels - self.flow_channels))
        wider.load_state_dict(state)
        return wider

    def doubled(self) -> Generator:
        """Return a copy that takes the flow to two neighbours at half weight each; equal flows give the same mask."""
        double = Generator(2 * self.flow_channels, self.channels)
        state = self.state_dict()
        image, flow = state['conv1.conv.weight'].split((IMAGE_CHANNELS, self.flow_channels), 1)
        state['conv1.conv.weight'] = torch.cat((image, flow / 2, flow / 2), 1)
        double.load_state_dict(state)
        return double

    def logits(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return the two channels before the softmax, already divided by ten, (B, 2, H, W); 0 is "moves on its own".

        Takes what :meth:`forward` does; raises ValueError where H or W is not a multiple of 4.
        """
        if image.shape[-2] % 4 or image.shape[-1] % 4:
            raise ValueError(f'generator input is {tuple(image.shape[-2:])}; height and width must be multiples of 4')
        elu = functional.elu
        c1 = elu(self.conv1(torch.cat((image, flow), 1)))
        c3 = elu(self.conv3(elu(self.conv2(c1))))
        c6 = elu(self.conv6(elu(self.conv5(elu(self.conv4(c3))))))
        dilated = elu(self.conv10(elu(self.conv9(elu(self.conv8(elu(self.conv7(c6))))))))
        c12 = elu(self.conv12(elu(self.conv11(dilated)) + c6))
        c13 = elu(self.conv13.upsampled(c12))
        c14 = elu(self.conv14(c13)) + c3
        c15 = elu(self.conv15.upsampled(c14)) + c1
        return self.conv17(elu(self.conv16(c15))) / LOGIT_DIVISOR  # type: ignore[no-any-return]

    def mask_logits(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return the logits of the mask of :meth:`forward`, (B, 1, H, W), for losses."""
        logits = self.logits(image, flow).float()
        return logits[:, :1] - logits[:, 1:]

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Return the mask chi, (B, 1, H, W) in [0, 1], the probability of moving on its own.

        ``image`` is (B, 3, H, W), RGB in [-0.5, 0.5], H and W multiples of 4; ``flow`` (B, C, H, W), prepared (about
        unit variance).
        """
        return torch.softmax(self.logits(image, flow), 1)[:, :1]
