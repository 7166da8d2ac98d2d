"""Between the detector and what chooses its setting."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

pytest.importorskip('torch')
import torch

from moving_object_detector.common.options import with_values
from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.setting import Setting
from moving_object_detector.nodes.adaptation import Adaptation, PairClock
from moving_object_detector.nodes.config import NodeConfig


class Detector:
    """Stands for a detector whose work takes a time that the test chooses."""

    def __init__(self):
        self.setting = Setting(WindowConfig(5, 5, 1))
        self.stage = self.first_stage = lambda _: None
        self.engine = SimpleNamespace(device=torch.device('cpu'))
        self.sizes = {False: (64, 128)}
        self.last_inferred, self.last_pairs = True, 10


def config(**values):
    return with_values(NodeConfig(), {name.replace('__', '.'): value for name, value in values.items()})


@pytest.fixture
def said():
    return []


def overload(adaptation, detector, frames=40, pair=0.02, share=1.0):
    """Feed frames of which each pair takes 20 ms, that share of it at half the size, while images come every 50 ms."""
    for frame in range(frames):
        adaptation.arrived(0.05 * frame)
        detector.last_pairs = sum(detector.setting.batches)
        adaptation._clock._seconds = detector.last_pairs * pair * (share if detector.setting.half else 1.0)
        adaptation.stepped(0.001 + adaptation._clock._seconds)
        adaptation.published(0.001)
        adaptation.decide()


def test_without_a_target_nothing_is_touched(said):
    adaptation = Adaptation(SimpleNamespace(), config(), said.append)
    adaptation.arrived(1.0)
    adaptation.stepped(0.1)
    adaptation.decide()
    adaptation.forget()
    assert adaptation.inferred()
    assert all(adaptation.takes() for _ in range(5))
    assert (adaptation.report(), adaptation.trouble, adaptation.delay, adaptation.active) == ({}, '', 5, False)
    assert not said


def test_a_load_that_is_too_much_changes_the_detector_and_is_told(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    assert adaptation.report()['load reason'] == 'the configured window'
    overload(adaptation, detector, frames=8)
    # Twenty a second: ten pairs need 200 ms of 50, two need 40.
    assert detector.setting == Setting(WindowConfig(1, 1, 1))
    assert adaptation.delay == 1
    assert adaptation.report() == {
        'load setting': 'window -1..+1, stride 1, every frame, 128x64',
        'load reason': 'the last one needed 404% of the time at 20.0 images/s',
        'target rate hz': '100.00',
        'camera rate hz': '20.00',
        'utilisation %': '404',
    }
    assert said == [
        'load: window -1..+1, stride 1, every frame, 128x64; the last one needed 404% of the time at 20.0 images/s'
    ]


def test_a_load_that_no_window_fits_makes_the_size_smaller_where_there_is_one(said):
    detector = Detector()
    detector.sizes = {False: (96, 192), True: (48, 96)}
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    # Twenty a second: one pair needs 60 ms of 50, at half the size 30; it takes 40, also of what is known then.
    overload(adaptation, detector, pair=0.06, share=2 / 3)
    assert detector.setting == Setting(WindowConfig(1, 0, 1), half=True)
    assert adaptation.report()['load setting'] == 'window -1..+0, stride 1, every frame, half size, 96x48'
    assert adaptation._costs.half == pytest.approx(2 / 3)
    assert said[-1].startswith('load: window -1..+0, stride 1, every frame, half size, 96x48; the last one needed')
    adaptation.configure(config(load__target_rate=0.0))
    assert detector.setting == Setting(WindowConfig(5, 5, 1))
    # What was measured at half the size says nothing of the setting that it starts anew with.
    adaptation.configure(config(load__target_rate=100.0))
    overload(adaptation, detector, frames=3, pair=0.06, share=2 / 3)
    assert detector.setting == Setting(WindowConfig(5, 5, 1))


def test_without_the_target_all_is_as_before(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    overload(adaptation, detector)
    adaptation.configure(config(load__target_rate=0.0))
    assert detector.setting == Setting(WindowConfig(5, 5, 1))
    assert detector.stage is detector.first_stage
    assert (adaptation.report(), adaptation.delay) == ({}, 5)


def test_zero_lag_results_need_no_later_neighbours(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    adaptation.configure(config(load__target_rate=100.0, estimate='zero_lag'))
    assert detector.setting == Setting(WindowConfig(5, 0, 1))
    assert adaptation.delay == 0
    adaptation.configure(config(load__target_rate=100.0))
    assert detector.setting == Setting(WindowConfig(5, 5, 1))


def test_another_target_keeps_the_setting_until_it_is_judged(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    overload(adaptation, detector, frames=8)
    adaptation.configure(config(load__target_rate=50.0))
    assert detector.setting == Setting(WindowConfig(1, 1, 1))
    assert adaptation.report()['target rate hz'] == '50.00'


def test_images_are_left_out_evenly(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    adaptation._controller.setting = Setting(WindowConfig(1, 0, 1), take=3)
    assert [adaptation.takes() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_overload_at_the_smallest_setting_is_trouble(said):
    detector = Detector()
    adaptation = Adaptation(detector, config(load__target_rate=100.0), said.append)
    adaptation._controller.overloaded = True
    assert adaptation.trouble.startswith(
        'load.target_rate 100 Hz cannot be kept even at the smallest setting '
        '(window -5..+5, stride 1, every frame, 128x64); lower the rate'
    )


def test_the_clock_leaves_out_what_a_frame_costs_without_pairs_and_waits_for_a_gpu():
    waits = []
    clock = PairClock(lambda: (waits.append(1), time.sleep(0.02)))
    with clock('prepare'):
        time.sleep(0.05)
    assert clock.take() == 0
    with clock('flow'):
        time.sleep(0.01)
    with clock('vote'):
        pass
    assert clock.take() >= 0.03
    assert waits == [1]
    assert clock.take() == 0
