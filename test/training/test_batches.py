from __future__ import annotations

import pytest
import torch
from toys import Numbers

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.config import RunConfig
from moving_object_detector.training.setup import Setup, session


def items(first, steps, batch, workers=0):
    return [
        batch.tolist() for batch in Setup(workers=workers).batches(Numbers().__getitem__, range(first, steps), batch)
    ]


def test_a_batch_is_a_function_of_the_step():
    assert items(0, 3, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert items(2, 3, 4) == [[8, 9, 10, 11]]
    assert items(3, 3, 4) == []


def test_worker_processes_bring_the_same_in_the_same_order():
    assert items(1, 6, 2, workers=2) == items(1, 6, 2)


def test_images_and_maps_go_channels_last_and_stay_what_they_are():
    batch = [torch.randn(2, 3, 4, 5), torch.tensor([[1, 2, 3]])]
    image, numbers = Setup().sent(batch)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(image, batch[0])
    assert torch.equal(numbers, batch[1])


@pytest.mark.parametrize('name', ['gpu', 'cuda:x', 'mps', ''])
def test_a_device_that_is_not_there_is_told(tmp_path, name):
    with pytest.raises(UserError, match=rf'run\.device .*{name}'), session(tmp_path / 'run', RunConfig(device=name)):
        pass


def test_one_process_alone(tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UserError, match='torchrun'), session(tmp_path / 'run', RunConfig()):
        pass
    monkeypatch.setenv('WORLD_SIZE', '1')
    with session(tmp_path / 'run', RunConfig(device='cpu', seed=7, workers=3, precision='bfloat16')) as setup:
        assert setup == Setup(torch.device('cpu'), 3, 'bfloat16', 7)
