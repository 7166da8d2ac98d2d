from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.training.flow_training import SHARPNESS, matching_loss

SIZE = (64, 128)


def pyramids(features):
    """The same features at levels 1 to 6 of a frame of SIZE, made by ``features(level, height, width)``."""
    return [features(level, SIZE[0] >> level, SIZE[1] >> level) for level in range(1, 7)]


def everywhere():
    return torch.ones(1, 1, *SIZE, dtype=torch.bool)


def naive(first, second, displacement):
    """The cross entropy of one frame's features against the other's, cell by cell."""
    total = []
    _, height, width = first.shape
    for row in range(height):
        for column in range(width):
            cosines = np.zeros((9, 9))
            for dy in range(-4, 5):
                for dx in range(-4, 5):
                    if 0 <= row + dy < height and 0 <= column + dx < width:
                        a, b = first[:, row, column], second[:, row + dy, column + dx]
                        cosines[dy + 4, dx + 4] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            logs = SHARPNESS * cosines - math.log(np.exp(SHARPNESS * cosines).sum())
            dx, dy = displacement
            x, y = math.floor(dx), math.floor(dy)
            fx, fy = dx - x, dy - y
            corners = ((x, y, (1 - fx) * (1 - fy)), (x + 1, y, fx * (1 - fy)), (x, y + 1, (1 - fx) * fy))
            corners += ((x + 1, y + 1, fx * fy),)
            total.append(-sum(w * logs[v + 4, u + 4] for u, v, w in corners if w))
    return np.mean(total)


@pytest.mark.parametrize('shift', [(0.0, 0.0), (6.0, -3.0), (-5.0, 11.0)])
def test_equals_the_entropy_computed_cell_by_cell(shift):
    torch.manual_seed(3)
    one = pyramids(lambda level, h, w: torch.randn(1, 6, h, w))
    other = pyramids(lambda level, h, w: torch.randn(1, 6, h, w))
    flow = torch.tensor(shift)[None, :, None, None].expand(1, 2, *SIZE)
    expected = [
        naive(one[level - 1][0].double().numpy(), other[level - 1][0].double().numpy(), np.array(shift) / 2**level)
        for level in (2, 3, 4)
    ]
    assert matching_loss(one, other, flow, everywhere()).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_is_the_logarithm_of_81_where_all_features_are_alike():
    flat = pyramids(lambda level, h, w: torch.ones(1, 4, h + 8, w + 8))
    # Away from the border, where the volume has no neighbours: a frame of which only the middle counts.
    seen = torch.zeros(1, 1, 512, 512, dtype=torch.bool)
    seen[..., 192:320, 192:320] = True
    flat = [torch.ones(1, 4, 512 >> level, 512 >> level) for level in range(1, 7)]
    loss = matching_loss(flat, flat, torch.zeros(1, 2, 512, 512), seen)
    assert loss.item() == pytest.approx(math.log(81), abs=1e-5)


def test_features_that_move_with_the_flow_match_best():
    torch.manual_seed(5)
    base = torch.randn(1, 16, 16, 32)
    levels = [torch.randn(1, 16, SIZE[0] >> level, SIZE[1] >> level) for level in range(1, 7)]
    one, other = list(levels), list(levels)
    one[1], other[1] = base, base.roll((1, 2), (2, 3))
    right = torch.tensor([8.0, 4.0])[None, :, None, None].expand(1, 2, *SIZE)
    wrong = -right
    inner = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    inner[..., 8:48, 8:96] = True
    assert matching_loss(one, other, right, inner) < matching_loss(one, other, wrong, inner) - 1


def test_points_out_of_view_and_beyond_the_volume_do_not_count():
    torch.manual_seed(6)
    one = pyramids(lambda level, h, w: torch.randn(1, 6, h, w))
    other = pyramids(lambda level, h, w: torch.randn(1, 6, h, w))
    flow = torch.zeros(1, 2, *SIZE)
    half = everywhere()
    half[..., 64:] = False
    before = matching_loss(one, other, flow, half)
    changed = flow.clone()
    changed[..., 64:] = 30.0
    assert matching_loss(one, other, changed, half) == before
    assert matching_loss(one, other, torch.full_like(flow, 500.0), everywhere()) == 0


def test_pulls_features_of_the_same_point_together():
    torch.manual_seed(7)
    network = PWCNet()
    image = torch.rand(1, 3, *SIZE)
    moved = image.roll(4, 3)
    flow = torch.tensor([4.0, 0.0])[None, :, None, None].expand(1, 2, *SIZE)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        loss = matching_loss(network.pyramid(image), network.pyramid(moved), flow, everywhere())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
