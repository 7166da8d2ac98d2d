"""What was found in the frame before, carried along by the flow."""

from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.detection.config import DetectorConfig, GateConfig, MaskConfig, WindowConfig
from moving_object_detector.detection.hysteresis import FARTHEST, Carried, steadied
from moving_object_detector.flow.base import resize_field
from moving_object_detector.synthetic.flight import FlightOptions, flight

ON = MaskConfig()
STEP = 40_000_000


def config_of(past, future, mask=ON):
    return DetectorConfig(window=WindowConfig(past, future), gate=GateConfig(min_motion=0.0), mask=mask)


def run(detector, images):
    results = [result for n, image in enumerate(images) for result in detector.step(image, n * STEP).results]
    return results + detector.flush().results


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize('frames', [1, 2, 3])
def test_a_mask_is_carried_to_where_its_object_is(frames):
    """Exact masks and exact flow of rendered flights, which another road computes."""
    kept, trailing, stayed = [], [], []
    for seed in range(12):
        scene = flight((5, seed), FlightOptions(size=(120, 160), still=False, frames=16))
        start, end = 6.0, 6.0 + frames
        here, there = scene.mask(end), scene.mask(start)
        if here.mean() < 0.01 or there.mean() < 0.01:
            continue
        flow, back = (scene.flow(*times).transpose(2, 0, 1) for times in ((end, start), (start, end)))
        found = Carried(6, there.astype(np.float32)).to(6 + frames, flow, frames, back)
        kept.append(overlap(found > 0.5, here))
        trailing.append(overlap(Carried(6, there.astype(np.float32)).to(6 + frames, flow, frames) > 0.5, here))
        stayed.append(overlap(there, here))
    assert len(kept) >= 4
    print(
        f'{np.median(kept):.2f}, with what comes into view {np.median(trailing):.2f}, not moved {np.median(stayed):.2f}'
    )
    # What comes into view of the object itself cannot be carried.
    assert np.median(kept) > 0.75
    assert np.median(kept) > np.median(trailing) > np.median(stayed)


def test_flow_is_a_frames_and_none_is_carried_far_or_back():
    before = np.zeros((20, 40), np.float32)
    before[5:10, 10:15] = 0.8
    flow = np.zeros((2, 20, 40), np.float32)
    flow[0], flow[1] = -3, 1  # what is here was 3 to the left and 1 below a frame ago
    moved = np.zeros_like(before)
    moved[3:8, 16:21] = 0.8
    assert np.allclose(Carried(4, before).to(6, flow, 1), moved)
    assert np.allclose(Carried(4, before).to(6, 3 * flow, 3), moved)
    assert [Carried(4, before).to(4 + gap, flow, 1) is None for gap in (-1, 0, 1, FARTHEST, FARTHEST + 1)] == [
        True,
        True,
        False,
        False,
        True,
    ]


def test_numbers_by_hand():
    own = np.array([[0.9, 0.3, 0.1, 0.0, 0.0, 0.8, 0.0, 0.0, 0.4]], np.float32)
    before = np.array([[0.7, 0.8, 0.6, 0.0, 0.0, 0.0, 0.0, 0.6, 0.0]], np.float32)
    # The first three hang together, and both have found them: 0.3 + 0.7 * 0.5, 0.1 + 0.7 * 0.5; 0.9 is the more.
    # Elsewhere three quarters of the frame's own and one of the one before.
    wanted = np.array([[0.9, 0.65, 0.45, 0.0, 0.0, 0.6, 0.0, 0.15, 0.3]], np.float32)
    assert np.allclose(steadied(own, before, ON), wanted)
    assert np.array_equal(steadied(own, None, ON), own)
    assert np.array_equal(steadied(own, before, MaskConfig(hysteresis=False)), own)
    # A frame that has found nothing stays as it is, whatever was before.
    faint = np.minimum(own, 0.49)
    assert np.array_equal(steadied(faint, np.ones_like(own), ON), faint)


def test_a_stream_of_masks_is_steadied_in_order_each_kind_by_itself(make_detector, clip):
    results = run(make_detector(config_of(2, 2)), clip)
    for kind in ('zero_lag', 'refined'):
        of_kind = [result for result in results if result.estimate == kind]
        assert len(of_kind) >= 13
        before, changed = None, 0
        for result in of_kind:
            carried = None
            if before is not None:
                flow, gap = result._flows[-1].numpy(), result._gaps[-1]
                if kind == 'zero_lag':  # whose flow to the frame before the result tells, at the image's size
                    told = resize_field(result.flow, result.average.shape).transpose(2, 0, 1)
                    assert np.abs(told - flow / gap).mean() < 0.1
                carried = Carried(*before).to(result.index, flow, gap)
            wanted = steadied(result.average, carried, ON)
            assert np.array_equal(result.steadied, wanted)
            changed += not np.array_equal(wanted, result.average)
            before = result.index, wanted
        assert changed > 5
    plain = run(make_detector(config_of(2, 2, MaskConfig(hysteresis=False))), clip)
    for result, other in zip(results, plain, strict=True):
        assert np.array_equal(other.steadied, result.average)


def test_nothing_is_carried_over_a_reset_or_a_long_time_without_masks(make_detector, clip):
    detector = make_detector(config_of(1, 0))
    found = [result for n, image in enumerate(clip[:4]) for result in detector.step(image, n * STEP).results]
    assert not np.array_equal(found[-1].steadied, found[-1].average)
    detector.reset()
    found = [result for n, image in enumerate(clip[:2]) for result in detector.step(image, n * STEP).results]
    assert found
    assert np.array_equal(found[0].steadied, found[0].average)

    detector = make_detector(config_of(1, 0))
    for n in range(3):
        detector.step(clip[n], n * STEP)
    for n in range(3, 8):
        detector.step(clip[n], n * STEP, infer=False)
    late = detector.step(clip[8], 8 * STEP).results
    assert late
    assert all(np.array_equal(result.steadied, result.average) for result in late)
