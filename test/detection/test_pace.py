"""Neighbours are farther apart while all that moves is slow: on images whose motion is known."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moving_object_detector.common.files import generator_path
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, FlowConfig, WindowConfig
from moving_object_detector.detection.detector import Detector
from moving_object_detector.detection.result import Result
from moving_object_detector.detection.ring import Pace

STEP = 40_000_000
SIZE = (180, 320)
BOX = (slice(65, 115), slice(120, 190))


def texture(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(128, 60, (SIZE[0] // 4, SIZE[1] // 4, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, SIZE[::-1], interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def picture(x: float) -> NDArray[np.uint8]:
    """Return a still background before which a box of another texture has moved to the right by x pixels."""
    shift = partial(cv2.warpAffine, M=np.array([[1, 0, x], [0, 1, 0]], np.float32), dsize=SIZE[::-1])
    inside = np.zeros(SIZE, np.float32)
    inside[BOX] = 1
    share = shift(inside)[..., None]
    return np.rint(share * shift(texture(1)) + (1 - share) * texture(0)).astype(np.uint8)


@pytest.fixture(scope='module')
def make():
    def detector(slow_stride: int) -> Detector:
        config = DetectorConfig(
            model=str(generator_path('small', 'dis')),
            device='cpu',
            engine='torch',
            flow=FlowConfig(preset='lean', height=160, width=320),
            window=WindowConfig(1, 1, 1, slow_stride),
        )
        return build_detector(config)

    return detector


def refined(detector: Detector, speed: float, count: int = 9) -> list[tuple[int, Result]]:
    """Return the refined results, each with the number of the frame at which it came."""
    came = []
    for n in range(count):
        outcome = detector.step(picture(speed * n), n * STEP)
        came += [(n, result) for result in outcome.results if result.estimate == 'refined']
    return came


def overlap(result: Result, x: float) -> float:
    truth = np.zeros(SIZE, bool)
    truth[BOX[0], slice(BOX[1].start + round(x), BOX[1].stop + round(x))] = True
    mask = result.mask > 0
    return float((mask & truth).sum() / (mask | truth).sum())


def test_what_is_too_slow_between_neighbours_is_found_between_those_farther_apart(make) -> None:
    speed = 0.16  # half a thousandth of the width a frame; under the gate, 1
    assert all(not result.mask.any() for _, result in refined(make(1), speed))
    detector = make(4)
    came = refined(detector, speed, 14)
    late = [(n, result) for n, result in came if result.index >= 5]
    assert [n - result.index for n, result in late] == [4] * len(late)
    assert (detector.delay, detector.window.delay) == (4, 1)
    detector.reset()
    assert detector.delay == 1
    assert all(overlap(result, speed * result.index) > 0.7 for _, result in late)


def test_a_flow_is_a_frames_share(make) -> None:
    inner = slice(75, 105), slice(135, 170)
    for _, result in refined(make(2), 1.5)[3:]:
        np.testing.assert_allclose(np.median(result.flow[inner], (0, 1)), (1.5, 0.0), atol=0.15)


def test_what_is_fast_keeps_the_near_neighbours_to_the_bit(make) -> None:
    near, both = (refined(make(stride), 6.0) for stride in (1, 2))
    assert [(n, r.index) for n, r in near] == [(n, r.index) for n, r in both]
    assert all(np.array_equal(one.average, other.average) for (_, one), (_, other) in zip(near, both, strict=True))


def test_each_frame_has_one_result_in_order_when_speeds_change(make) -> None:
    detector, x, seen = make(3), 0.0, []
    for n in range(24):
        x += 0.5 if n % 12 < 6 else 5.0
        seen += [r.index for r in detector.step(picture(x % 100), n * STEP).results if r.estimate == 'refined']
    seen += [result.index for result in detector.flush().results]
    assert seen == list(range(24))


@pytest.mark.parametrize(
    ('pairs', 'slow'),
    [
        ([(5.0, 5.0, 1)], True),
        ([(15.0, 5.0, 1)], False),
        ([(15.0, 5.0, 2)], True),  # 7.5 a frame
        ([(1.0, 60.0, 1)], False),  # a camera that turns fast
        ([(5.0, 5.0, 1), *[(11.5, 5.0, 1)] * 20], True),  # holds up to a quarter more
        ([(5.0, 5.0, 1), *[(13.0, 5.0, 1)] * 20], False),
        ([(11.5, 5.0, 1)], False),
        ([(5.0, np.nan, 1), (np.inf, 5.0, 1), (5.0, 5.0, 1)], True),  # flow that is not finite says nothing
        ([(15.0, 5.0, 1), (np.nan, 5.0, 1)], False),
    ],
)
def test_slow_is_under_a_hundredth_of_the_width_a_frame(pairs: list[tuple[float, float, int]], slow: bool) -> None:
    pace = Pace()
    for pair in pairs:
        pace.take(*(torch.tensor([0.0 if place < 2 else 1.0, value]) for place, value in enumerate(pair)))
    assert pace.slow is slow


def test_what_an_estimator_loses_one_way_still_counts() -> None:
    pace = Pace()
    pace.take(torch.tensor([25.0, 4.0]), torch.tensor([1.6, 0.3]), torch.tensor([1.0, 1.0]))
    assert not pace.slow
