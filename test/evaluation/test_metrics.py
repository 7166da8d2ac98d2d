from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.evaluation.metrics import davis_mean, jaccard


def drawn(*rows):
    return np.array([[letter == '#' for letter in row] for row in rows])


EMPTY = drawn('....', '....')


@pytest.mark.parametrize(
    ('prediction', 'truth', 'expected'),
    [
        (drawn('##..', '##..'), drawn('##..', '##..'), 1),
        (drawn('##..', '##..'), drawn('.##.', '.##.'), 2 / 6),
        (drawn('####', '####'), drawn('#...', '....'), 1 / 8),
        (drawn('##..', '....'), drawn('..##', '....'), 0),
        (EMPTY, drawn('#...', '....'), 0),
        (drawn('#...', '....'), EMPTY, 0),
        (EMPTY, EMPTY, 1),
    ],
)
def test_jaccard_by_hand(prediction, truth, expected):
    assert jaccard(prediction, truth) == pytest.approx(expected)
    assert jaccard(truth, prediction) == pytest.approx(expected)


def test_jaccard_of_random_masks_by_counting_pixels():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.random((2, 9, 13)) < rng.random((2, 1, 1))
        first = {(y, x) for y, x in zip(*np.nonzero(a), strict=True)}
        second = {(y, x) for y, x in zip(*np.nonzero(b), strict=True)}
        assert jaccard(a, b) == pytest.approx(len(first & second) / len(first | second))


def test_masks_of_different_sizes():
    with pytest.raises(ValueError, match=r'prediction is \(2, 4\), truth is \(4, 2\)'):
        jaccard(EMPTY, EMPTY.T)


def test_first_and_last_frame_are_not_scored():
    assert davis_mean([0.0, 0.5, 0.7, 0.0]) == pytest.approx(0.6)
    assert davis_mean([1.0, 0.25, 1.0]) == 0.25


def test_frames_without_annotation_are_left_out_but_keep_their_place():
    assert davis_mean([None, 0.5, None, 0.7, 0.1]) == pytest.approx(0.6)
    assert davis_mean([0.1, 0.5, 0.7, None]) == pytest.approx(0.6)


@pytest.mark.parametrize('scores', [[], [0.5], [0.5, 0.5], [0.5, None, 0.5]])
def test_nothing_left_to_score(scores):
    with pytest.raises(ValueError, match='none left to score'):
        davis_mean(scores)
