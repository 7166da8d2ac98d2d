from __future__ import annotations

import json

import pytest
from torch import nn
from training_runs import SMALL

from moving_object_detector.training.bench import main, measure, table

pytestmark = pytest.mark.usefixtures('one_thread')


def test_each_stage_is_measured(tmp_path, capsys, footage, start_train):
    file = tmp_path / 'bench.json'
    options = [*SMALL, f'data.root={footage}', f'data.cache={start_train.cache}', 'inpainter.batch=3']
    assert main(['--steps', '4', '--warm-up', '1', '--json', str(file), *options]) == 0
    report = json.loads(file.read_text())
    assert (report['device'], report['size'], report['workers']) == ('CPU', '32x64', 0)
    assert list(report['stages']) == ['rendered', 'inpainter', 'game']
    for name, stage in report['stages'].items():
        assert stage['batch'] == (3 if name == 'inpainter' else 2)
        assert stage['samples per second'] == pytest.approx(
            stage['batch'] * stage['steps per second'], rel=0.01, abs=0.01
        )
        assert 0 < stage['waiting for data'] < 1
    assert capsys.readouterr().out == table(report) + '\n'


def test_warm_up_is_not_counted_and_waiting_is(monkeypatch):
    from time import perf_counter, sleep

    import torch
    import toys

    class Slow(toys.Toy):
        def batches(self, first_step):
            for step, batch in enumerate(super().batches(first_step)):
                sleep(0.5 if step < 2 else 0.02)
                yield batch

    begun = perf_counter()
    timing = measure(Slow('slow', 12, [nn.Parameter(torch.zeros(3, dtype=torch.float64))]), 2, 10, torch.device('cpu'))
    assert timing.steps == 10
    assert 0.2 <= timing.waiting <= timing.total
    assert timing.total <= perf_counter() - begun - 1.0


def test_wrong_options(capsys):
    assert main(['game.batch=0']) == 2
    assert 'error: game.batch is 0, but takes a whole number from 1' in capsys.readouterr().err
