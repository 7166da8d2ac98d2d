"""Choosing a setting: sequences worked out by hand, and a machine in virtual time."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.load import HOLD, OVERLOAD, ROOM, SAMPLES, LoadController, windows

FIVE = WindowConfig(5, 5, 1)


def text(steps: list[WindowConfig]) -> list[str]:
    """Write a window as past, future."""
    return [f'{step.past}{step.future}' for step in steps]


def test_the_settings_of_refined_results() -> None:
    assert text(windows(FIVE, zero_lag=False)) == ['55', '44', '33', '22', '11', '10']
    assert text(windows(WindowConfig(3, 1, 2), zero_lag=False)) == ['31', '21', '11', '10']
    assert {step.stride for step in windows(WindowConfig(3, 1, 2), zero_lag=False)} == {2}
    assert text(windows(WindowConfig(2, 0, 1), zero_lag=False)) == ['20', '10']
    assert text(windows(WindowConfig(0, 2, 1), zero_lag=False)) == ['02', '01']


def test_the_settings_of_zero_lag_results_have_no_later_neighbours() -> None:
    assert text(windows(WindowConfig(3, 5, 1), zero_lag=True)) == ['30', '20', '10']


def test_the_rate_of_arrivals() -> None:
    controller = LoadController(FIVE, zero_lag=False, target=10)
    for moment in (0.0, 0.1, 0.2, 0.3, 0.4):
        controller.arrived(moment)
    assert controller.rate == 0  # too few to say
    controller.arrived(0.5)
    assert controller.rate == pytest.approx(10)
    # In bunches of four every 0.4 s: ten a second on average too.
    for bunch in range(8):
        for _ in range(4):
            controller.arrived(1.0 + 0.4 * bunch)
    assert controller.rate == pytest.approx(10, rel=0.01)
    controller.pause()
    assert controller.rate == 0


def test_a_burst_is_no_rate() -> None:
    controller = LoadController(FIVE, zero_lag=False, target=10)
    for image in range(40):  # what waited while the node started
        controller.arrived(0.001 * image)
    assert controller.rate == 0
    for image in range(60):
        controller.arrived(0.1 + image / 30)
    assert controller.rate == pytest.approx(30, rel=0.02)


def overload(controller: LoadController, frames: int = 10) -> None:
    """Feed frames of which each pair takes 20 ms, while images come every 50 ms."""
    for frame in range(frames):
        controller.arrived(0.05 * frame)
        pairs = controller.window.past + controller.window.future
        controller.worked(0.02 * pairs, pairs, pairs, inferred=True)
        controller.decide(0.05 * frame)


def test_what_is_done_about_a_load_that_is_too_much_is_told() -> None:
    controller = LoadController(FIVE, zero_lag=False, target=100.0)
    assert controller.report()['load reason'] == 'the configured window'
    overload(controller)
    # Twenty a second: ten pairs need 200 ms of 50, two need 40.
    assert controller.window == WindowConfig(1, 1, 1)
    assert controller.report() == {
        'load setting': 'window -1..+1, stride 1',
        'load reason': 'the previous window needed 400% of the time at 20.0 images/s',
        'target rate hz': '100.00',
        'camera rate hz': '20.00',
        'utilisation %': '400',
    }
    assert controller.trouble == ''


def test_overload_at_the_smallest_setting_is_trouble() -> None:
    controller = LoadController(WindowConfig(1, 0, 1), zero_lag=False, target=100.0)
    for frame in range(10):
        controller.arrived(0.05 * frame)
        controller.worked(0.2, 1, 1, inferred=True)
        controller.decide(0.05 * frame)
    assert 'load.target_rate' in controller.trouble
    controller.pause()
    assert controller.trouble == ''


@pytest.mark.parametrize('zero_lag', [False, True])
def test_without_a_target_the_window_stays(zero_lag: bool) -> None:
    controller = LoadController(FIVE, zero_lag=zero_lag, target=0.0)
    overload(controller)
    assert controller.window == (WindowConfig(5, 0) if zero_lag else FIVE)
    assert (controller.report(), controller.trouble) == ({}, '')


class Hand:
    """A controller fed by hand: a pair costs ``pair`` seconds, an image comes every ``period``."""

    def __init__(self, target: float, period: float, ceiling: WindowConfig = FIVE) -> None:
        self.controller = LoadController(ceiling, zero_lag=False, target=target)
        self.period, self.now = period, 0.0

    def frames(self, count: int, pair: float, masks: float = 1.0) -> list[str]:
        """Feed frames with masks of a share of their pairs; return the settings that were changed to."""
        changes = []
        for _ in range(count):
            self.now += self.period
            self.controller.arrived(self.now)
            pairs = self.controller.window.past + self.controller.window.future
            self.controller.worked(pairs * pair, pairs, int(masks * pairs), inferred=True)
            if self.controller.decide(self.now):
                changes += text([self.controller.window])
        return changes


def test_a_setting_that_fits_stays() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(200, pair=0.0094) == []  # 94 ms of 100
    assert hand.controller.utilisation == pytest.approx(0.94)
    assert hand.controller.reason == 'the configured window'


def test_down_at_once_to_what_fits() -> None:
    hand = Hand(target=10, period=0.1)
    # Ten pairs would take 160 ms of 100; eight 128, six 96, four 64.
    assert hand.frames(10, pair=0.016) == ['22']
    assert hand.controller.reason == 'the previous window needed 160% of the time at 10.0 images/s'
    assert hand.frames(300, pair=0.016) == []  # six pairs would take 96
    assert hand.controller.utilisation == pytest.approx(0.64)
    assert not hand.controller.overloaded


def test_single_slow_frames_change_nothing() -> None:
    hand = Hand(target=10, period=0.1)
    hand.frames(20, pair=0.006)
    for _ in range(20):
        assert hand.frames(4, pair=0.5) + hand.frames(SAMPLES - 4, pair=0.006) == []


def test_up_step_by_step_after_some_seconds_of_room_each() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(10, pair=0.016) == ['22']
    # Now ten pairs would take 70 ms. Some frames until the new setting is judged, then three seconds.
    assert hand.frames(round(HOLD / 0.1), pair=0.007) == []
    assert hand.frames(14, pair=0.007) == ['33']
    assert hand.controller.reason == 'there is room: expected to need 42% of the time at 10.0 images/s'
    assert hand.frames(100, pair=0.007) == ['44', '55']


@pytest.mark.parametrize('share', [0.0, 0.5])
def test_a_scene_in_which_nothing_moves_is_no_sign_of_room(share: float) -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(10, pair=0.016) == ['22']
    hand.frames(20, pair=0.016)
    # Without the generator a pair is cheap, for as long as nothing moves.
    assert hand.frames(2000, pair=0.003, masks=share) == []
    assert hand.frames(2000, pair=0.016) == []
    # A machine that has become faster shows it once something moves.
    assert hand.frames(50, pair=0.007) == ['33']


def test_pairs_without_masks_that_take_too_long_still_count() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(10, pair=0.016, masks=0.0) == ['22']


def test_room_that_does_not_last_does_not_count() -> None:
    hand = Hand(target=10, period=0.1)
    hand.frames(10, pair=0.016)
    for _ in range(10):
        assert hand.frames(20, pair=0.007) == []
        assert hand.frames(10, pair=0.020) == []


def test_a_larger_setting_that_fails_is_tried_ever_more_rarely() -> None:
    """A pair costs more the more neighbours there are, against all that is assumed."""
    hand = Hand(target=10, period=0.1, ceiling=WindowConfig(2, 2, 1))
    ups = []
    for frame in range(6000):
        dear = hand.controller.window.past == 2
        ups += [frame for change in hand.frames(1, pair=0.05 if dear else 0.01) if change == '22']
    gaps = np.diff(ups)
    assert 1 < len(ups) < 12
    assert all(later > 1.4 * earlier or later > 1000 for earlier, later in itertools.pairwise(gaps))


def test_the_camera_sets_the_pace_where_it_is_slower_than_the_target() -> None:
    hand = Hand(target=30, period=0.1)
    assert hand.frames(100, pair=0.009) == []


def test_fewer_masks_than_images_leave_time_for_a_larger_window() -> None:
    hand = Hand(target=10, period=1 / 30)
    # An image in three votes on those before it: 10 x (5 + 5 / 3) pairs of 14 ms, 93 %.
    assert hand.frames(20, pair=0.014) == []
    assert hand.controller.utilisation == pytest.approx(0.014 * 10 * (5 + 5 / 3), rel=0.01)


def test_overload_at_the_smallest_setting_is_told() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(10, pair=0.15) == ['10']
    assert not hand.controller.overloaded
    hand.frames(10, pair=0.15)
    assert hand.controller.overloaded
    hand.frames(20, pair=0.08)
    assert not hand.controller.overloaded


def test_another_target_takes_effect() -> None:
    hand = Hand(target=10, period=1 / 30)
    assert hand.frames(20, pair=0.006) == []
    hand.controller.target = 30
    assert hand.frames(200, pair=0.006) == ['22']
    hand.controller.target = 5
    assert hand.frames(2000, pair=0.006)[-1] == '55'


@dataclass
class Machine:
    """A camera, a computer and the node's pipeline, in virtual seconds.

    Entering an image, a batch of pairs (``fixed + pairs x pair``) and a result take time, all with noise; every
    image that came meanwhile is entered, of thirty at most, and the newest is computed.
    """

    rate: float
    target: float
    enter: float
    fixed: float
    pair: float
    result: float
    noise: float = 0.05
    ceiling: WindowConfig = FIVE
    zero_lag: bool = False
    seed: int = 0
    load: float = 1.0
    """Factor on all costs: others use the machine."""
    changes: list[tuple[float, WindowConfig]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.controller = LoadController(self.ceiling, zero_lag=self.zero_lag, target=self.target)
        self.now = self.next = 0.0
        self.entered: deque[tuple[int, bool]] = deque(maxlen=40)
        self.index = -1

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = max(self.now, self.next)
            came = []
            while self.next <= self.now:
                came.append(self.next)
                self.controller.arrived(self.next)
                self.next += self.random.uniform(0.9, 1.1) / self.rate
            taken = came[-30:]
            self.waiting.append(len(taken))
            for position, arrival in enumerate(taken):
                self._step(arrival, newest=position == len(taken) - 1)

    def _spend(self, seconds: float) -> float:
        spent = seconds * self.load * float(np.exp(self.random.normal(0, self.noise)))
        self.now += spent
        return spent

    def _step(self, arrival: float, *, newest: bool) -> None:
        window, begin = self.controller.window, self.now
        self.index += 1
        self._spend(self.enter)
        there = dict(self.entered)
        pairs = 0
        if newest:
            pairs += sum(self.index - k * window.stride in there for k in range(1, window.past + 1))
            pairs += sum(there.get(self.index - k * window.stride, False) for k in range(1, window.future + 1))
        self.entered.append((self.index, newest))
        if pairs:
            self._spend(self.fixed + pairs * self.pair)
        if newest:
            self._spend(self.result)
            self.latencies.append(self.now - arrival)
            self.masks.append(self.now)
        self.controller.worked(self.now - begin, pairs, pairs, inferred=newest)
        if self.controller.decide(self.now):
            self.changes.append((self.now, self.controller.window))

    def true_load(self, window: WindowConfig) -> float:
        """Return the share of the time that a window needs in truth, where every image gets masks."""
        return self.rate * self.load * (self.enter + self.fixed + pairs_of(window) * self.pair + self.result)

    def steps(self) -> list[WindowConfig]:
        return windows(self.ceiling, zero_lag=self.zero_lag)


def pairs_of(window: WindowConfig) -> int:
    return window.past + window.future


def random_machine(seed: int) -> Machine:
    """Return a machine on which the largest setting takes between a tenth of the time and twelve times as much."""
    random = np.random.default_rng(seed)
    rate = float(random.uniform(5, 60))
    costs = random.uniform(0, 1, 4) * (0.3, random.choice((0.0, 6.0)), 1.0, 1.0)
    machine = Machine(
        rate=rate,
        target=float(rate * random.choice((1.0, 5.0))),
        enter=costs[0], fixed=costs[1], pair=costs[2], result=costs[3],
        ceiling=WindowConfig(*(int(n) for n in random.integers(1, 6, 2)), int(random.integers(1, 3))),
        zero_lag=bool(random.integers(0, 2)),
        seed=seed,
    )  # fmt: skip
    machine.load = float(np.exp(random.uniform(np.log(0.1), np.log(12)))) / machine.true_load(machine.steps()[0])
    return machine


@pytest.mark.parametrize('seed', range(40))
def test_it_settles_where_the_next_larger_setting_would_not_surely_fit(seed: int) -> None:
    machine = random_machine(seed)
    largest = machine.load * (machine.enter + machine.fixed + 10 * machine.pair + machine.result)
    machine.run(max(120, 60 * largest))
    settled = machine.controller.window
    steps = machine.steps()
    where = steps.index(settled)
    assert machine.true_load(settled) < OVERLOAD * 1.1 or settled == steps[-1]
    if where:
        # Work grows with the pairs at most, which is what is reckoned with.
        assert machine.true_load(settled) * pairs_of(steps[where - 1]) / pairs_of(settled) > ROOM * 0.85
    # No oscillation, and the queue is what came during one frame's work.
    before = len(machine.changes)
    machine.run(120)
    assert len(machine.changes) - before <= 3
    assert len(machine.changes) <= 20
    if machine.true_load(machine.controller.window) < 1:
        # A frame waits for the one under way, then for those that came meanwhile to be entered.
        recent = machine.latencies[-200:]
        waiting = 2 + 1.4 * largest * machine.rate
        assert max(machine.waiting[-200:]) <= waiting
        assert max(recent) < 1.4 * (2 * largest + waiting * machine.load * machine.enter)


def test_an_overload_that_comes_and_goes() -> None:
    machine = Machine(rate=30, target=30, enter=0.001, fixed=0.0, pair=0.0018, result=0.003)
    machine.run(20)
    assert machine.changes == []
    machine.load = 4.0
    began = machine.now
    machine.run(30)
    down = [window for _, window in machine.changes]
    assert machine.changes[0][0] - began < 2  # within twenty frames of 0.1 s
    assert text(down)[-1] in ('11', '10')  # two pairs: (1 + 2 x 1.8 + 3) x 4 of 33 ms, 91 %
    assert machine.changes[-1][0] - began < 15
    assert len(down) <= 4
    assert max(machine.latencies) < 0.3
    assert max(machine.latencies[-300:]) < 0.05
    machine.load = 1.0
    ended = machine.now
    machine.run(30)
    assert machine.controller.window == FIVE
    assert machine.changes[-1][0] - ended < 25
    assert len(machine.changes) <= len(down) + 6


@pytest.mark.parametrize(('ceiling', 'pair'), [(FIVE, 0.004), (WindowConfig(1, 0, 1), 0.032)])
@pytest.mark.parametrize('seed', range(5))
def test_a_load_that_varies_all_the_time_makes_few_changes(seed: int, ceiling: WindowConfig, pair: float) -> None:
    machine = Machine(
        rate=20, target=20, enter=0.001, fixed=0.002, pair=pair, result=0.003, noise=0.25, ceiling=ceiling, seed=seed
    )
    random = np.random.default_rng(seed)
    for _ in range(300):
        machine.load = float(random.uniform(0.8, 1.6))
        machine.run(1)
    assert len(machine.changes) < 30
    # In the worst case a frame waits for the one under way.
    assert max(machine.latencies) < 0.3


@pytest.mark.parametrize('target', [5, 10, 20])
def test_the_target_is_met_where_it_can_be(target: int) -> None:
    machine = Machine(rate=30, target=target, enter=0.002, fixed=0.0, pair=0.009, result=0.01)
    machine.run(40)
    machine.masks.clear()
    machine.run(20)
    assert len(machine.masks) / 20 >= 0.9 * target
    # And by a window that is not smaller than it need be.
    assert machine.controller.window.past >= {5: 5, 10: 3, 20: 1}[target]
