"""Padding and resizing as TensorFlow 1 does them, so that the authors' checkpoints stay importable."""

from __future__ import annotations

import torch
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


def _corner_aligned_indices(size: int, target: int, device: torch.device) -> Tensor:
    scale = (size - 1) / max(target - 1, 1)
    positions = torch.arange(target, dtype=torch.float32, device=device) * scale
    return torch.floor(positions + 0.5).long().clamp_(max=size - 1)


def resize_nearest_corners(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by nearest neighbour with aligned corners (``resize_nearest_neighbor(align_corners=True)``).

    Args:
        x: Feature map (B, C, H, W).
        size: Target (height, width) in pixels.

    Returns:
        (B, C, height, width); output pixel i is input pixel ``round(i * (n - 1) / (m - 1))``.

    """
    rows = _corner_aligned_indices(x.shape[-2], size[0], x.device)
    columns = _corner_aligned_indices(x.shape[-1], size[1], x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def _interpolate_linear(x: Tensor, dim: int, target: int) -> Tensor:
    size = x.shape[dim]
    if size == target:
        return x
    positions = torch.arange(target, dtype=torch.float32, device=x.device) * (size / target)
    lower = positions.floor().long().clamp_(max=size - 1)
    upper = (lower + 1).clamp_(max=size - 1)
    shape = [1] * x.dim()
    shape[dim] = target
    fraction = (positions - lower).view(shape).to(x.dtype)
    below, above = x.index_select(dim, lower), x.index_select(dim, upper)
    return below + (above - below) * fraction


def resize_bilinear_tf1(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly as TensorFlow 1 does by default: source = target * scale, no half-pixel shift.

    Args:
        x: Feature map (B, C, H, W).
        size: Target (height, width) in pixels.

    Returns:
        (B, C, height, width).

    """
    dims = x.dim()
    return _interpolate_linear(_interpolate_linear(x, dims - 2, size[0]), dims - 1, size[1])
