"""Warp, cost volume and activation of PWC-Net as one Triton kernel.

Plain PyTorch writes the warped features and 81 products of all features to memory and reads them back. Here a program
looks up a stretch of one warped row, keeps it on the chip and multiplies it with the nine rows of the first image that
are within reach. The costs of one row with another are a band of their matrix product, nine wide, so tensor cores
compute the product and what lies beside the band is thrown away.

This module imports Triton, so it is only imported where the kernel is used.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moving_object_detector.networks import pwcnet

RADIUS = tl.constexpr(pwcnet.RADIUS)
SIDE = tl.constexpr(2 * pwcnet.RADIUS + 1)
SLOPE = tl.constexpr(pwcnet.LEAKY_SLOPE)
VALID = tl.constexpr(pwcnet.VALID)

TILE = 32
"""Pixels of the warped row that a program looks up; of any other row, 8 fewer have all their neighbours in it."""
SMALLEST_PRODUCT = 16
"""Of each side of the matrices that ``tl.dot`` takes."""
WIDE = 64
"""Channels beyond which a program has twice the threads, so that its operands stay in registers."""
STAGES = 2
"""Rows of the first image on their way at a time; three of 196 channels exceed the shared memory of many GPUs."""


# What is annotated int is not specialised for strides of 1, and loads would not be coalesced: tl.tensor is.
@triton.jit
def _tap(
    image: tl.tensor, y: tl.tensor, x: tl.tensor, weight: tl.tensor, in_use: tl.tensor,
    y_stride: tl.tensor, x_stride: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Return a corner of a bilinear look-up times its weight; one without weight is not read."""
    pixel = image + (y * y_stride + x * x_stride)[:, None]
    return tl.load(pixel, mask=(weight > 0.0)[:, None] & in_use, other=0.0).to(tl.float32) * weight[:, None]


@triton.jit
def _look_up(
    image: tl.tensor, flow: tl.tensor, row: tl.tensor, columns: tl.tensor, inside: tl.tensor, in_use: tl.tensor,
    height: tl.tensor, width: tl.tensor, y_stride: tl.tensor, x_stride: tl.tensor,
    flow_part: tl.tensor, flow_y: tl.tensor, flow_x: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """Return the warped features (tile, block) of pixels of one row, float32; zero where ``inside`` is not."""
    flow += row * flow_y + columns * flow_x
    # As grid_sample has it: where there is but one column or row, it is looked up whatever the flow.
    x = columns + tl.load(flow, mask=inside & (width > 1), other=0.0).to(tl.float32)
    y = row + tl.load(flow + flow_part, mask=inside & (height > 1), other=0.0).to(tl.float32)
    left, top = tl.floor(x), tl.floor(y)
    west = tl.where((left >= 0) & (left < width), left + 1 - x, 0.0)
    east = tl.where((left >= -1) & (left < width - 1), x - left, 0.0)
    north = tl.where((top >= 0) & (top < height), top + 1 - y, 0.0)
    south = tl.where((top >= -1) & (top < height - 1), y - top, 0.0)
    valid = inside & ((west + east) * (north + south) >= VALID)
    west, east = tl.where(valid, west, 0.0), tl.where(valid, east, 0.0)
    # Far outside, a coordinate is larger than an integer can be.
    left, top = tl.where(valid, left, 0.0).to(tl.int32), tl.where(valid, top, 0.0).to(tl.int32)
    warped = _tap(image, top, left, north * west, in_use, y_stride, x_stride)
    warped += _tap(image, top, left + 1, north * east, in_use, y_stride, x_stride)
    warped += _tap(image, top + 1, left, south * west, in_use, y_stride, x_stride)
    return warped + _tap(image, top + 1, left + 1, south * east, in_use, y_stride, x_stride)


@triton.jit
def _correlate(
    first: tl.tensor, second: tl.tensor, flow: tl.tensor, costs: tl.tensor, height: tl.tensor, width: tl.tensor,
    first_batch: tl.tensor, first_channel: tl.tensor, first_y: tl.tensor, first_x: tl.tensor,
    second_batch: tl.tensor, second_channel: tl.tensor, second_y: tl.tensor, second_x: tl.tensor,
    flow_batch: tl.tensor, flow_part: tl.tensor, flow_y: tl.tensor, flow_x: tl.tensor,
    costs_batch: tl.tensor, costs_channel: tl.tensor, costs_y: tl.tensor, costs_x: tl.tensor,
    channels: tl.constexpr, block: tl.constexpr, tile: tl.constexpr, precision: tl.constexpr,
) -> None:  # fmt: skip
    """Multiply a stretch of one row of the second image, warped, with the nine rows of the first that reach it.

    The grid is (stretches, height + 8, batch): rows above and below the image are zero, and give the costs of leaving.
    """
    batch = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) - RADIUS
    i = tl.arange(0, tile)
    pixels = tl.program_id(0) * (tile - 2 * RADIUS) + i
    columns = pixels - RADIUS
    channel = tl.arange(0, block)
    in_use = (channel < channels)[None, :]
    inside = (row >= 0) & (row < height) & (columns >= 0) & (columns < width)

    image = second + batch * second_batch + (channel * second_channel)[None, :]
    if flow is None:
        pixel = image + (row * second_y + columns * second_x)[:, None]
        warped = tl.load(pixel, mask=inside[:, None] & in_use, other=0.0)
    else:
        vectors = flow + batch * flow_batch
        warped = _look_up(
            image, vectors, row, columns, inside, in_use, height, width,
            second_y, second_x, flow_part, flow_y, flow_x,
        ).to(second.dtype.element_ty)  # fmt: skip

    # Warped pixel j is 4 columns left of pixel j, so for pixel i it is the one displaced by j - i - 4.
    dx = i[None, :] - i[:, None]
    complete = ((i < tile - 2 * RADIUS) & (pixels < width))[:, None]
    band = complete & (dx >= 0) & (dx < SIDE)
    first += batch * first_batch + (pixels * first_x)[:, None] + (channel * first_channel)[None, :]
    costs += batch * costs_batch + (pixels * costs_x)[:, None] + dx * costs_channel
    for dy in range(SIDE):
        y = row + RADIUS - dy
        reached = (y >= 0) & (y < height)
        features = tl.load(first + y * first_y, mask=complete & in_use & reached, other=0.0)
        cost = tl.dot(features, tl.trans(warped), input_precision=precision) * (1.0 / channels)
        cost = tl.where(cost >= 0, cost, cost * SLOPE)
        to = costs + y * costs_y + dy * SIDE * costs_channel
        tl.store(to, cost.to(costs.dtype.element_ty), mask=band & reached)


