from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from moving_object_detector.evaluation.compare import paired_difference


def naive_p(values):
    """Share of all sign vectors under which the mean is as far from zero."""
    true = abs(sum(values)) - 1e-12
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=len(values))
    ]
    return sum(value >= true for value in sums) / len(sums)


@pytest.mark.parametrize('count', range(1, 11))
def test_p_against_all_signs(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    assert paired_difference(values).p == pytest.approx(naive_p(values), abs=1e-12)


@pytest.mark.parametrize('count', [6, 7, 9, 10])
def test_the_interval_holds_what_the_test_does_not_refuse(count):
    values = np.random.default_rng(count).normal(0.3, 1, count)
    low, high = paired_difference(values).interval
    inside, outside = 1e-6, -1e-6
    for bound, inwards in ((low, 1), (high, -1)):
        assert naive_p(values - (bound + inwards * inside)) > 0.05
        assert naive_p(values - (bound + inwards * outside)) <= 0.05


def test_worked_by_hand():
    """Of the 64 ways to sign six numbers above zero, two reach their sum; the least and the largest bound the mean."""
    found = paired_difference([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert found.pairs == 6
    assert found.mean == pytest.approx(0.35)
    assert found.p == pytest.approx(2 / 64)
    assert found.interval == pytest.approx((0.1, 0.6))
    assert found.clear


def test_too_few_to_tell():
    found = paired_difference([0.5] * 5)
    assert (found.p, found.interval, found.clear) == (2 / 32, None, False)


def test_no_difference():
    found = paired_difference([0.0] * 8)
    assert (found.mean, found.p, found.interval, found.clear) == (0, 1, (0, 0), False)


@pytest.mark.parametrize('shift', [0.0, 0.5])
def test_many_pairs_agree_with_the_normal_approximation(shift):
    """With 100 pairs the interval is within a tenth of mean ± 1.96 standard errors, and the same every time."""
    values = np.random.default_rng(4).normal(shift, 1, 100)
    found = paired_difference(values)
    assert found == paired_difference(values)
    error = values.std(ddof=1) / 10
    for bound, side in zip(found.interval, (-1.98, 1.98), strict=True):
        assert bound == pytest.approx(found.mean + side * error, abs=0.2 * error)
    assert found.clear == (shift > 0)
    assert found.clear == (not found.interval[0] <= 0 <= found.interval[1])


def test_seldom_clear_where_there_is_nothing():
    """At most about one in twenty of differences without a sense is called clear."""
    rng = np.random.default_rng(9)
    wrong = sum(paired_difference(rng.normal(0, 1, 9)).clear for _ in range(400))
    assert 5 <= wrong <= 32
