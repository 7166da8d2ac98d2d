from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.evaluation.results import RunResult, SequenceResult, VariantColumns
from moving_object_detector.evaluation.summary import area_change, correlations, ranks, sequence_signals, spearman


def columns(j, area):
    nothing = (None,) * len(j)
    return VariantColumns(j=tuple(j), f=nothing, objects=nothing, found=nothing, false=nothing, area=tuple(area))


def sequence(name, j, area=None, **signals):
    """A sequence whose zero-lag variant would give other numbers, all wrong."""
    other = columns([0.5] * len(j), [0.5] * len(j))
    return SequenceResult(
        name=name,
        frame_count=len(j),
        size=(48, 96),
        fps=24.0,
        seconds=1.0,
        variants={'zero_lag': other, 'refined': columns(j, area or [0.1] * len(j))},
        signals={key: tuple(values) for key, values in signals.items()},
    )


def run_of(*sequences, protocol='davis2016'):
    return RunResult({'protocol': protocol, 'variants': ['zero_lag', 'refined']}, {}, sequences)


def test_hand_worked_ranks():
    assert ranks([30, 10, 20]).tolist() == [3, 1, 2]
    assert ranks([5, 5, 1, 7, 5]).tolist() == [3, 3, 1, 5, 3]
    assert ranks([2, 2]).tolist() == [1.5, 1.5]


def test_hand_worked_correlations():
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Without ties 1 - 6 sum d^2 / (n (n^2 - 1)): differences 0, 2, 1, 1, 0 of five ranks.
    assert spearman([1, 2, 3, 4, 5], [1, 4, 2, 3, 5]) == pytest.approx(1 - 6 * 6 / (5 * 24))
    # Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: covariance 4.5, squares 4.5 and 5.
    assert spearman([1, 2, 2, 9], [0, 6, 5, 7]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman([4, 4, 4], [1, 2, 3]) is None


def slow_spearman(first, second):
    """Pearson's correlation of ranks that are counted: those below, and half of the others that are equal."""

    def ranked(values):
        return [1 + sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]

    return np.corrcoef(ranked(first), ranked(second))[0, 1]


def test_correlations_against_a_second_implementation():
    rng = np.random.default_rng(7)
    for _ in range(20):
        first, second = rng.integers(0, 6, 12).tolist(), rng.normal(size=12).tolist()
        assert spearman(first, second) == pytest.approx(slow_spearman(first, second))


def test_the_change_of_the_area():
    # Half of the larger one, a quarter of it, nothing, all of it.
    assert area_change((0.2, 0.1)) == pytest.approx(0.5)
    assert area_change((0.3, 0.4, 0.4, 0.0)) == pytest.approx((0.25 + 0 + 1) / 3)
    assert area_change((0.0, 0.0, 0.2)) == pytest.approx(1)
    assert area_change((0.2, None, 0.1)) is None
    assert area_change((0.0, 0.0)) is None


def test_signals_of_a_sequence():
    found = sequence_signals(
        sequence(
            'a', [None, 0.5, 0.7, None], [0.1, 0.2, 0.0, 0.0], consistency=[0.4, None, 0.8, None], flip=[None] * 4
        ),
        'refined',
    )
    assert found == {
        'consistency': pytest.approx(0.6),
        'flip': None,
        'empty': pytest.approx(0.5),
        'area_change': pytest.approx((0.5 + 1) / 2),
    }


def test_a_signal_goes_with_the_score_of_the_variant_that_counts_by_the_runs_protocol():
    """DAVIS 2016 leaves out the first and last frame, whose J would turn the order round here."""
    run = run_of(
        sequence('a', [1.0, 0.2, 0.2, 1.0], consistency=[0.3] * 4, noise=[1, None, None, None]),
        sequence('b', [0.5, 0.4, 0.4, 0.5], consistency=[0.5] * 4, noise=[3, None, None, None]),
        sequence('c', [0.0, 0.6, 0.6, 0.0], consistency=[0.9] * 4, noise=[2, None, None, None]),
    )
    found = correlations(run)
    assert found['consistency'].rho == pytest.approx(1)
    assert found['consistency'].sequences == 3
    assert found['noise'].rho == pytest.approx(0.5)
    # No mask is empty and no area changes: nothing to rank.
    assert set(found) == {'consistency', 'noise'}
    over_all = correlations(run_of(*run.sequences, protocol='segtrackv2'))
    assert over_all['consistency'].rho == pytest.approx(-1)


def test_sequences_without_a_score_or_the_signal_do_not_count():
    run = run_of(
        sequence('a', [None, 0.1, None], consistency=[0.1] * 3, information=[0.9, None, None]),
        sequence('b', [None, 0.2, None], consistency=[0.2] * 3, information=[0.5, None, None]),
        sequence('c', [None, 0.3, None], consistency=[0.3] * 3, information=[None, None, None]),
        sequence('no truth', [None, None, None], consistency=[0.9] * 3, information=[0.1, None, None]),
    )
    found = correlations(run)
    assert {name: value.sequences for name, value in found.items()} == {'consistency': 3}
    assert correlations(run_of()) == {}
