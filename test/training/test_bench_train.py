from __future__ import annotations

import time

import pytest
import torch
import toys
from torch import nn
from training_runs import SMALL

from moving_object_detector.training.loop import LoopOptions, fit
from moving_object_detector.training.train import main

pytestmark = pytest.mark.usefixtures('one_thread')


def test_each_stage_is_timed(capsys, footage, start_train):
    settings = [*SMALL, f'data.root={footage}', f'data.cache={start_train.cache}', 'inpainter.batch=3']
    assert main(['--bench', '4', '--set', *settings]) == 0
    rows = [line.split('|')[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    assert [row[0].strip() for row in rows] == ['stage', 'rendered', 'inpainter', 'game']
    for name, batch, steps, samples, waiting in rows[1:]:
        assert int(batch) == (3 if name.strip() == 'inpainter' else 2)
        assert float(samples) == pytest.approx(int(batch) * float(steps), rel=0.01, abs=0.01)
        assert 0 <= float(waiting.strip().rstrip('%')) < 100


def test_first_steps_are_not_counted_and_waiting_is(tmp_path):
    class Slow(toys.Toy):
        def batches(self, first_step):
            for step, batch in enumerate(super().batches(first_step)):
                time.sleep(0.5 if step < 2 else 0.02)
                yield batch

    stage = Slow('slow', 12, [nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    begun = time.perf_counter()
    timing = fit([stage], tmp_path, {}, LoopOptions(untimed=2))['slow']
    assert timing.steps == 10
    assert 0.2 <= timing.waiting <= timing.total
    assert timing.total <= time.perf_counter() - begun - 1.0
