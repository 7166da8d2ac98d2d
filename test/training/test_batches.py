from __future__ import annotations

import pytest
from toys import Numbers

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.setup import Processes, Setup


def items(first, steps, batch, group, workers=0):
    return [batch.tolist() for batch in Setup(group, workers=workers).batches(Numbers(), first, steps, batch)]


def test_a_batch_is_a_function_of_the_step():
    assert items(0, 3, 4, Processes()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert items(2, 3, 4, Processes()) == [[8, 9, 10, 11]]
    assert items(3, 3, 4, Processes()) == []


def test_processes_share_a_batch_without_overlap():
    parts = [items(5, 7, 6, Processes(rank, 3)) for rank in range(3)]
    together = [sorted(part for parts_of_step in step for part in parts_of_step) for step in zip(*parts, strict=True)]
    assert together == items(5, 7, 6, Processes())


@pytest.mark.parametrize('rank', [0, 1, 2, 3])
def test_a_batch_that_cannot_be_shared_is_told_in_every_process(rank):
    with pytest.raises(UserError, match=r'batch of 6 .* 4 processes'):
        Setup(Processes(rank, 4)).batches(Numbers(), 0, 3, 6)


def test_worker_processes_bring_the_same_in_the_same_order():
    assert items(1, 6, 2, Processes(1, 2), workers=2) == items(1, 6, 2, Processes(1, 2))