def correlate(first: Tensor, second: Tensor, flow: Tensor | None) -> Tensor:
    """Compute :func:`moving_object_detector.networks.pwcnet.correlate` by one launch of the kernel.

    Products are summed in float32; float32 features are multiplied in TF32 where PyTorch lets convolutions do so.
    Nothing is allocated but the result and nothing waits for the GPU, so that CUDA graphs can capture it. The kernel
    has no gradients: where they are asked for, PyTorch computes.

    Args:
        first: Features of the first image (B, C, H, W), float32, float16 or bfloat16, with any strides.
        second: Features of the second; same sizes and type.
        flow: From the first to the second (B, 2, H, W), of any floating type, in pixels of these features; None: no
            motion.

    Returns:
        (B, 81, H, W), of the type of the features; channels last where ``first`` is.

    Raises:
        ValueError: The inputs do not belong together, or are of another type.

    """
    inputs = (first, second) if flow is None else (first, second, flow)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return pwcnet.correlate(first, second, flow)
    batch, channels, height, width = first.shape
    sizes = [(batch, channels, height, width), (batch, channels, height, width), (batch, 2, height, width)]
    # The kernel reads memory by these sizes.
    if (
        any(tensor.shape != size or tensor.device != first.device for tensor, size in zip(inputs, sizes, strict=False))
        or first.dtype != second.dtype
        or first.dtype not in (torch.float32, torch.float16, torch.bfloat16)
    ):
        raise ValueError(
            'a cost volume takes two maps of features, alike in size, type (float32, float16, bfloat16) and device, '
            f'and a flow of their size; not {[(tuple(each.shape), each.dtype, str(each.device)) for each in inputs]}'
        )
    last = first.is_contiguous(memory_format=torch.channels_last)
    costs = torch.empty(
        (batch, (2 * pwcnet.RADIUS + 1) ** 2, height, width),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    grid = (triton.cdiv(width, TILE - 2 * pwcnet.RADIUS), height + 2 * pwcnet.RADIUS, batch)
    with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
        _correlate[grid](
            first, second, flow, costs, height, width,
            *first.stride(), *second.stride(), *(flow.stride() if flow is not None else (0,) * 4), *costs.stride(),
            channels=channels,
            block=max(SMALLEST_PRODUCT, triton.next_power_of_2(channels)),
            tile=TILE,
            precision='tf32' if torch.backends.cudnn.allow_tf32 else 'ieee',
            num_warps=4 if channels <= WIDE else 8,
            num_stages=STAGES,
        )  # fmt: skip
    return costs
