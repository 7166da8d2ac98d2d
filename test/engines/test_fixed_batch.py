from __future__ import annotations

import pytest
import torch

from moving_object_detector.engines.torch_engine import fixed_batch


class Recorder:
    """Doubles its rows and remembers how many there were."""

    def __init__(self):
        self.batches = []

    def __call__(self, first, second):
        self.batches.append(len(first))
        assert len(first) == len(second)
        return first * 2, second + 1


@pytest.mark.parametrize(('rows', 'batches'), [(4, [4]), (1, [4]), (3, [4]), (5, [4, 4]), (8, [4, 4]), (9, [4, 4, 4])])
def test_the_network_sees_its_own_batch_only(rows, batches):
    run = Recorder()
    first, second = torch.arange(rows * 3.0).view(rows, 3), torch.arange(rows * 1.0).view(rows, 1)
    outputs = fixed_batch(run, 4)(first, second)
    assert run.batches == batches
    assert torch.equal(outputs[0], first * 2)
    assert torch.equal(outputs[1], second + 1)


@pytest.mark.parametrize(
    ('rows', 'full', 'small'), [(1, [], [1]), (2, [], [2]), (3, [4], []), (4, [4], []), (6, [4], [2]), (7, [4, 4], [])]
)
def test_few_rows_go_another_way(rows, full, small):
    run, other = Recorder(), Recorder()
    first = torch.arange(rows * 2.0).view(rows, 2)
    outputs = fixed_batch(run, 4, other)(first, first)
    assert (run.batches, other.batches) == (full, small)
    assert torch.equal(outputs[0], first * 2)
    assert torch.equal(outputs[1], first + 1)
