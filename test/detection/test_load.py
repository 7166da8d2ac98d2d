"""Choosing a setting: sequences worked out by hand, and a machine in virtual time."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest

from moving_object_detector.detection.config import WindowConfig
from moving_object_detector.detection.costs import SAMPLES, Arrivals, Costs
from moving_object_detector.detection.load import HOLD, OVERLOAD, ROOM, LoadController, ladder
from moving_object_detector.detection.setting import Setting

FIVE = WindowConfig(5, 5, 1)


def text(settings: list[Setting]) -> list[str]:
    """Write a setting as past, future, frames for each mask, unless it is 1 images for each frame, h for half size."""
    return [
        f'{s.window.past}{s.window.future}/{s.every}' + (f'/{s.take}' if s.take > 1 else '') + ('h' if s.half else '')
        for s in settings
    ]


def test_the_ladder_of_refined_results() -> None:
    assert text(ladder(FIVE, zero_lag=False))[:9] == [
        '55/1', '44/1', '33/1', '22/1', '11/1', '10/1', '10/1/2', '10/1/3', '10/1/4'
    ]  # fmt: skip
    assert text(ladder(FIVE, zero_lag=False))[-1] == '10/1/16'
    assert text(ladder(FIVE, zero_lag=False, sparsest=2))[-2:] == ['10/1', '10/1/2']
    assert text(ladder(FIVE, zero_lag=False, sparsest=1))[-1] == '10/1'
    assert text(ladder(WindowConfig(3, 1, 2), zero_lag=False))[:5] == ['31/1', '21/1', '11/1', '10/1', '10/1/2']
    assert {step.window.stride for step in ladder(WindowConfig(3, 1, 2), zero_lag=False)} == {2}
    assert text(ladder(WindowConfig(2, 0, 1), zero_lag=False))[:3] == ['20/1', '10/1', '10/1/2']
    assert text(ladder(WindowConfig(0, 2, 1), zero_lag=False))[:3] == ['02/1', '01/1', '01/1/2']


def test_the_ladder_of_zero_lag_results_has_no_later_neighbours() -> None:
    assert text(ladder(WindowConfig(3, 5, 1), zero_lag=True))[:4] == ['30/1', '20/1', '10/1', '10/1/2']


def test_where_fewer_masks_than_images_are_asked_for_the_window_comes_before_their_number() -> None:
    found = text(ladder(WindowConfig(2, 2, 1), zero_lag=False, spare=3))
    assert found[:11] == [
        '22/1', '22/2', '22/3', '11/1', '11/2', '11/3', '10/1', '10/2', '10/3', '10/1/2', '10/1/3'
    ]  # fmt: skip


def test_the_size_gives_way_before_the_window() -> None:
    found = text(ladder(FIVE, zero_lag=False, half=True, sparsest=3))
    assert found == [
        '55/1', '55/1h', '44/1h', '33/1h', '22/1h', '11/1h', '10/1h', '10/1/2h', '10/1/3h'
    ]  # fmt: skip
    assert text(ladder(WindowConfig(1, 1, 1), zero_lag=False, half=True, spare=2))[:6] == [
        '11/1', '11/2', '11/1h', '11/2h', '10/1h', '10/2h'
    ]  # fmt: skip
    assert text(ladder(FIVE, zero_lag=True, half=True))[:3] == ['50/1', '50/1h', '40/1h']
    assert text(ladder(WindowConfig(1, 0, 1), zero_lag=False, half=True))[:3] == ['10/1', '10/1h', '10/1/2h']


def test_the_rate_of_arrivals() -> None:
    arrivals = Arrivals()
    for moment in (0.0, 0.1, 0.2, 0.3, 0.4):
        arrivals.add(moment)
    assert arrivals.rate() == 0  # too few to say
    arrivals.add(0.5)
    assert arrivals.rate() == pytest.approx(10)
    # In bunches of four every 0.4 s: ten a second on average too.
    for bunch in range(8):
        for _ in range(4):
            arrivals.add(1.0 + 0.4 * bunch)
    assert arrivals.rate() == pytest.approx(10, rel=0.01)
    arrivals.clear()
    assert arrivals.rate() == 0


def test_costs_by_hand() -> None:
    costs = Costs()
    costs.frame(0.004)
    costs.result(0.010)
    costs.batch(10, 9.0)  # the engine prepares itself
    for seconds in (0.10, 0.10, 0.50, 0.10):  # one outlier
        costs.batch(10, seconds)
    assert not costs.settled
    costs.batch(10, 0.12)
    assert costs.settled
    # 0.01 s a pair: 4 ms + 10 x 10 ms + 10 ms; 4 ms + 4 x 10 ms + 10 ms; 4 ms + (10 ms + 10 ms) / 5.
    assert costs.work(Setting(FIVE)) == pytest.approx(0.114)
    assert costs.work(Setting(WindowConfig(2, 2, 1))) == pytest.approx(0.054)
    assert costs.work(Setting(WindowConfig(1, 0, 1), 5)) == pytest.approx(0.008)
    assert costs.work(Setting(WindowConfig(1, 0, 1), take=4)) == pytest.approx(0.006)
    costs.changed()
    assert not costs.settled


def feed(costs: Costs, pairs: int, seconds: float, *, half: bool = False) -> None:
    """Change the setting to one with batches of that length and size."""
    costs.changed()
    for _ in range(6):
        costs.batch(pairs, seconds, half=half)


def test_what_a_batch_costs_beside_its_pairs_is_learnt_when_the_setting_changes() -> None:
    costs = Costs()
    costs.frame(0.0)
    # 6 ms + 1 ms a pair: an overhead of six pairs.
    feed(costs, 10, 0.016)
    assert costs.overhead == 0
    feed(costs, 4, 0.010)
    assert costs.overhead == pytest.approx(6)
    assert costs.work(Setting(FIVE)) == pytest.approx(0.016)
    assert costs.work(Setting(WindowConfig(1, 0, 1))) == pytest.approx(0.007)
    # The frames between bring a batch of one pair each, with its overhead: (7 + 7) / 2.
    assert costs.work(Setting(WindowConfig(1, 1, 1), 2)) == pytest.approx(0.007)


def test_a_machine_that_a_batch_does_not_fill_has_a_large_overhead() -> None:
    costs = Costs()
    feed(costs, 10, 0.0100)
    feed(costs, 2, 0.0101)
    assert costs.overhead == 50
    # Every time anew: 4 ms a pair and no more.
    feed(costs, 8, 0.032)
    feed(costs, 2, 0.008)
    assert costs.overhead == pytest.approx(0)


def test_a_small_change_of_the_window_teaches_little() -> None:
    costs = Costs()
    feed(costs, 10, 0.100)
    feed(costs, 9, 0.095)  # ten pairs of overhead, or 5 % of noise
    assert 0 < costs.overhead < 2


ONE_EACH = WindowConfig(1, 1, 1)


def test_what_half_the_size_costs_is_learnt_when_the_size_changes() -> None:
    costs = Costs()
    costs.frame(0.0)
    # A pair is 6 ms of flow and 12 ms of generator, 3 ms of it at half the size.
    feed(costs, 10, 0.180)
    assert costs.work(Setting(ONE_EACH, half=True)) == pytest.approx(0.018)  # half as long as at the whole size
    feed(costs, 2, 0.018, half=True)  # window and size at once
    assert costs.half == pytest.approx(0.5)
    feed(costs, 2, 0.036)
    feed(costs, 2, 0.022, half=True)
    assert costs.half == pytest.approx(22 / 36)
    assert costs.work(Setting(ONE_EACH)) == pytest.approx(0.036)
    assert costs.work(Setting(WindowConfig(1, 0, 1), half=True)) == pytest.approx(0.011)
    feed(costs, 1, 0.020)  # and back, to another window
    assert costs.half == pytest.approx(0.55)
    assert costs.overhead == 0


@pytest.mark.parametrize(('seconds', 'half'), [(0.001, 0.25), (0.010, 0.25), (0.040, 1.0), (0.200, 1.0)])
def test_half_the_size_costs_a_quarter_at_least_and_the_whole_at_most(seconds: float, half: float) -> None:
    costs = Costs()
    feed(costs, 2, 0.040)
    feed(costs, 2, seconds, half=True)
    assert costs.half == half


def test_the_overhead_stays_when_the_size_changes() -> None:
    """Of 8 ms and 1 ms a pair, a quarter of that at half the size: learnt from windows, then from sizes."""
    costs = Costs()
    costs.frame(0.0)
    feed(costs, 8, 0.016)
    feed(costs, 2, 0.010)
    assert costs.overhead == pytest.approx(8)
    feed(costs, 2, 0.0085, half=True)
    assert (costs.overhead, costs.half) == (pytest.approx(8), pytest.approx(0.25))
    feed(costs, 1, 0.00825, half=True)
    assert costs.overhead == pytest.approx(8)
    assert costs.work(Setting(FIVE)) == pytest.approx(0.018)


class Hand:
    """A controller fed by hand: a pair costs ``pair`` seconds, an image comes every ``period``.

    ``share``: of a pair's cost, what it costs at half the size; None: there is no half size.
    """

    def __init__(self, target: float, period: float, ceiling: WindowConfig = FIVE, share: float | None = None) -> None:
        self.arrivals, self.costs = Arrivals(), Costs()
        self.controller = LoadController(
            ceiling,
            zero_lag=False,
            target=target,
            max_gap=1.0,
            arrivals=self.arrivals,
            costs=self.costs,
            half=share is not None,
        )
        self.period, self.now, self.share = period, 0.0, share or 1.0
        for pairs in range(1, 11):
            for half in (False, True):
                self.costs.batch(pairs, 1.0, half=half)

    def frames(self, count: int, pair: float) -> list[str]:
        """Feed frames; return the settings that were changed to."""
        changes = []
        for _ in range(count):
            self.now += self.period
            self.arrivals.add(self.now)
            self.costs.frame(0.0)
            pairs, half = self.controller.setting.batches[0], self.controller.setting.half
            self.costs.batch(pairs, pairs * pair * (self.share if half else 1.0), half=half)
            if self.controller.decide(self.now):
                changes += text([self.controller.setting])
        return changes


def test_a_setting_that_fits_stays() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(200, pair=0.0094) == []  # 94 ms of 100
    assert hand.controller.utilisation == pytest.approx(0.94)
    assert hand.controller.reason == 'the configured window'


def test_down_at_once_to_what_fits() -> None:
    hand = Hand(target=10, period=0.1)
    # Ten pairs would take 160 ms of 100; eight 128, six 96, four 64.
    assert hand.frames(6, pair=0.016) == ['22/1']
    assert hand.controller.reason == 'the last one needed 160% of the time at 10.0 images/s'
    assert hand.frames(300, pair=0.016) == []  # six pairs would take 96
    assert hand.controller.utilisation == pytest.approx(0.64)
    assert not hand.controller.overloaded


def test_the_size_before_the_rate_and_back() -> None:
    hand = Hand(target=10, period=0.1, share=0.6)
    # One pair would take 120 ms of 100, at half the size 60 as long as nothing is known; in truth 72.
    assert hand.frames(6, pair=0.12) == ['10/1h']
    assert hand.frames(300, pair=0.12) == []
    assert hand.controller.utilisation == pytest.approx(0.72)
    # 48 ms, two pairs would take 96, too much to go up; then 36 and 72.
    assert hand.frames(300, pair=0.08) == []
    assert hand.frames(60, pair=0.06) == ['11/1h']
    assert hand.frames(300, pair=0.06) == []
    # Ten pairs at the whole size take 60 ms.
    assert hand.frames(60, pair=0.006) == ['55/1']


def test_where_all_is_flow_images_are_left_out() -> None:
    hand = Hand(target=10, period=0.1, share=1.0)
    # Half the size helps nothing; one pair takes 120 ms of 200.
    assert hand.frames(12, pair=0.12) == ['10/1h', '10/1/2h']
    assert hand.frames(600, pair=0.12) == []


def test_a_size_that_fails_is_tried_ever_more_rarely() -> None:
    """The whole size costs more than a machine at half the size can know: half is taken for 0.4 of it, at most."""
    hand = Hand(target=10, period=0.1, ceiling=WindowConfig(1, 0, 1), share=0.25)
    ups = []
    for frame in range(6000):
        whole = not hand.controller.setting.half
        hand.costs.half = max(hand.costs.half, 0.4)
        ups += [frame for change in hand.frames(1, pair=0.12 if whole else 0.1) if change == '10/1']
    gaps = np.diff(ups)
    assert 1 < len(ups) < 12
    assert all(later > 1.4 * earlier or later > 1000 for earlier, later in itertools.pairwise(gaps))


def test_single_slow_frames_change_nothing() -> None:
    hand = Hand(target=10, period=0.1)
    hand.frames(20, pair=0.006)
    for _ in range(20):
        assert hand.frames(4, pair=0.5) + hand.frames(SAMPLES - 4, pair=0.006) == []


def test_up_only_after_some_seconds_of_room() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(6, pair=0.016) == ['22/1']
    # Now ten pairs would take 70 ms. Five frames until the new setting is judged, then three seconds.
    assert hand.frames(4 + round(HOLD / 0.1), pair=0.007) == []
    assert hand.frames(6, pair=0.007) == ['55/1']
    assert hand.controller.reason == 'there is room: expected to need 70% of the time at 10.0 images/s'


def test_room_that_does_not_last_does_not_count() -> None:
    hand = Hand(target=10, period=0.1)
    hand.frames(6, pair=0.016)
    for _ in range(10):
        assert hand.frames(20, pair=0.007) == []
        assert hand.frames(10, pair=0.020) == []


def test_a_larger_setting_that_fails_is_tried_ever_more_rarely() -> None:
    """A pair costs more the more neighbours there are, against all that is assumed."""
    hand = Hand(target=10, period=0.1, ceiling=WindowConfig(2, 2, 1))
    ups = []
    for frame in range(6000):
        dear = hand.controller.setting.window.past == 2
        ups += [frame for change in hand.frames(1, pair=0.05 if dear else 0.01) if change == '22/1']
    gaps = np.diff(ups)
    assert len(ups) < 12
    assert all(later > 1.4 * earlier or later > 1000 for earlier, later in itertools.pairwise(gaps))


def test_the_camera_sets_the_pace_where_it_is_slower_than_the_target() -> None:
    hand = Hand(target=30, period=0.1)
    assert hand.frames(100, pair=0.009) == []


def test_fewer_masks_before_a_smaller_window_where_fewer_are_asked_for() -> None:
    hand = Hand(target=10, period=1 / 30)
    # An image every 33 ms, a mask of ten pairs takes 50 ms, and one in two or three images needs one.
    assert hand.frames(10, pair=0.005) == ['55/2']


def test_below_the_smallest_window_images_are_left_out_and_overload_is_told() -> None:
    hand = Hand(target=10, period=0.1)
    assert hand.frames(6, pair=0.15) == ['10/1/2']
    # One pair takes 0.15 s of 0.2. When it takes 3 s there is no way: with fewer images still, the detector would
    # start anew at each, since a second between two is too much.
    assert hand.frames(6, pair=3.0) == ['10/1/5']
    assert not hand.controller.overloaded
    hand.frames(10, pair=3.0)
    assert hand.controller.overloaded


def test_a_camera_that_becomes_slower_gets_more_masks_again() -> None:
    hand = Hand(target=10, period=1 / 30)
    assert hand.frames(10, pair=0.006) == ['55/3']
    hand.period = 0.1
    # One step by what there is room for while the mean of the last images still falls, then the other.
    assert hand.frames(100, pair=0.006)[-1] == '55/1'


def test_another_target_takes_effect() -> None:
    hand = Hand(target=10, period=1 / 30)
    assert hand.frames(10, pair=0.006) == ['55/3']
    hand.controller.target = 30
    changes = hand.frames(200, pair=0.006)
    assert changes[-1] in ('22/1', '11/1')
    hand.controller.target = 5
    assert hand.frames(200, pair=0.006)[-1].startswith('55/')


@dataclass
class Machine:
    """A camera, a computer and the node's pipeline, in virtual seconds.

    Entering an image, a batch of pairs (``fixed + pairs x pair``; at half the size, where ``share`` says
    that there is one, a pair takes that share of it) and a result take time, all with noise; every
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
    share: float | None = None
    load: float = 1.0
    """Factor on all costs: others use the machine."""
    changes: list[tuple[float, Setting]] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self.arrivals, self.costs = Arrivals(), Costs()
        self.controller = LoadController(
            self.ceiling,
            zero_lag=self.zero_lag,
            target=self.target,
            max_gap=1.0,
            arrivals=self.arrivals,
            costs=self.costs,
            half=self.share is not None,
        )
        self.now = self.next = 0.0
        self.entered: deque[tuple[int, bool]] = deque(maxlen=40)
        self.index, self.last, self.untaken = -1, -100, 0

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = max(self.now, self.next)
            came = []
            while self.next <= self.now:
                came.append(self.next)
                self.arrivals.add(self.next)
                self.next += self.random.uniform(0.9, 1.1) / self.rate
            taken = [arrival for arrival in came[-30:] if self._takes()]
            self.waiting.append(len(taken))
            for position, arrival in enumerate(taken):
                self._step(arrival, newest=position == len(taken) - 1)

    def _takes(self) -> bool:
        self.untaken += 1
        if self.untaken < self.controller.setting.take:
            return False
        self.untaken = 0
        return True

    def _spend(self, seconds: float) -> float:
        spent = seconds * self.load * float(np.exp(self.random.normal(0, self.noise)))
        self.now += spent
        return spent

    def _step(self, arrival: float, *, newest: bool) -> None:
        setting, window = self.controller.setting, self.controller.setting.window
        self.index += 1
        self.costs.frame(self._spend(self.enter))
        inferred = newest and self.index - self.last >= setting.every
        there = dict(self.entered)
        pairs = 0
        if inferred:
            self.last = self.index
            pairs += sum(self.index - k * window.stride in there for k in range(1, window.past + 1))
        if newest:
            pairs += sum(there.get(self.index - k * window.stride, False) for k in range(1, window.future + 1))
        self.entered.append((self.index, inferred))
        if pairs:
            self.costs.batch(pairs, self._spend(self._batch(pairs, setting.half)), half=setting.half)
        if inferred:
            self.costs.result(self._spend(self.result))
            self.latencies.append(self.now - arrival)
            self.masks.append(self.now)
            if self.controller.decide(self.now):
                self.changes.append((self.now, self.controller.setting))

    def _batch(self, pairs: int, half: bool) -> float:
        return self.fixed + pairs * self.pair * (self.share if half and self.share else 1.0)

    def true_load(self, setting: Setting) -> float:
        """Return the share of the time that a setting needs in truth."""
        batches = sum(self._batch(pairs, setting.half) for pairs in setting.batches if pairs)
        return self.rate * self.load * (self.enter + (batches + self.result) / setting.every) / setting.take

    def steps(self) -> list[Setting]:
        spare = max(1, min(8, int(self.rate / self.target / 0.9)))
        return ladder(self.ceiling, zero_lag=self.zero_lag, spare=spare, half=self.share is not None)


