"""From what was measured to a report that can be stored as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moving_object_detector.bench.cases import EAGER, NAIVE, REFERENCE, Group
from moving_object_detector.bench.figures import generator_flops, pwcnet_flops, ratio, share, summary
from moving_object_detector.bench.rounds import Measured


def group_report(group: Group, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the figures of a group.

    Args:
        group: What was done.
        measured: How long it took in each way; at least one.

    Returns:
        ``name``, ``kind``, ``pairs``, ``size``, of networks ``gflop``; ``cases``, each with ``variant``, ``engine``
        (with its real precision), ``calls``, ``milliseconds``, ``per second``, ``stages``, ``memory``; and ``ratios``.

    """
    first = next((one.facts for one in measured if 'size' in one.facts), measured[0].facts)
    report = {'name': group.name, 'kind': group.kind, **{name: first.get(name) for name in ('pairs', 'size')}}
    report |= {name: first[name] for name in ('window', 'flow') if name in first}
    report['cases'] = [_case_report(one) for one in measured]
    if group.kind != 'frame':
        _add_operations(report, measured)
    report['ratios'] = _ratios(measured)
    return report


def fastest(report: dict[str, Any]) -> dict[str, Any]:
    """Return the case of a group's report that has the least median."""
    return min(report['cases'], key=lambda case: case['milliseconds']['median'])


def find_ratio(report: dict[str, Any], slow: str, fast: str) -> dict[str, Any] | None:
    """Return how many times longer one variant takes than another, from a group's report."""
    return next((found for found in report['ratios'] if (found['slow'], found['fast']) == (slow, fast)), None)


def _case_report(one: Measured) -> dict[str, Any]:
    milliseconds = summary(one.calls)
    return {
        'variant': str(one.case.variant),
        'engine': one.facts['engine'],
        'threads': one.facts['threads'],
        'rounds': len(one.turns),
        'calls': len(one.calls),
        'milliseconds': milliseconds,
        'per second': round(1.0 / float(np.median(one.calls)), 3),
        'stages': {name: summary(times) for name, times in one.stages.items()},
        'memory': one.memory,
    }


def _add_operations(report: dict[str, Any], measured: Sequence[Measured]) -> None:
    """Add counted operations, the rates reached, and what share they are of the measured rates of matrix products."""
    size, pairs = tuple(report['size']), report['pairs']
    if report['kind'] == 'generator':
        flops = pairs * generator_flops(size)
    else:
        pyramid, decoder = pwcnet_flops(size)
        flops = pyramid + pairs * decoder
    report['gflop'] = round(flops / 1e9, 2)
    products = [_product_rate(one) for one in measured]
    plain = [
        rate for one, rate in zip(measured, products, strict=True) if one.case.variant.precision == 'float32' and rate
    ]
    for case, one, product in zip(report['cases'], measured, products, strict=True):
        rate = flops / float(np.median(one.calls))
        case['gflop per second'] = round(rate / 1e9, 1)
        case['product gflop per second'] = round(product / 1e9, 1) if product else None
        case['share of product'] = share(rate, product)
        case['share of float32 product'] = share(rate, max(plain, default=None))


def _product_rate(one: Measured) -> float | None:
    """Return the rate of the matrix product by the case's engine, operations a second."""
    return float(one.facts['product flops'] / np.median(one.products)) if one.products else None


def _ratios(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return [
        {'slow': str(slow.case.variant), 'fast': str(fast.case.variant), **ratio(slow.rounds, fast.rounds)}
        for slow in measured
        if slow.case.variant in (NAIVE, EAGER, REFERENCE)
        for fast in measured
        if fast is not slow
    ]
