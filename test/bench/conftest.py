from __future__ import annotations

import pytest


def case(variant, median, *, stages=None, ratios=None):
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
        'ratios': {
            slow: dict(zip(('ratio', 'low', 'high'), values, strict=True)) for slow, values in (ratios or {}).items()
        },
    }


@pytest.fixture
def frame_group():
    """The report of one setting: naive, reference and OpenVINO."""
    return {
        'name': 'cpu',
        'size': [96, 192],
        'window': '-1..+1',
        'flow': 'dis-medium',
        'cases': [
            case('naive float32', 200.0, ratios={'torch float32': (0.62, 0.6, 0.65)}),
            case(
                'torch float32',
                125.0,
                stages={'flow': 25.0, 'generator': 100.0},
                ratios={'naive float32': (1.6, 1.5, 1.7)},
            ),
            case(
                'openvino float32',
                62.5,
                stages={'flow': 24.0, 'generator': 38.0},
                ratios={'naive float32': (3.2, 3.0, 3.3), 'torch float32': (2.0, 1.9, 2.1)},
            ),
        ],
    }
