"""The streaming core against a slow reference that computes equation 14 of the paper frame by frame."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from moving_object_detector.common.errors import NotFiniteError
from moving_object_detector.detection.config import ContinuityConfig, DetectorConfig, GateConfig, WindowConfig
from moving_object_detector.detection.continuity import Step
from moving_object_detector.detection.detector import Detector, StepOutcome
from moving_object_detector.detection.result import Result
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator

Images = list[NDArray[np.uint8]]
Make = Callable[..., Detector]
STEP = 40_000_000
OPEN_GATE = GateConfig(min_motion=0.0)
# The reference's masks of pairs, which no window changes: computed once for all windows.
PAIR_MASKS: dict[tuple[int, int], NDArray[np.float32]] = {}


def config_of(past: int, future: int, stride: int = 1) -> DetectorConfig:
    return DetectorConfig(window=WindowConfig(past, future, stride), gate=OPEN_GATE)


def run(detector: Detector, images: Images) -> list[Result]:
    results = [result for n, image in enumerate(images) for result in detector.step(image, n * STEP).results]
    return results + detector.flush().results


def pair_mask(
    generator: Generator, detector: Detector, image: NDArray[np.uint8], other: NDArray[np.uint8]
) -> np.ndarray:
    """Compute G(I, u) for one pair, by itself, with the sign by the border rule."""
    import cv2

    backend = detector.flow
    flow = backend.estimate([backend.features(image)], [backend.features(other)], detector.size)
    height, width = detector.size
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255 - 0.5
    with torch.inference_mode():
        mask = generator(torch.from_numpy(small.transpose(2, 0, 1))[None], prepare_flow(flow, 'residual').flow)
    chi = mask[0, 0].numpy()
    border = np.concatenate((chi[:2].ravel(), chi[-2:].ravel(), chi[2:-2, :2].ravel(), chi[2:-2, -2:].ravel()))
    return 1 - chi if (border > 0.1).mean() > 0.6 else chi


def reference(
    generator: Generator, detector: Detector, images: Images, past: int, future: int, stride: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Return P_t of every frame from its earlier neighbours, and from all."""
    zero_lag, refined = {}, {}
    for t in range(len(images)):
        earlier = [t - k * stride for k in range(1, past + 1) if t - k * stride >= 0]
        later = [t + k * stride for k in range(1, future + 1) if t + k * stride < len(images)]
        for s in earlier + later:
            if (t, s) not in PAIR_MASKS:
                PAIR_MASKS[t, s] = pair_mask(generator, detector, images[t], images[s])
        masks = {s: PAIR_MASKS[t, s] for s in earlier + later}
        if earlier:
            zero_lag[t] = np.mean([masks[s] for s in earlier], axis=0)
        if masks:
            refined[t] = np.mean(list(masks.values()), axis=0)
    return zero_lag, refined


@pytest.mark.parametrize(
    ('past', 'future', 'stride'), [(5, 5, 1), (1, 1, 1), (2, 1, 2), (3, 0, 1), (0, 2, 1), (1, 3, 1)]
)
def test_every_frame_equals_the_direct_average(
    make_detector: Make, generator: Generator, clip: Images, past: int, future: int, stride: int
) -> None:
    images = clip[:9]
    detector = make_detector(config_of(past, future, stride))
    results = run(detector, images)
    zero_lag, refined = reference(generator, detector, images, past, future, stride)
    found = {(result.estimate, result.index): result for result in results}
    expected = {('zero_lag', t): mean for t, mean in zero_lag.items()} | {('refined', t): m for t, m in refined.items()}
    assert found.keys() == expected.keys()
    for key, mean in expected.items():
        # Batches of other lengths round differently in the last bits of float32, which the test's sharp masks amplify.
        np.testing.assert_allclose(found[key].average, mean, atol=2e-5, err_msg=str(key))
        decided = np.abs(mean - 0.5) > 2e-5
        assert np.array_equal((found[key].average >= 0.5)[decided], (mean >= 0.5)[decided])


def test_results_come_in_order_and_on_time(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(3, 2))
    came: list[tuple[int, str, int]] = []
    for n, image in enumerate(clip):
        came += [(n, result.estimate, result.index) for result in detector.step(image, n * STEP).results]
    assert [(n, index) for n, estimate, index in came if estimate == 'zero_lag'] == [(n, n) for n in range(1, 14)]
    assert [(n, index) for n, estimate, index in came if estimate == 'refined'] == [(n, n - 2) for n in range(2, 14)]
    assert [(result.estimate, result.index) for result in detector.flush().results] == [
        ('refined', 12),
        ('refined', 13),
    ]