def random_machine(seed: int, *, half: bool) -> Machine:
    """Return a machine on which the largest setting takes between a tenth of the time and twelve times as much."""
    random = np.random.default_rng(seed)
    rate = float(random.uniform(5, 60))
    costs = random.uniform(0, 1, 4) * (0.3, random.choice((0.0, 6.0)), 1.0, 1.0)
    if half:
        costs *= 0.2, 0.2, 1.0, 0.2  # else the size would matter little
    machine = Machine(
        rate=rate,
        target=float(rate * random.choice((0.15, 0.3, 0.5, 1.0, 5.0))),
        enter=costs[0], fixed=costs[1], pair=costs[2], result=costs[3],
        ceiling=WindowConfig(*(int(n) for n in random.integers(1, 6, 2)), int(random.integers(1, 3))),
        zero_lag=bool(random.integers(0, 2)),
        seed=seed,
        share=float(np.random.default_rng(100 + seed).uniform(0.25, 1)) if half else None,
    )  # fmt: skip
    machine.load = float(np.exp(random.uniform(np.log(0.1), np.log(12)))) / machine.true_load(machine.steps()[0])
    return machine


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize('seed', range(40))
def test_it_settles_at_the_largest_setting_that_fits(seed: int, half: bool) -> None:
    machine = random_machine(seed, half=half)
    largest = machine.load * (machine.enter + machine.fixed + 10 * machine.pair + machine.result)
    machine.run(max(60, 30 * largest))
    settled = machine.controller.setting
    steps = machine.steps()
    where = steps.index(settled)
    # Images are left out as long as no more than half a second lies between two.
    assert machine.true_load(settled) < OVERLOAD * 1.1 or settled.take >= min(int(0.9 * machine.rate / 2), 16)
    # Of those before it, none would have fitted by a wide margin.
    assert all(machine.true_load(step) > ROOM * 0.85 for step in steps[:where]), text(steps)[: where + 1]
    # No oscillation, and the queue is what came during one frame's work.
    before = len(machine.changes)
    machine.run(120)
    assert len(machine.changes) - before <= 2
    assert len(machine.changes) <= 10
    if machine.true_load(machine.controller.setting) < 1:
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
    down = [setting for _, setting in machine.changes]
    assert machine.changes[0][0] - began < 2  # within twenty frames of 0.1 s
    assert text(down)[-1] == '10/1'  # one pair: (1 + 1.8 + 3) x 4 of 33 ms, 70 %
    assert machine.changes[-1][0] - began < 10
    assert len(down) <= 4
    assert max(machine.latencies) < 0.3
    assert max(machine.latencies[-300:]) < 0.05
    machine.load = 1.0
    ended = machine.now
    machine.run(30)
    assert machine.controller.setting == Setting(FIVE)
    assert machine.changes[-1][0] - ended < 20
    assert len(machine.changes) <= len(down) + 3


