import io

import numpy as np
import pytest
import torch

from moving_object_detector.common.parameter_files import load_plain_config
from moving_object_detector.training.config import FlowTrainConfig
from moving_object_detector.training.flow_training import make_stage, network_input
from moving_object_detector.training.setup import Setup

pytestmark = pytest.mark.usefixtures('one_thread')

TINY = [
    'training.steps=3',
    'training.batch=2',
    'training.height=64',
    'training.width=64',
    'validation.scenes=1',
    'run.workers=0',
]


def tiny(*assignments):
    return load_plain_config(FlowTrainConfig(), None, [*TINY, *assignments])


def run(task, first, last):
    values = []
    for step, batch in zip(range(first, last), task.batches(first), strict=False):
        values.append({name: float(value) for name, value in task.step(step, batch).items()})
    return values


def test_a_resumed_task_goes_on_to_the_bit():
    """Three steps at a stretch, and two that are saved as a checkpoint and one of another task that loads it."""
    config = tiny('validation.every=2')
    whole = make_stage(config, Setup())
    expected = run(whole, 0, 3)
    assert [set(values) >= {'held_out'} for values in expected] == [False, True, True]
    assert all(values.keys() >= {'loss', 'gradient', 'error', 'matching'} for values in expected)

    killed = make_stage(config, Setup())
    assert run(killed, 0, 2) == expected[:2]
    file = io.BytesIO()
    torch.save(killed.state_dict(), file)
    file.seek(0)
    resumed = make_stage(config, Setup())
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert run(resumed, 2, 3) == expected[2:]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True))


def test_it_learns_a_batch():
    """The same two pairs again and again: the error falls under that of no motion, and the first steps are smooth."""
    config = tiny('training.steps=40', 'training.learning_rate=1e-3', 'training.average=0')
    task = make_stage(config, Setup())
    batch = next(iter(task.batches(0)))
    still = float(batch.flow.norm(dim=1).mean())
    errors = [float(task.step(step, batch)['error']) for step in range(32)]
    print(f'no motion {still:.2f}, first {errors[0]:.2f}, last {errors[-1]:.2f} px')
    assert errors[0] == pytest.approx(still, rel=0.2)
    assert errors[-1] < 0.7 * still


def test_pictures_show_the_batch():
    task = make_stage(tiny('training.steps=1'), Setup())
    assert task.pictures() == {}
    batch = next(iter(task.batches(0)))
    task.step(0, batch)
    (picture,) = task.pictures().values()
    assert picture.shape == (2 * 64, 5 * 64, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture[64:, 64:128], batch.second[1].numpy().transpose(1, 2, 0))
    # The network begins still: its flow is white, and the error is the exact flow.
    assert np.median(picture[:, 192:256]) > 230
    assert picture[:, 256:].max() == 255


def test_the_network_sees_blue_first():
    image = torch.tensor((255, 51, 0), dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    assert network_input(image)[0, :, 1, 1].tolist() == pytest.approx([0.0, 0.2, 1.0])
