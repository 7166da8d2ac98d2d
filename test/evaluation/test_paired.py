from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from moving_object_detector.evaluation.compare import sign_flip_p


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
    assert sign_flip_p(values) == pytest.approx(naive_p(values), abs=1e-12)


def test_worked_by_hand():
    """Of the 64 ways to sign six numbers above zero, two reach their sum; of five the 32 are too few for 5 %."""
    assert sign_flip_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 64)
    assert sign_flip_p([0.5] * 5) == 2 / 32
    assert sign_flip_p([0.0] * 8) == 1


@pytest.mark.parametrize('shift', [0.1, 0.2])
def test_many_pairs_agree_with_the_normal_approximation(shift):
    """With 100 pairs p is that of the mean over its standard error, and the same every time."""
    values = np.random.default_rng(4).normal(shift, 1, 100)
    deviations = abs(values.mean()) / np.sqrt(np.mean(values**2) / 100)
    draws = np.random.default_rng(1).standard_normal(10**6)
    assert sign_flip_p(values) == pytest.approx(float(np.mean(np.abs(draws) >= deviations)), abs=0.015)
    assert sign_flip_p(values) == sign_flip_p(values)


def test_seldom_clear_where_there_is_nothing():
    """At most about one in twenty of differences without a sense is called clear."""
    rng = np.random.default_rng(9)
    wrong = sum(sign_flip_p(rng.normal(0, 1, 9)) <= 0.05 for _ in range(400))
    assert 5 <= wrong <= 32
