"""RAFT-small: optical flow by recurrent look-ups in all-pairs correlations (Teed and Deng, ECCV 2020).

The small model of the paper: bottleneck encoders, look-up radius 3, one 3x3 GRU, bilinear upsampling.
Names of the parameters are those of the authors' release, whose weights load unchanged.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE: Final = 8  # input pixels per feature pixel
SMALLEST_INPUT: Final = 64  # pixels: below it the coarsest correlation level is empty
CORRELATION_LEVELS: Final = 4  # of the correlation pyramid
LOOKUP_RADIUS: Final = 3  # of a look-up, in pixels of each level
MATCHING: Final = 128  # channels
HIDDEN: Final = 96  # channels of the GRU's state
CONTEXT_CHANNELS: Final = 64  # channels of its constant input


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions, (B, inputs, H, W) to (B, outputs, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride, padding=1)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1)
        self.norm1, self.norm2, self.norm3 = norm(outputs // 4), norm(outputs // 4), norm(outputs)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, not negative."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        y = functional.relu(self.norm3(self.conv3(y)))
        return functional.relu(self.downsample(x) + y)


class Encoder(nn.Module):
    """Features at an eighth of the image, (B, 3, H, W) to (B, outputs, H/8, W/8)."""

    def __init__(self, outputs: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, padding=3)
        self.norm1 = norm(32)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1, norm), Bottleneck(32, 32, 1, norm))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2, norm), Bottleneck(64, 64, 1, norm))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2, norm), Bottleneck(96, 96, 1, norm))
        self.conv2 = nn.Conv2d(96, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Encode an image, RGB in [-1, 1]."""
        x = functional.relu(self.norm1(self.conv1(image)))
        return cast('Tensor', self.conv2(self.layer3(self.layer2(self.layer1(x)))))


