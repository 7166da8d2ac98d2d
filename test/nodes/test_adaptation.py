"""Between the detector and what chooses its setting."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from moving_object_detector.common.options import with_values
from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.load import Schedule
from moving_object_detector.nodes.adaptation import Adaptation
from moving_object_detector.nodes.parameters import NodeConfig


def config(**values):
    return with_values(NodeConfig(), {name.replace('__', '.'): value for name, value in values.items()})


@pytest.fixture
def detector():
    return SimpleNamespace(schedule=Schedule(WindowConfig(5, 5, 1)))


def overload(adaptation, detector, frames=40):
    """Feed frames of which each pair takes 20 ms, while images come every 50 ms."""
    for frame in range(frames):
        adaptation.arrived(0.05 * frame)
        pairs = detector.schedule.batches[0]
        adaptation.worked(0.02 * pairs, pairs, pairs, inferred=True)


def test_without_a_target_nothing_is_touched():
    adaptation = Adaptation(SimpleNamespace(), config())
    adaptation.arrived(1.0)
    adaptation.worked(0.1, 10, 10, inferred=True)
    adaptation.forget()
    assert (adaptation.report(), adaptation.trouble, adaptation.delay, adaptation.active) == ({}, '', 5, False)


def test_a_load_that_is_too_much_changes_the_detector_and_is_told(detector, caplog):
    adaptation = Adaptation(detector, config(load__target_rate=100.0))
    assert adaptation.report()['load reason'] == 'the configured window'
    with caplog.at_level(logging.INFO):
        overload(adaptation, detector, frames=10)
    # Twenty a second: ten pairs need 200 ms of 50, two need 40.
    assert detector.schedule == Schedule(WindowConfig(1, 1, 1))
    assert adaptation.delay == 1
    assert adaptation.report() == {
        'load setting': 'window -1..+1, stride 1, every frame',
        'load reason': 'the last one needed 400% of the time at 20.0 images/s',
        'target rate hz': '100.00',
        'camera rate hz': '20.00',
        'utilisation %': '400',
    }
    assert caplog.messages == [
        'load: window -1..+1, stride 1, every frame; the last one needed 400% of the time at 20.0 images/s'
    ]


def test_without_the_target_all_is_as_before(detector):
    adaptation = Adaptation(detector, config(load__target_rate=100.0))
    overload(adaptation, detector)
    adaptation.configure(config(load__target_rate=0.0))
    assert detector.schedule == Schedule(WindowConfig(5, 5, 1))
    assert (adaptation.report(), adaptation.delay) == ({}, 5)


def test_zero_lag_results_need_no_later_neighbours(detector):
    adaptation = Adaptation(detector, config(load__target_rate=100.0))
    adaptation.configure(config(load__target_rate=100.0, estimate='zero_lag'))
    assert detector.schedule == Schedule(WindowConfig(5, 0, 1))
    assert adaptation.delay == 0
    adaptation.configure(config(load__target_rate=100.0))
    assert detector.schedule == Schedule(WindowConfig(5, 5, 1))


def test_another_target_keeps_the_setting_until_it_is_judged(detector):
    adaptation = Adaptation(detector, config(load__target_rate=100.0))
    overload(adaptation, detector, frames=10)
    adaptation.configure(config(load__target_rate=50.0))
    assert detector.schedule == Schedule(WindowConfig(1, 1, 1))
    assert adaptation.report()['target rate hz'] == '50.00'


def test_overload_at_the_smallest_setting_is_trouble(detector):
    adaptation = Adaptation(detector, config(load__target_rate=100.0, window__past=1, window__future=0))
    detector.schedule = Schedule(WindowConfig(1, 0, 1))
    for frame in range(10):
        adaptation.arrived(0.05 * frame)
        adaptation.worked(0.2, 1, 1, inferred=True)
    assert adaptation.trouble.startswith('load.target_rate 100 Hz cannot be kept')
