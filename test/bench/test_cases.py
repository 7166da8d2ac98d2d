from __future__ import annotations

import pytest

from moving_object_detector.bench.cases import (
    NAIVE,
    REFERENCE,
    Variant,
    all_cases,
    all_variants,
    chosen,
)
from moving_object_detector.common.errors import UserError


def groups(*arguments, **options):
    """The cases of each group, by its name."""
    found = {}
    for case in all_cases(*arguments, **options):
        found.setdefault(case.group, []).append(case)
    return found


def test_every_engine_and_precision_of_the_options_takes_part():
    variants = all_variants()
    assert len(set(variants)) == len(variants)
    assert {Variant('torch', 'float32'), Variant('openvino', 'bfloat16'), Variant('torch_tensorrt', 'float16')} < set(
        variants
    )
    assert not any('auto' in variant for variant in variants)
    for case in all_cases(None, [], gpu=False, quick=True):
        if case.variant != NAIVE:
            assert (case.config.engine, case.config.precision) == case.variant


def test_the_built_in_settings():
    found = groups(None, [], gpu=False, quick=False)
    paper, cpu = (found[name][0].config for name in ('paper', 'cpu'))
    assert (paper.height, paper.width, paper.flow.backend) == (192, 384, 'dis')
    assert (paper.window.past, paper.window.future) == (5, 5)
    assert cpu.refinement.method == 'grid_crf'
    assert paper.refinement.method == 'crf'
    assert (cpu.height, cpu.width) == (128, 256)
    assert found['cpu-window-5'][0].config.window.past == 5
    assert all(case.config.device in ('auto', 'cpu') for cases in found.values() for case in cases)
    for name in ('paper', 'cpu'):
        assert [case.variant for case in found[name]][:2] == [NAIVE, REFERENCE]
    # What a run may take: rounds end then, loading and warming up come on top.
    assert sum(cases[0].seconds for cases in found.values()) <= 120


def test_a_gpu_adds_its_own_setting():
    found = groups(None, [], gpu=True, quick=False)
    naive = found['gpu'][0]
    assert (naive.config.device, naive.config.height, naive.variant) == ('cuda', 192, NAIVE)
    assert found['gpu-window-1'][0].config.window.past == 1


def test_a_parameter_file_replaces_them(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('/**:\n  ros__parameters:\n    height: 64\n    flow.backend: pwcnet\n    target_rate: 10.0\n')
    found = all_cases(path, ['window.past=3', 'height=48'], gpu=True, quick=False)
    assert {case.group for case in found} == {'mine'}
    assert all(case.config.height == 48 and case.config.window.past == 3 for case in found)
    with pytest.raises(UserError, match=r'flow\.presets'):
        all_cases(None, ['flow.presets=fast'], gpu=False, quick=False)


def test_choosing_cases():
    everything = all_cases(None, [], gpu=False, quick=False)
    names = [case.name for case in everything]
    assert len(set(names)) == len(names)
    assert chosen(everything, []) == everything
    assert {case.group for case in chosen(everything, ['paper'])} == {'paper'}
    assert [case.name for case in chosen(everything, ['cpu/naive*', 'paper/torch-float32'])] == [
        'cpu/naive-float32',
        'paper/torch-float32',
    ]
    with pytest.raises(UserError, match='tortoise'):
        chosen(everything, ['paper', 'tortoise'])