class MotionEncoder(nn.Module):
    """Encodes correlations and the flow that they were looked up at, to (B, 82, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(CORRELATION_LEVELS * (2 * LOOKUP_RADIUS + 1) ** 2, 96, 1)
        self.convf1 = nn.Conv2d(2, 64, 7, padding=3)
        self.convf2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv = nn.Conv2d(128, 80, 3, padding=1)

    def forward(self, flow: Tensor, correlation: Tensor) -> Tensor:
        """Encode flow (B, 2, h, w) and correlations (B, 196, h, w); the last two channels are the flow."""
        c = functional.relu(self.convc1(correlation))
        f = functional.relu(self.convf2(functional.relu(self.convf1(flow))))
        return torch.cat((functional.relu(self.conv(torch.cat((c, f), 1))), flow), 1)


class ConvGru(nn.Module):
    """Gated recurrent unit with convolutions (equations 3 to 6 of the paper)."""

    def __init__(self, hidden: int, inputs: int) -> None:
        super().__init__()
        self.convz = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convr = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)
        self.convq = nn.Conv2d(hidden + inputs, hidden, 3, padding=1)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """Return the state after h (B, hidden, h, w) for the input x (B, inputs, h, w)."""
        hx = torch.cat((h, x), 1)
        z = self.convz(hx).sigmoid()
        r = self.convr(hx).sigmoid()
        q = self.convq(torch.cat((r * h, x), 1)).tanh()
        return cast('Tensor', (1 - z) * h + z * q)


class UpdateBlock(nn.Module):
    """One iteration: from state, context, correlations and flow to the next state and a flow update."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = ConvGru(HIDDEN, CONTEXT_CHANNELS + 82)
        first, last = nn.Conv2d(HIDDEN, 128, 3, padding=1), nn.Conv2d(128, 2, 3, padding=1)
        self.flow_head = nn.Sequential(OrderedDict(conv1=first, relu=nn.ReLU(), conv2=last))

    def forward(self, h: Tensor, context: Tensor, correlation: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new state (B, 96, h, w) and the flow update (B, 2, h, w), in pixels of the features."""
        h = self.gru(h, torch.cat((context, self.encoder(flow, correlation)), 1))
        return h, self.flow_head(h)


def correlation_pyramid(a: Tensor, b: Tensor) -> list[Tensor]:
    """Correlate every pixel of one image with every pixel of the other (equation 1 and section 3.2 of the paper).

    Features (B, C, h, w) give four levels (B, h w, h_l, w_l), each with half the sides of the last, rounded down:
    inner products with the means of ``b`` over 1, 2x2, 4x4 and 8x8 pixels, divided by the square root of C.
    """
    queries = a.flatten(2).transpose(1, 2) / math.sqrt(a.shape[1])
    levels = []
    for level in range(CORRELATION_LEVELS):
        # A mean of products is the product with the mean, which is cheaper.
        b = b if level == 0 else functional.avg_pool2d(b, 2)
        products = queries @ b.flatten(2)
        levels.append(products.unflatten(2, (b.shape[-2], b.shape[-1])))  # type: ignore[no-untyped-call]
    return levels


def look_up(pyramid: Sequence[Tensor], coordinates: Tensor) -> Tensor:
    """Sample each pixel's correlations around ``coordinates`` (B, 2, h, w): x, y in pixels of the second features.

    Channel 49 l + 7 i + j of the result, (B, 196, h, w), is level l, bilinearly, at ``(x, y) / 2**l + (i - 3, j - 3)``,
    zero outside. x varies slowest, as the released weights require.
    """
    batch, _, height, width = coordinates.shape
    centres = coordinates.permute(0, 2, 3, 1).reshape(-1, 2)
    steps = torch.arange(-LOOKUP_RADIUS, LOOKUP_RADIUS + 1, dtype=coordinates.dtype, device=coordinates.device)
    window = torch.stack(torch.meshgrid(steps, steps, indexing='ij'), -1)
    samples = len(steps) ** 2
    found = coordinates.new_empty(batch, len(pyramid), samples, height * width)
    for level, correlation in enumerate(pyramid):
        sides = coordinates.new_tensor((correlation.shape[-1], correlation.shape[-2]))
        # One matrix product for all grids: adding over a last dimension of two is several times slower on a CPU.
        scale = torch.diag(2 / (2**level * sides)).repeat(1, samples)
        grid = torch.addmm(((2 * window + 1) / sides - 1).flatten(), centres, scale).view(-1, *window.shape)
        sampled = functional.grid_sample(correlation.flatten(0, 1)[:, None], grid, align_corners=False)
        found[:, level] = sampled.view(batch, height * width, samples).mT
    return found.view(batch, -1, height, width)


def pixel_positions(like: Tensor) -> Tensor:
    """Return x and y of each pixel, (2, h, w), with size, type and device of a map (..., h, w)."""
    rows, columns = (torch.arange(length, dtype=like.dtype, device=like.device) for length in like.shape[-2:])
    y, x = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack((x, y))


def refine_flow(
    update: Callable[..., tuple[Tensor, ...]], pyramid: Sequence[Tensor], context: Tensor, flow: Tensor, iterations: int
) -> Tensor:
    """Refine a flow (B, 2, h, w), in pixels of the features, iteratively (section 3.3 of the paper).

    ``update`` computes an :class:`UpdateBlock`; ``context`` (B, 160, h, w) belongs to the source images.
    """
    h, context = context[:, :HIDDEN].tanh(), functional.relu(context[:, HIDDEN:])
    position = pixel_positions(flow)
    for _ in range(iterations):
        h, step = update(h, context, look_up(pyramid, position + flow), flow)
        flow = flow + step
    return flow


class RaftSmall(nn.Module):
    """Flow from image 1 to image 2; 990,162 parameters.

    For a stream of frames, compute each frame's :meth:`features` once for all its pairs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fnet = Encoder(MATCHING, nn.InstanceNorm2d)
        self.cnet = Encoder(HIDDEN + CONTEXT_CHANNELS, nn.Identity)
        self.update_block = UpdateBlock()

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return two features of images (B, 3, H, W), RGB in [-1, 1], sides multiples of 8, at least 64 (ValueError).

        Matching features (B, 128, H/8, W/8), correlated with the other image's, and context (B, 160, H/8, W/8), the
        GRU's initial state and constant input, used for the source image.
        """
        size = tuple(image.shape[-2:])
        if any(length % STRIDE or length < SMALLEST_INPUT for length in size):
            raise ValueError(f'RAFT-small input is {size}; height and width must be multiples of 8, at least 64')
        return self.fnet(image), self.cnet(image)

    def forward(self, image1: Tensor, image2: Tensor, iterations: int = 12) -> Tensor:
        """Return the flow from ``image1`` to ``image2`` (see :meth:`features`), (B, 2, H, W) in pixels."""
        (matching, context), (other, _) = self.features(image1), self.features(image2)
        start = torch.zeros_like(context[:, :2])
        return upsample(
            refine_flow(self.update_block, correlation_pyramid(matching, other), context, start, iterations)
        )


def upsample(flow: Tensor) -> Tensor:
    """Upsample flow from features to input, (B, 2, h, w) to (B, 2, 8h, 8w), each in its own pixels."""
    return STRIDE * functional.interpolate(flow, scale_factor=float(STRIDE), mode='bilinear', align_corners=True)
