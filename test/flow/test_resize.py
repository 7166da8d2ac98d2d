"""One rule for images, masks and flow, in the detector and in training, whatever holds the numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moving_object_detector.flow.base import resize_field, resize_flow, resize_maps
from moving_object_detector.media.frames import resize_image

SIZES = [(32, 64), (20, 30), (33, 70), (13, 100), (64, 128), (40, 70)]
"""Halved; by no whole number; one side shrinks; doubled; as it is."""


def test_flow_by_hand() -> None:
    flow = np.zeros((4, 6, 2), np.float32)
    flow[:2, :3] = ((8, 1), (2, 1), (2, 1)), ((8, 5), (2, 1), (2, 1))
    # Cells of 2 rows and 3 columns are averaged; u shrinks by 3, v by 2.
    expected = np.zeros((2, 2, 2))
    expected[0, 0] = (8 + 2 + 2 + 8 + 2 + 2) / 6 / 3, (1 + 1 + 1 + 5 + 1 + 1) / 6 / 2
    assert resize_field(flow, (2, 2)) == pytest.approx(expected)
    # A larger field has longer vectors: by 2.5 down and 1.5 across.
    constant = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 10, 20)
    larger = resize_flow(constant, (25, 30))
    assert larger.shape == (1, 2, 25, 30)
    assert larger[:, 0] == pytest.approx(4.5)
    assert larger[:, 1] == pytest.approx(-5.0)


@pytest.mark.parametrize('size', SIZES)
def test_a_field_a_batch_and_an_image_are_resized_alike(size: tuple[int, int]) -> None:
    flow = np.random.default_rng(1).normal(0, 5, (40, 70, 2)).astype(np.float32)
    batch = torch.from_numpy(flow).permute(2, 0, 1)[None].repeat(3, 1, 1, 1)
    found = resize_flow(batch, size)
    assert found.shape == (3, 2, *size)
    assert found[2].permute(1, 2, 0).numpy() == pytest.approx(resize_field(flow, size), abs=1e-4)
    scale = size[1] / 70, size[0] / 40
    assert resize_field(flow, size) == pytest.approx(resize_image(flow, size) * np.float32(scale), abs=1e-4)


@pytest.mark.parametrize('size', SIZES)
def test_where_there_is_no_opencv_it_is_the_same(size: tuple[int, int]) -> None:
    """What a GPU computes, on the CPU."""
    maps = torch.randn(2, 3, 40, 70, generator=torch.Generator().manual_seed(2))
    expected = resize_maps(maps, size)

    class OnGpu(torch.Tensor):
        device = torch.device('cuda')

    found = resize_maps(maps.as_subclass(OnGpu), size)
    assert found.as_subclass(torch.Tensor).numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_channels_behind_the_flow_are_no_lengths() -> None:
    flow = torch.ones(1, 5, 8, 8)
    assert resize_flow(flow, (4, 2))[0, :, 0, 0].tolist() == [0.25, 0.5, 1, 1, 1]


def test_parts_of_an_image_are_resized_where_they_lie() -> None:
    maps = torch.randn(1, 2, 30, 40)
    part = maps[..., 3:23, 5:35]
    assert torch.equal(resize_maps(part, (10, 15)), resize_maps(part.clone(), (10, 15)))