@pytest.mark.parametrize(
    ('ceiling', 'pair', 'share'),
    [(FIVE, 0.004, None), *((WindowConfig(1, 0, 1), 0.032, share) for share in (0.25, 0.6, 1.0))],
)
@pytest.mark.parametrize('seed', range(5))
def test_a_load_that_varies_all_the_time_makes_few_changes(
    seed: int, ceiling: WindowConfig, pair: float, share: float | None
) -> None:
    machine = Machine(
        rate=20,
        target=20,
        enter=0.001,
        fixed=0.002,
        pair=pair,
        result=0.003,
        noise=0.25,
        ceiling=ceiling,
        seed=seed,
        share=share,
    )
    random = np.random.default_rng(seed)
    for _ in range(300):
        machine.load = float(random.uniform(0.8, 1.6))
        machine.run(1)
    assert len(machine.changes) < 30
    # In the worst case a frame waits for the one under way.
    assert max(machine.latencies) < 0.3


def test_the_target_is_met_where_it_can_be() -> None:
    machine = Machine(rate=30, target=10, enter=0.002, fixed=0.0, pair=0.009, result=0.02)
    machine.run(20)
    machine.masks.clear()
    machine.run(20)
    assert len(machine.masks) / 20 >= 0.9 * 10
    # With a result and three images' 6 ms, eight pairs take 98 ms of 100, six take 80.
    assert text([machine.controller.setting]) == ['33/3']
