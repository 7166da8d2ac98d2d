from __future__ import annotations

from moving_object_detector.bench.report import ratio, summary


def test_summary_by_hand():
    seconds = [k / 1000 for k in range(1, 102)]  # 1 to 101 ms
    assert summary(seconds) == {'median': 51.0, 'p95': 96.0, 'p99': 100.0}
    assert summary([0.0012345]) == {'median': 1.23, 'p95': 1.23, 'p99': 1.23}
    # Between the second and the third of three: 95 % is nine tenths of the way.
    assert summary([0.01, 0.02, 0.03]) == {'median': 20.0, 'p95': 29.0, 'p99': 29.8}


def test_ratio_by_hand():
    # The third round fell into a time when the machine was five times slower, for both.
    slow, fast = [[4.0], [6.0], [20.0]], [[2.0, 2.0, 9.0], [2.0], [10.0]]
    # Medians 6 and 2; the rounds' own ratios are 2, 3 and 2.
    assert ratio(slow, fast) == {'ratio': 3.0, 'low': 2.0, 'high': 2.5}
    assert ratio(fast, fast) == {'ratio': 1.0, 'low': 1.0, 'high': 1.0}
