from __future__ import annotations

import os

import pytest

from moving_object_detector.engines.base import usable_cores

ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else list(range(os.cpu_count() or 1))


def topology(folder, place):
    """Write where each of this process's CPUs is: ``place`` gives (package, core) of the n-th."""
    for index, number in enumerate(ALLOWED):
        cpu = folder / f'cpu{number}'
        cpu.mkdir()
        for name, value in zip(('physical_package_id', 'core_id'), place(index), strict=True):
            (cpu / name).write_text(f'{value}\n')
    return str(folder / 'cpu{}')


def test_hyper_threads_share_a_core(tmp_path):
    none = tmp_path / 'none'
    assert usable_cores(topology(tmp_path, lambda _: (0, 3)), none) == 1


def test_the_same_core_number_in_two_packages(tmp_path):
    assert usable_cores(topology(tmp_path, lambda index: (index, 0)), tmp_path / 'none') == len(ALLOWED)


@pytest.mark.parametrize(
    ('text', 'most'), [('max 100000', 999), ('100000 100000', 1), ('50000 100000', 1), ('150000 100000', 2), ('?', 999)]
)
def test_a_containers_quota(tmp_path, text, most):
    quota = tmp_path / 'cpu.max'
    quota.write_text(text)
    assert usable_cores(str(tmp_path / 'none{}'), quota) == min(len(ALLOWED), most)


def test_this_machine():
    assert 1 <= usable_cores() <= len(ALLOWED)
