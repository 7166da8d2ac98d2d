"""Counts and times, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from moving_object_detector.nodes import messages
from moving_object_detector.nodes.messages import WINDOW, Statistics


def test_report():
    statistics = Statistics()
    statistics.count('received', 3)
    statistics.count('processed')
    statistics.count('processed')
    # Finished at 10.0, 10.1 and 10.3 s: two periods in 0.3 s.
    assert statistics.time(0.010, 0.020, 10.0) == 0.0
    assert statistics.time(0.030, 0.040, 10.1) == pytest.approx(0.1)
    assert statistics.time(0.020, 0.090, 10.3) == pytest.approx(0.2)
    assert statistics.report(now=10.5) == {
        'frames received': '3',
        'frames processed': '2',
        'frames missed': '0',
        'frames skipped': '0',
        'frames dropped': '0',
        'frames invalid': '0',
        'frames repeated': '0',
        'frames failed': '0',
        'frames published': '0',
        'frame rate hz': '6.67',
        'processing median ms': '20.0',
        'processing p95 ms': '30.0',
        'processing p99 ms': '30.0',
        'latency median ms': '40.0',
        'latency p95 ms': '90.0',
        'latency p99 ms': '90.0',
    }


def test_the_rate_is_that_of_the_last_five_seconds():
    statistics = Statistics()
    for finished in (1.0, 7.0, 8.0, 9.0):
        statistics.time(0.1, 0.1, finished)
    assert statistics.report(now=10.0)['frame rate hz'] == '1.00'
    assert statistics.report(now=13.5)['frame rate hz'] == '0.00'  # a single frame has no rate
    assert statistics.report(now=60.0)['frame rate hz'] == '0.00'


def test_the_share_of_images_with_a_mask_is_that_of_the_last_five_seconds(monkeypatch):
    statistics, now = Statistics(), [100.0]
    monkeypatch.setattr(messages.time, 'monotonic', lambda: now[0])
    statistics.count('received', 50)
    statistics.count('processed', 19)
    assert statistics.masked_share(100.0) == 1  # too few to tell
    statistics.count('skipped', 51)
    statistics.count('dropped', 6)
    assert statistics.masked_share(104.0) == pytest.approx(19 / 76)
    now[0] = 106.0
    statistics.count('processed', 24)
    statistics.count('skipped', 1)
    assert statistics.masked_share(106.0) == pytest.approx(24 / 25)
    assert statistics.masked_share(112.0) == 1


def test_old_timings_are_forgotten():
    statistics = Statistics()
    statistics.time(9.0, 9.0, 0.0)
    for k in range(WINDOW):
        statistics.time(0.001, 0.002, k + 1.0)
    report = statistics.report(now=WINDOW + 1.0)
    assert (report['processing p99 ms'], report['latency p99 ms']) == ('1.0', '2.0')


def test_nothing_yet():
    assert set(Statistics().report(now=0.0).values()) == {'0', '0.0', '0.00'}