def test_each_frame_is_prepared_and_each_pair_computed_once(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(5, 5))
    run(detector, clip)
    flow = detector.flow
    assert flow.prepared == len(clip)
    pairs = [pair for batch in flow.batches for pair in batch]
    wanted = {(a, b) for a in range(14) for b in range(14) if 0 < abs(a - b) <= 5}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == wanted
    assert [len(batch) for batch in flow.batches] == [2, 4, 6, 8] + [10] * 9


def test_votes_are_the_neighbours_that_exist(make_detector: Make, clip: Images) -> None:
    results = run(make_detector(config_of(5, 5)), clip[:8])
    votes = {result.index: result.votes for result in results if result.estimate == 'refined'}
    assert votes == {0: 5, 1: 6, 2: 7, 3: 7, 4: 7, 5: 7, 6: 6, 7: 5}


def test_a_result_belongs_to_its_own_image(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(2, 2))
    results = [r for n, image in enumerate(clip) for r in detector.step(image, n * STEP, tag=f'header {n}').results]
    for result in results + detector.flush().results:
        assert result.image is clip[result.index]
        assert result.stamp == result.index * STEP
        assert result.tag == f'header {result.index}'


def test_the_flow_of_a_result_leads_to_its_neighbour(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(2, 2))
    results = {(r.estimate, r.index): r for r in run(detector, clip[:6])}
    backend = detector.flow

    def flow(source: int, target: int) -> NDArray[np.float32]:
        features = [[backend.features(clip[n])] for n in (source, target)]
        return backend.estimate(*features, detector.size)[0].permute(1, 2, 0).numpy()

    for key, target in ((('zero_lag', 3), 2), (('refined', 3), 4), (('refined', 5), 4)):
        whole = results[key].flow
        assert whole.shape == (64, 128, 2)
        # Twice the size, twice the vectors: cell means give back what was estimated.
        cells = whole.reshape(32, 2, 64, 2, 2).mean((1, 3))
        inner = np.s_[2:-2, 2:-2]
        assert np.abs(cells / 2 - flow(key[1], target))[inner].mean() < 0.15


def test_a_caller_that_is_behind_skips_inference_but_not_frames(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(2, 2))
    results = []
    for n, image in enumerate(clip[:9]):
        results += detector.step(image, n * STEP, infer=n % 3 == 2).results
    pairs = [pair for batch in detector.flow.batches for pair in batch]
    # Frames 2, 5 and 8 are inferred; 5 and 8 are too far from 2 and 5 to vote on each other.
    assert pairs == [(2, 1), (2, 0), (5, 4), (5, 3), (8, 7), (8, 6)]
    assert [(r.estimate, r.index, r.votes) for r in results] == [
        ('zero_lag', 2, 2),
        ('refined', 2, 2),
        ('zero_lag', 5, 2),
        ('refined', 5, 2),
        ('zero_lag', 8, 2),
    ]


@pytest.mark.parametrize(
    ('change', 'step'),
    [('back', Step.GOES_BACK), ('gap', Step.AFTER_GAP), ('size', Step.NEW_SIZE)],
)
def test_a_break_in_the_stream_finishes_it_and_starts_anew(
    make_detector: Make, clip: Images, change: str, step: Step
) -> None:
    detector = make_detector(replace(config_of(2, 2), continuity=ContinuityConfig(max_gap=1.0)))
    before = [r for n in range(5) for r in detector.step(clip[n], 10 * STEP + n * STEP).results]
    stamp = {'back': 0, 'gap': 14 * STEP + 1_000_000_001, 'size': 15 * STEP}[change]
    image = np.ascontiguousarray(clip[5][:48]) if change == 'size' else clip[5]
    at_break, _, relation, *_ = detector.step(image, stamp)
    assert relation is step
    assert [(r.estimate, r.index) for r in at_break] == [('refined', 3), ('refined', 4)]
    assert {r.index for r in before if r.estimate == 'refined'} == {0, 1, 2}
    after, _, relation, *_ = detector.step(image, stamp + STEP)
    assert relation is Step.CONTINUES
    assert [(r.estimate, r.index, r.votes) for r in after] == [('zero_lag', 1, 1)]


def test_the_same_clip_after_a_reset_gives_the_same_masks(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(2, 2))
    first = run(detector, clip[:6])
    for n in range(3):
        detector.step(clip[-n - 1], n * STEP)
    detector.reset()
    second = run(detector, clip[:6])
    assert all(np.array_equal(a.average, b.average) for a, b in zip(first, second, strict=True))


def test_a_repeated_stamp_is_ignored(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(2, 2))
    once = run(detector, clip[:4])
    twice = []
    for n, image in enumerate(clip[:4]):
        twice += detector.step(image, n * STEP).results
        assert detector.step(clip[9], n * STEP) == StepOutcome([], relation=Step.REPEATS)
    twice += detector.flush().results
    assert all(np.array_equal(a.average, b.average) for a, b in zip(once, twice, strict=True))


