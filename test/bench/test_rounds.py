"""Cases in processes of their own, in turns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from moving_object_detector.bench.cases import EAGER, NAIVE, REFERENCE, Case, Variant, groups
from moving_object_detector.bench.process import Turn
from moving_object_detector.bench.rounds import Effort, Measured, _round, measure_group
from moving_object_detector.bench.worker import UnableError, Worker, refusals

SMALL = ['height=16', 'width=32', 'flow.height=32', 'flow.width=64', 'flow.preset=ultrafast', 'refinement.method=none']


@pytest.fixture(scope='module')
def group():
    found = {group.name: group for group in groups(None, SMALL, gpu=False, quick=True)}
    return replace(found['cpu'], seconds=0.0)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'images.npy'
    np.save(path, np.random.default_rng(1).integers(0, 256, (4, 48, 96, 3), np.uint8))
    return path


class Recorder:
    """What a worker is to the rounds, without a process."""

    def __init__(self, case, log):
        self.case, self._log = case, log

    def turn(self, seconds):
        self._log.append((self.case, seconds))
        if self.case == 'breaks' and len(self._log) > 3:
            raise UnableError('broken', expected=False)
        return Turn([0.1], {}, [])


def test_they_take_turns_and_one_that_breaks_leaves():
    log, failed = [], []
    running = [(Recorder(name, log), Measured(name, {})) for name in ('a', 'breaks', 'c')]
    for _ in range(3):
        running = _round(running, 0.5, lambda case, error: failed.append((case, str(error))))
    assert [name for name, _ in log] == ['a', 'breaks', 'c', 'a', 'breaks', 'c', 'a', 'c']
    assert failed == [('breaks', 'broken')]
    assert [(measured.case, len(measured.turns)) for _, measured in running] == [('a', 3), ('c', 3)]


def test_a_group_in_processes(group, images):
    failed, shares = [], []
    cases = [Case(group, variant) for variant in (NAIVE, REFERENCE, Variant('torch', 'bfloat16'))]
    effort = Effort(least=2, most=2, turn=0.02)
    measured = measure_group(group, cases, images, effort, lambda *what: failed.append(what), shares.append)
    naive, reference = measured
    assert [one.case.variant for one in measured] == [NAIVE, REFERENCE]
    ((case, error),) = failed
    assert (case.variant.precision, error.expected) == ('bfloat16', True)
    assert 'set precision to auto' in str(error)
    assert shares == [0.0, 0.5]
    for one in measured:
        assert len(one.rounds) == 2
        assert all(sum(turn) >= 0.02 and sum(turn[:-1]) < 0.02 for turn in one.rounds)
        assert one.memory['resident'] > 50
        assert one.products == []
    assert naive.stages == {}
    assert reference.facts['engine'] == 'torch float32 on cpu'
    assert reference.facts['size'] == (16, 32)
    for name, times in reference.stages.items():
        assert len(times) == len(reference.calls), name
    inside = sum(sum(times) for times in reference.stages.values())
    assert 0.5 * sum(reference.calls) < inside < sum(reference.calls)


def test_an_own_process_that_dies_is_told(group, images):
    worker = Worker(Case(group, REFERENCE), images)
    try:
        worker.ready()
        os.kill(worker._child._process.pid, signal.SIGKILL)
        with pytest.raises(UnableError, match='was there enough memory') as told:
            worker.turn(0.01)
        assert not told.value.expected
    finally:
        worker.close()


def test_refusals():
    found = refusals('cpu', [REFERENCE, Variant('torch', 'float16'), Variant('torch_tensorrt', 'float32')])
    assert set(found) == {Variant('torch', 'float16'), Variant('torch_tensorrt', 'float32')}
    assert 'runs on NVIDIA GPUs' in found[Variant('torch_tensorrt', 'float32')]


def test_the_peak_of_memory_counts_what_was_given_back():
    code = (
        'import sys, numpy as np; from moving_object_detector.bench.process import peak_memory;'
        'block = np.ones(int(sys.argv[1]) * 125_000); del block; print(peak_memory()["resident"])'
    )
    command = [sys.executable, '-c', code]
    started = [
        subprocess.Popen([*command, megabytes], stdout=subprocess.PIPE, text=True) for megabytes in ('1', '1500')
    ]
    small, large = (float(process.communicate(timeout=120)[0]) for process in started)
    # Freed before PyTorch was loaded, whose own memory may lie in the same place.
    assert 1500 < large < 1500 + small
    assert 50 < small < 1000


def test_the_matrix_product_beside_a_network(images):
    group = next(group for group in groups(None, SMALL, gpu=False, quick=True) if group.kind == 'generator')
    effort = Effort(least=1, most=1, turn=0.01)
    (measured,) = measure_group(group, [Case(group, EAGER)], images, effort, lambda *_: pytest.fail('cannot run'))
    assert measured.facts['product flops'] == 2 * 2048**3
    assert len(measured.products) >= 1
    assert measured.facts['engine'] == 'eager float32 on cpu'
