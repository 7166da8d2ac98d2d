"""Padding and resizing as TensorFlow 1 does them, so that the authors' checkpoints stay importable."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Return the zeros that TensorFlow's ``SAME`` puts before and after one dimension.

    Args:
        size: Input length in pixels.
        kernel: Kernel length.
        stride: Stride of the convolution.
        dilation: Spacing of the kernel's taps.

    Returns:
        ``(before, after)``; the odd zero goes to the end, so an even input at stride 2 with a
        3-tap kernel is padded ``(0, 1)``, where PyTorch's symmetric padding would give ``(1, 1)``.

    """
    output = -(-size // stride)
    total = max((output - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Square convolution with bias and TensorFlow ``SAME`` zero padding.

    Maps ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` of shape (B, in_channels, H, W)."""
        kernel, stride, dilation = self.kernel_size[0], self.stride[0], self.dilation[0]
        top, bottom = same_padding(x.shape[-2], kernel, stride, dilation)
        left, right = same_padding(x.shape[-1], kernel, stride, dilation)
        if (top, left) == (bottom, right):
            return functional.conv2d(x, self.weight, self.bias, stride, (top, left), dilation)
        x = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(x, self.weight, self.bias, stride, 0, dilation)


def repeat_twice(x: Tensor) -> Tensor:
    """Double height and width by repeating each pixel, (B, C, H, W) to (B, C, 2H, 2W).

    At exactly twice the size this is what TensorFlow's nearest neighbour with aligned corners does.
    """
    return functional.interpolate(x, scale_factor=2.0, mode='nearest')


def resize_bilinear_tf1(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly as TensorFlow 1 does by default: source = target * scale, no half-pixel shift.

    Args:
        x: Feature map (B, C, H, W).
        size: Target (height, width) in pixels.

    Returns:
        (B, C, height, width).

    """
    if x.shape[-2:] == size:
        return x
    height, width = size
    # One more row and column: then PyTorch's aligned corners step by the same scale from the first pixel.
    padded = functional.pad(x, (0, 1, 0, 1), mode='replicate')
    grown = functional.interpolate(padded, (height + 1, width + 1), mode='bilinear', align_corners=True)
    return grown[..., :height, :width]