def test_one_frame_alone_gives_nothing(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(5, 5))
    assert detector.step(clip[0], 0) == StepOutcome([])
    assert detector.flush() == StepOutcome([], missed=1)


def test_a_frame_whose_only_neighbour_was_skipped_is_counted(make_detector: Make, clip: Images) -> None:
    detector = make_detector(config_of(1, 1))
    outcomes = [
        *(detector.step(clip[n], n * STEP, infer=infer) for n, infer in enumerate((True, False, True, True))),
        detector.flush(),
    ]
    results = [result for outcome in outcomes for result in outcome.results]
    # Frame 0 had frame 1 alone to vote on it, which was not inferred.
    assert [r.index for r in results if r.estimate == 'refined'] == [2, 3]
    assert [outcome.missed for outcome in outcomes] == [0, 1, 0, 0, 0]


def test_memory_is_bounded_by_the_window(make_detector: Make, clip: Images) -> None:
    import gc
    import weakref

    detector = make_detector(config_of(2, 1, 2))
    images = [clip[n % 14].copy() for n in range(40)]
    alive = [weakref.ref(image) for image in images]
    for n in range(40):
        detector.step(images[n], n * STEP)
        images[n] = None  # type: ignore[call-overload]
        gc.collect()
        assert sum(reference() is not None for reference in alive[: n + 1]) <= 2 * 2 + 1


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((64, 64), np.uint8), r'must be uint8 \(H, W, 3\)'),
        (np.zeros((64, 64, 4), np.uint8), r'must be uint8 \(H, W, 3\)'),
        (np.zeros((64, 64, 3), np.float32), 'must be uint8'),
        (np.zeros((15, 64, 3), np.uint8), 'at least 16 pixels'),
    ],
)
def test_images_of_another_kind_are_refused(make_detector: Make, image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_detector(config_of(1, 1)).step(image, 0)


def test_masks_that_are_not_finite_are_an_error(generator, clip):
    poisoned, size = copy.deepcopy(generator), (32, 64)
    engine = MaskEngine(TorchEngine(torch.device('cpu')), poisoned, size)
    detector = Detector(DisFlow((64, 128)), engine, size, 'residual', DetectorConfig())
    with torch.no_grad():
        poisoned.conv17.gamma.fill_(float('nan'))
    detector.step(clip[0], 0)
    (result,) = [one for one in detector.step(clip[1], 10**8).results if one.estimate == 'zero_lag']
    for name in ('average', 'probability', 'mask', 'regions'):
        with pytest.raises(NotFiniteError):
            getattr(result, name)
    assert np.isfinite(result.flow).all()


@pytest.mark.parametrize(('past', 'future', 'stride'), [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 0, 1), (1, 1, 2)])
def test_of_both_sides_refined_results_alone_are_the_same_for_fewer_masks(
    clip: Images, past: int, future: int, stride: int
) -> None:
    torch.manual_seed(5)
    generator = Generator(16).eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    size, counts, found = (32, 64), [], []
    for alone in (False, True):
        masks = MaskEngine(TorchEngine(torch.device('cpu')), generator, size)
        rows: list[int] = []
        counts.append(rows)

        class Counted:
            device = masks.device
            name = masks.name

            def __call__(self, image, flow, masks=masks, rows=rows):
                rows.append(len(image))
                return masks(image, flow)

        detector = Detector(DisFlow((64, 128), 'fast'), Counted(), size, 'both_sides', config_of(past, future, stride))
        detector.refined_only = alone
        found.append([(r.index, r.votes, r.average) for r in run(detector, clip[:7]) if r.estimate == 'refined'])
    whole, alone = found
    assert [one[:2] for one in whole] == [one[:2] for one in alone]
    for one, other in zip(whole, alone, strict=True):
        np.testing.assert_allclose(one[2], other[2], atol=2e-5)
    assert sum(counts[1]) < sum(counts[0]) or not future


def test_of_both_sides_the_last_frame_of_a_still_scene_has_an_empty_mask(clip: Images) -> None:
    """Its other side never comes, and in the one that came nothing moves."""
    config = DetectorConfig(window=WindowConfig(1, 1))
    masks = MaskEngine(TorchEngine(torch.device('cpu')), Generator(16).eval(), (32, 64))
    detector = Detector(DisFlow((64, 128), 'fast'), masks, (32, 64), 'both_sides', config)
    detector.refined_only = True
    results = [result for result in run(detector, [clip[0]] * 4) if result.estimate == 'refined']
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert not any(result.average.any() for result in results)
