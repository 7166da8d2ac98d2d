from __future__ import annotations

import pytest


def case(variant, median, *, stages=None, **more):
    milliseconds = {'median': median, 'p95': 2 * median, 'p99': 3 * median}
    return {
        'variant': variant,
        'engine': f'{variant} on cpu',
        'threads': 2,
        'rounds': 4,
        'calls': 40,
        'milliseconds': milliseconds,
        'per second': 1000 / median,
        'stages': {name: {'median': one, 'p95': one, 'p99': one} for name, one in (stages or {}).items()},
        'memory': {'resident': 400.4},
        **more,
    }


@pytest.fixture
def frame_group():
    """The report of one setting: naive, reference and OpenVINO."""
    return {
        'name': 'cpu',
        'kind': 'frame',
        'pairs': 2,
        'size': [96, 192],
        'window': '-1..+1',
        'flow': 'dis-medium',
        'cases': [
            case('naive float32', 200.0),
            case('torch float32', 125.0, stages={'flow': 25.0, 'generator': 100.0}),
            case('openvino float32', 62.5, stages={'flow': 24.0, 'generator': 38.0}),
        ],
        'ratios': [
            {'slow': 'naive float32', 'fast': 'torch float32', 'ratio': 1.6, 'low': 1.5, 'high': 1.7},
            {'slow': 'naive float32', 'fast': 'openvino float32', 'ratio': 3.2, 'low': 3.0, 'high': 3.3},
            {'slow': 'torch float32', 'fast': 'naive float32', 'ratio': 0.62, 'low': 0.6, 'high': 0.65},
            {'slow': 'torch float32', 'fast': 'openvino float32', 'ratio': 2.0, 'low': 1.9, 'high': 2.1},
        ],
    }


@pytest.fixture
def network_group():
    """The report of the generator."""
    return {
        'name': 'generator',
        'kind': 'generator',
        'pairs': 10,
        'size': [192, 384],
        'cases': [case('eager float32', 400.0), case('openvino bfloat16', 125.0)],
        'ratios': [{'slow': 'eager float32', 'fast': 'openvino bfloat16', 'ratio': 3.2, 'low': 3.1, 'high': 3.4}],
    }
