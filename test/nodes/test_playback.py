"""When frames are due."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from moving_object_detector.detection.config import ContinuityConfig
from moving_object_detector.nodes.play import CUT, LONGEST_PAUSE, Pacer

MS = 1_000_000


class Clock:
    time = 100.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


def test_moments_do_not_drift(clock):
    pacer = Pacer(2.0, 0.04, now=clock)
    for k in range(1000):
        due = pacer.due(k * 40 * MS)
        assert due == pytest.approx(100 + k * 0.02)
        clock.time = due + 0.003  # each wait ends a little late


@pytest.mark.parametrize(('stamp', 'later'), [(0, 0.04), (400 * MS, 0.04), (-(10**12), CUT), (10**12, CUT)])
def test_a_stamp_that_leaps_comes_one_period_later_or_as_a_cut(clock, stamp, later):
    pacer = Pacer(1.0, 0.04, now=clock)
    for k in range(11):
        last = pacer.due(k * 40 * MS)
        clock.time = last
    assert pacer.due(stamp) == pytest.approx(last + later)
    assert pacer.due(stamp + 30 * MS) == pytest.approx(last + later + 0.03)


def test_the_detector_takes_a_cut_for_one():
    assert ContinuityConfig.max_gap < CUT


def test_a_pause_within_reason_is_kept(clock):
    pacer = Pacer(1.0, 0.04, now=clock)
    pacer.due(0)
    assert pacer.due(round(LONGEST_PAUSE * 1000) * MS) == pytest.approx(100 + LONGEST_PAUSE)


def test_a_stall_is_not_made_up_for_by_a_burst(clock):
    pacer = Pacer(1.0, 0.04, now=clock)
    pacer.due(0)
    clock.time += 3
    assert pacer.due(40 * MS) == 103
    assert pacer.due(80 * MS) == pytest.approx(103.04)


def test_a_hiccup_is_made_up_for(clock):
    pacer = Pacer(1.0, 0.04, now=clock)
    pacer.due(0)
    clock.time += 0.1
    assert pacer.due(40 * MS) == pytest.approx(100.04)
    assert pacer.due(160 * MS) == pytest.approx(100.16)
