from __future__ import annotations

import pytest

from moving_object_detector.bench.cases import (
    NAIVE,
    REFERENCE,
    Variant,
    all_variants,
    chosen,
    groups,
)
from moving_object_detector.common.errors import UserError


def cases(*arguments, **options):
    return [case for group in groups(*arguments, **options) for case in group.cases()]


def test_every_engine_and_precision_of_the_options_takes_part():
    variants = all_variants()
    assert len(set(variants)) == len(variants)
    assert {Variant('torch', 'float32'), Variant('openvino', 'bfloat16'), Variant('torch_tensorrt', 'float16')} < set(
        variants
    )
    assert not any('auto' in variant for variant in variants)
    for case in cases(None, [], gpu=False, quick=True):
        if case.variant != NAIVE:
            assert (case.config.engine, case.config.precision) == case.variant


def test_the_built_in_settings():
    found = {group.name: group for group in groups(None, [], gpu=False, quick=False)}
    paper = found['paper'].config
    assert (paper.height, paper.width, paper.flow.backend) == (192, 384, 'dis')
    assert (paper.window.past, paper.window.future) == (5, 5)
    assert found['cpu'].config.refinement.method == 'grid_crf'
    assert paper.refinement.method == 'crf'
    assert (found['cpu'].config.height, found['cpu'].config.width) == (96, 192)
    assert found['cpu-window-5'].config.window.past == 5
    assert all(group.config.device in ('auto', 'cpu') for group in found.values())
    for name in ('paper', 'cpu'):
        assert [case.variant for case in found[name].cases()][:2] == [NAIVE, REFERENCE]
    # What a run may take: rounds end then, loading and warming up come on top.
    assert sum(group.seconds for group in found.values()) <= 120


def test_a_gpu_adds_its_own_setting():
    found = {group.name: group for group in groups(None, [], gpu=True, quick=False)}
    gpu = found['gpu']
    assert (gpu.config.device, gpu.config.height, gpu.naive) == ('cuda', 192, True)
    assert found['gpu-window-1'].config.window.past == 1


def test_a_parameter_file_replaces_them(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('/**:\n  ros__parameters:\n    height: 64\n    flow.backend: pwcnet\n    target_rate: 10.0\n')
    found = groups(path, ['window.past=3', 'height=48'], gpu=True, quick=False)
    assert [group.name for group in found] == ['mine']
    assert all(group.config.height == 48 and group.config.window.past == 3 for group in found)
    with pytest.raises(UserError, match=r'flow\.presets'):
        groups(None, ['flow.presets=fast'], gpu=False, quick=False)


def test_choosing_cases():
    everything = cases(None, [], gpu=False, quick=False)
    names = [case.name for case in everything]
    assert len(set(names)) == len(names)
    assert chosen(everything, []) == everything
    assert {case.group.name for case in chosen(everything, ['paper'])} == {'paper'}
    assert [case.name for case in chosen(everything, ['cpu/naive*', 'paper/torch-float32'])] == [
        'cpu/naive-float32',
        'paper/torch-float32',
    ]
    with pytest.raises(UserError, match='tortoise'):
        chosen(everything, ['paper', 'tortoise'])
