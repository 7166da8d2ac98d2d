"""Cases in processes of their own, in turns."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from moving_object_detector.bench.cases import NAIVE, REFERENCE, Variant, all_cases
from moving_object_detector.bench.measure import Effort, measure_group

pytestmark = pytest.mark.slow
SMALL = ['height=16', 'width=32', 'flow.height=32', 'flow.width=64', 'flow.preset=ultrafast', 'refinement.method=none']


@pytest.fixture(scope='module')
def cases():
    """By their variants."""
    return {case.variant: case for case in all_cases(None, SMALL, gpu=False, quick=True)}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'images.npy'
    np.save(path, np.random.default_rng(1).integers(0, 256, (4, 48, 96, 3), np.uint8))
    return path


def test_a_group_in_processes(cases, images):
    rounds = []
    chosen = [cases[variant] for variant in (NAIVE, REFERENCE, Variant('torch', 'bfloat16'))]
    effort = Effort(least=2, most=2, turn=0.02)
    naive, reference, failed = measure_group(chosen, images, effort, rounds.append)
    assert failed.rounds == []
    assert 'precision' in failed.failure
    assert rounds == ['cpu round 1', 'cpu round 2']
    for one in (naive, reference):
        assert not one.failure
        assert len(one.rounds) == 2
        assert all(sum(turn) >= 0.02 and sum(turn[:-1]) < 0.02 for turn in one.rounds)
        assert one.memory['resident'] > 50
    assert naive.stages == {}
    assert reference.facts['engine'] == 'torch float32 on cpu'
    assert reference.facts['size'] == (16, 32)
    for name, times in reference.stages.items():
        assert len(times) == sum(map(len, reference.rounds)), name
    # Latency spans the others, and what ends a frame runs beside the next call.
    inside = sum(sum(times) for name, times in reference.stages.items() if name != 'latency')
    assert 0.4 * sum(map(sum, reference.rounds)) < inside < 1.3 * sum(map(sum, reference.rounds))


def test_one_that_dies_leaves_and_the_others_go_on(cases, images):
    """The process that was started last, the second case's, is killed after its first turn."""

    def kill(text):
        if text == 'cpu round 2':
            max(multiprocessing.active_children(), key=lambda process: process.pid).kill()

    chosen = [cases[variant] for variant in (NAIVE, REFERENCE)]
    naive, reference = measure_group(chosen, images, Effort(least=3, most=3, turn=0.01), kill)
    assert (naive.failure, len(naive.rounds)) == ('', 3)
    assert len(reference.rounds) == 1
    assert 'its process' in reference.failure


def test_the_peak_of_memory_counts_what_was_given_back():
    code = (
        'import sys, numpy as np; from moving_object_detector.bench.measure import peak_memory;'
        'block = np.ones(int(sys.argv[1]) * 125_000); del block; print(peak_memory()["resident"])'
    )
    command = [sys.executable, '-c', code]
    started = [
        subprocess.Popen([*command, megabytes], stdout=subprocess.PIPE, text=True) for megabytes in ('1', '1500')
    ]
    small, large = (float(process.communicate(timeout=120)[0]) for process in started)
    assert large - small == pytest.approx(1499, abs=60)
    assert 50 < small < 1000
