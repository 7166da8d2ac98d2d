import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from moving_object_detector.training.flow_training import end_point_error, multi_scale_error, one_cycle


def test_end_point_error_by_hand():
    flow = torch.zeros(1, 2, 1, 3, requires_grad=True)
    truth = torch.tensor([[[[3.0, 0.0, -1.0]], [[4.0, 0.0, 0.0]]]])
    error = end_point_error(flow, truth)
    assert error[0, 0, 0].tolist() == pytest.approx([5.0, 0.0, 1.0], abs=1e-5)
    error.sum().backward()
    # Also where the error is 0 there is a gradient, which is 0.
    assert flow.grad[0, :, 0, 0].tolist() == pytest.approx([-0.6, -0.8])
    assert flow.grad[0, :, 0, 1].tolist() == [0.0, 0.0]


def test_multi_scale_error_by_hand():
    """Constant truth (20, 0), which is (1, 0) to the network; level l is off by l in v."""
    truth = torch.zeros(2, 2, 128, 64)
    truth[:, 0] = 20.0
    levels = []
    for level in range(2, 7):
        flow = torch.zeros(2, 2, 128 // 2**level, 64 // 2**level)
        flow[:, 0], flow[:, 1] = 1.0, float(level)
        levels.append(flow)
    expected = 1.28 * 2 + 0.64 * 3 + 0.32 * (4 + 5 + 6)
    assert float(multi_scale_error(levels, truth)) == pytest.approx(expected, rel=1e-5)


def test_multi_scale_error_naively():
    generator = torch.Generator().manual_seed(3)
    truth = 30 * torch.randn(2, 2, 64, 128, generator=generator)
    levels = [torch.randn(2, 2, 64 // 2**level, 128 // 2**level, generator=generator) for level in range(2, 7)]
    total = 0.0
    for level, weight, flow in zip(range(2, 7), (1.28, 0.64, 0.32, 0.32, 0.32), levels, strict=True):
        side, errors = 2**level, []
        for b in range(2):
            for y in range(flow.shape[2]):
                for x in range(flow.shape[3]):
                    cell = truth[b, :, y * side : (y + 1) * side, x * side : (x + 1) * side].mean((1, 2)) / 20
                    errors.append(math.dist(cell.tolist(), flow[b, :, y, x].tolist()))
        total += weight * sum(errors) / len(errors)
    assert float(multi_scale_error(levels, truth)) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize('steps', [40, 100, 1333])
def test_one_cycle_is_pytorchs(steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], 1.0)
    scheduler = OneCycleLR(optimiser, 4e-4, steps, pct_start=0.05, anneal_strategy='linear', cycle_momentum=False)
    for step in range(steps):
        assert one_cycle(step, steps, 4e-4) == pytest.approx(optimiser.param_groups[0]['lr'], rel=1e-9, abs=1e-15)
        optimiser.step()
        if step + 1 < steps:
            scheduler.step()


@pytest.mark.parametrize('steps', [1, 2, 3, 20])
def test_one_cycle_of_short_runs(steps):
    rates = [one_cycle(step, steps, 1.0) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
