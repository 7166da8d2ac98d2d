"""What was found in the frame before, carried along by the flow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, GateConfig, MaskConfig, WindowConfig
from moving_object_detector.detection.hysteresis import FARTHEST, Carried, steadied
from moving_object_detector.flow.base import resize_field
from moving_object_detector.synthetic.flight import FlightOptions, flight

ON = MaskConfig()
STEP = 40_000_000
ROOT = Path(__file__).resolve().parents[2]


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
    # Elsewhere a quarter of what the frame before has less is taken away.
    wanted = np.array([[0.9, 0.65, 0.45, 0.0, 0.0, 0.6, 0.0, 0.0, 0.3]], np.float32)
    assert np.allclose(steadied(own, before), wanted)
    # To a frame that has found nothing, nothing is added, whatever was before.
    faint = np.minimum(own, 0.49)
    assert np.array_equal(steadied(faint, np.ones_like(own)), faint)


def test_more_of_its_own_is_never_less():
    """With nothing before, or with the same place found: no threshold at which a surer frame has a fainter mask."""
    place = np.zeros((20, 40), np.float32)
    place[5:10, 10:15] = 1
    for before in (np.zeros_like(place), 0.8 * place, np.roll(place, 20, 1)):
        found = [float(steadied(level * place, before)[7, 12]) for level in np.linspace(0, 1, 101, dtype=np.float32)]
        assert np.all(np.diff(found) > 0)


def test_a_stream_of_masks_is_steadied_in_order_each_kind_by_itself(make_detector, clip):
    results = run(make_detector(config_of(2, 2)), clip)
    for kind in ('zero_lag', 'refined'):
        of_kind = [result for result in results if result.estimate == kind]
        assert len(of_kind) >= 13
        before, changed = None, 0
        for result in of_kind:
            wanted = result.average
            if before is not None and result.average.any():
                flow, gap = result._flows[-1].numpy(), result._gaps[-1]
                if kind == 'zero_lag':  # whose flow to the frame before the result tells, at the image's size
                    told = resize_field(result.flow, result.average.shape).transpose(2, 0, 1)
                    assert np.abs(told - flow / gap).mean() < 0.1
                wanted = steadied(wanted, Carried(*before).to(result.index, flow, gap))
            assert np.array_equal(result.steadied, wanted)
            changed += not np.array_equal(wanted, result.average)
            before = result.index, wanted
        assert changed > 5
    plain = run(make_detector(config_of(2, 2, MaskConfig(hysteresis=False))), clip)
    for result, other in zip(results, plain, strict=True):
        assert np.array_equal(other.steadied, result.average)


def test_with_evidence_the_flow_back_is_known():
    """By the default detector on a flight, against the flow of the reversed pair estimated by itself."""
    detector = build_detector(load_config(DetectorConfig(), ROOT / 'config' / 'cpu.yaml', ['precision=float32']))
    scene = flight((5, 3), FlightOptions(size=(120, 160), still=False, frames=8))
    images = [scene.image(time) for time in range(8)]
    features = [detector.flow.features(image) for image in images]
    compared = 0
    for result in run(detector, images):
        gap, back = result._gaps.get(-1), result._frame.back
        assert (gap is None) == (back is None)
        if gap is not None:
            there, here = features[result.index - gap], features[result.index]
            assert np.allclose(back, detector.flow.estimate([there], [here], detector.size)[0], atol=1e-4)
            compared += 1
    assert compared >= 7


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
