from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, RefinementConfig
from moving_object_detector.detection.refinement import calibrated, grid_crf, refine


def picture_and_truth() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A bright disc on a dark, slightly noisy ground."""
    ys, xs = np.mgrid[0:192, 0:384]
    truth = (ys - 96) ** 2 + (xs - 200) ** 2 < 50**2
    noise = np.random.default_rng(0).normal(0, 4, (192, 384, 3))
    return np.clip(np.where(truth[:, :, None], (200, 180, 60), (40, 60, 80)) + noise, 0, 255).astype(np.uint8), truth


def overlap(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def blurred(truth: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The disc shifted by 4 pixels, at a quarter of the size, as a coarse network sees it."""
    shifted = np.roll(truth, 4, 1).reshape(48, 4, 96, 4).mean((1, 3))
    return (0.1 + 0.8 * shifted).astype(np.float32)


@pytest.mark.parametrize('method', ['crf', 'grid_crf'])
def test_refinement_moves_a_mask_towards_the_edges_of_the_image(method: str) -> None:
    image, truth = picture_and_truth()
    plain = refine(blurred(truth), image, RefinementConfig(method='none'))
    refined = refine(blurred(truth), image, RefinementConfig(method=method))
    assert plain.shape == refined.shape == (192, 384)
    assert 0.0 <= refined.min() <= refined.max() <= 1.0
    assert overlap(refined > 0.5, truth) > overlap(plain > 0.5, truth) + 0.01


@pytest.mark.parametrize('method', ['none', 'crf', 'grid_crf'])
def test_an_empty_mask_stays_empty(method: str) -> None:
    image, _ = picture_and_truth()
    assert not refine(np.zeros((48, 96), np.float32), image, RefinementConfig(method=method)).any()


@pytest.mark.parametrize(('method', 'doubt'), [('crf', 0.3), ('grid_crf', 0.2)])
def test_of_mere_doubt_no_mask_is_made(method: str, doubt: float) -> None:
    image, truth = picture_and_truth()
    sure = truth.reshape(48, 4, 96, 4).mean((1, 3)).astype(np.float32)
    doubted, believed = (refine(share * sure, image, RefinementConfig(method=method)) for share in (doubt, 0.9))
    assert not (doubted > 0.5).any()
    assert overlap(believed > 0.5, truth) > 0.9


def test_what_the_generator_doubts_a_little_counts_for_more_than_what_it_doubts_much() -> None:
    odds = np.array([-8.0, -1.0, 0.0, 3.0])
    found = calibrated((1 / (1 + np.exp(-odds))).astype(np.float32))
    np.testing.assert_allclose(np.log(found / (1 - found)), 0.7 * odds + 0.5, atol=1e-3)
    assert np.isfinite(calibrated(np.array([0, 1], np.float32))).all()


def test_the_result_has_the_size_of_the_image() -> None:
    image, truth = picture_and_truth()
    assert refine(blurred(truth), image[:101, :333], RefinementConfig()).shape == (101, 333)


def test_without_the_library_of_the_crf_it_is_said_before_the_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('moving_object_detector.detection.config.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'pydensecrf2 is not installed; .* set refinement\.method to grid_crf'):
        build_detector(DetectorConfig(device='cpu', engine='torch', refinement=RefinementConfig(method='crf')))
    image, truth = picture_and_truth()
    with pytest.raises(UserError, match='pydensecrf2 is not installed'):
        refine(blurred(truth), image, RefinementConfig(method='crf'))
    assert refine(blurred(truth), image, RefinementConfig(method='grid_crf')).any()


def test_the_crf_equals_the_library_called_by_hand() -> None:
    from pydensecrf import densecrf

    image, truth = picture_and_truth()
    probability = np.clip(0.1 + 0.8 * truth + np.random.default_rng(1).normal(0, 0.1, truth.shape), 0.01, 0.99)
    config = RefinementConfig(method='crf', height=192, width=384, iterations=3)
    found = refine(probability.astype(np.float32), image, config)
    inside = np.clip(probability.astype(np.float32) / probability.astype(np.float32).max(), 1e-6, 1 - 1e-6)
    crf = densecrf.DenseCRF(192 * 384, 2)
    crf.setUnaryEnergy(-np.log(np.stack((1 - inside.ravel(), inside.ravel()))).astype(np.float32))
    ys, xs = np.mgrid[0:192, 0:384]
    features = np.concatenate((np.stack((xs, ys)) / 25.0, image.transpose(2, 0, 1) / 5.0)).reshape(5, -1)
    crf.addPairwiseEnergy(features.astype(np.float32), compat=5)
    expected = np.asarray(crf.inference(3))[1].reshape(192, 384)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_mean_field_on_a_grid_is_that_of_a_whole_grid() -> None:
    """Against an array of all cells, also those without a pixel, worked out one axis after the other."""
    rng = np.random.default_rng(3)
    image = rng.integers(100, 140, (20, 30, 3)).astype(np.uint8)
    probability = rng.uniform(0.05, 1.0, (20, 30)).astype(np.float32)
    probability /= probability.max()
    found = grid_crf(probability, image, 2)
    position = 50 * 30 / 384
    ys, xs = np.mgrid[0:20, 0:30]
    cells = tuple(np.rint(np.stack((ys / position, xs / position, *(image.transpose(2, 0, 1) / 10)))).astype(int))
    filled = np.zeros([int(axis.max()) + 2 for axis in cells], bool)
    filled[cells] = True

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        grid = np.zeros(filled.shape)
        np.add.at(grid, cells, values)
        for axis in (2, 3, 4, 0, 1):
            padded = np.pad(grid, [(int(axis == other),) * 2 for other in range(5)])
            before, after = (np.take(padded, range(k, grid.shape[axis] + k), axis) for k in (0, 2))
            # Cells without a pixel stay empty.
            grid = (grid + 0.5 * (before + after)) * filled
        return grid[cells]

    inside = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    unary = np.log(inside / (1 - inside))
    for _ in range(2):
        inside = 1 / (1 + np.exp(-unary - 5 * (2 * around(inside) / around(np.ones_like(inside)) - 1)))
    np.testing.assert_allclose(found, inside, atol=1e-5)


def test_on_a_grid_the_mask_is_nearly_that_of_the_crf() -> None:
    image, truth = picture_and_truth()
    exact, fast = (refine(blurred(truth), image, RefinementConfig(method=method)) for method in ('crf', 'grid_crf'))
    assert overlap(fast > 0.5, exact > 0.5) > 0.97
