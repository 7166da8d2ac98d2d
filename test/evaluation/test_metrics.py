from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from moving_object_detector.evaluation.metrics import (
    PreparedTruth,
    boundary_map,
    count_objects,
    decay,
    jaccard,
    mean,
    recall,
)


def f_of(prediction, truth):
    return PreparedTruth(truth).boundary_measure(prediction)


def drawn(*rows):
    return np.array([[letter == '#' for letter in row] for row in rows])


EMPTY = drawn('....', '....')
FULL = drawn('####', '####')


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
    for compare in (jaccard, lambda prediction, truth: PreparedTruth(truth).scores(prediction)):
        with pytest.raises(ValueError, match=r'\(2, 4\), truth is \(4, 2\)'):
            compare(EMPTY, EMPTY.T)


def test_a_boundary_by_hand():
    """Pixels that differ from the one to the right, below, or right below; the image's edge is none."""
    mask = drawn(
        '......',
        '..##..',
        '..##..',
        '......',
        '#.....',
    )
    assert np.array_equal(
        boundary_map(mask),
        drawn(
            '.###..',
            '.#.#..',
            '.###..',
            '#.....',
            '#.....',
        ),
    )
    assert not boundary_map(EMPTY).any()
    assert not boundary_map(FULL).any()
    assert np.array_equal(boundary_map(drawn('##..', '##..')), drawn('.#..', '.#..'))


@pytest.mark.parametrize(
    ('prediction', 'truth', 'expected'),
    [
        (EMPTY, EMPTY, 1),
        (FULL, FULL, 1),
        (FULL, EMPTY, 1),  # neither has a boundary
        (EMPTY, drawn('#...', '....'), 0),
        (drawn('#...', '....'), EMPTY, 0),
        (FULL, drawn('#...', '....'), 0),
        (drawn('##..', '##..'), drawn('##..', '##..'), 1),
    ],
)
def test_the_odd_cases_of_the_boundary_measure(prediction, truth, expected):
    assert f_of(prediction, truth) == expected
    assert PreparedTruth(truth).scores(prediction) == (jaccard(prediction, truth), expected)


def test_the_boundary_measure_by_hand():
    """Upright edges in an image of 60x80, whose diagonal is 100: the tolerance is ceil(0.8) = 1 pixel."""

    def left_of(edge, height=60):
        mask = np.zeros((60, 80), bool)
        mask[:height, :edge] = True
        return mask

    truth = left_of(40)
    assert f_of(left_of(41), truth) == 1
    assert f_of(left_of(39), truth) == 1
    assert f_of(left_of(42), truth) == 0
    # 30 rows deep the edge is at 40 as well, then the boundary runs left along row 29: (29, 0) to (29, 39).
    # Precision: of 30 + 39 pixels those in columns 38 and 39 are near, 30 + 1. Recall: rows 0 to 30 of 60.
    precision, recalled = 31 / 69, 31 / 60
    expected = 2 * precision * recalled / (precision + recalled)
    assert f_of(left_of(40, 30), truth) == pytest.approx(expected)
    # The other way round precision and recall change places.
    assert f_of(truth, left_of(40, 30)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ('height', 'width', 'tolerance'),
    [(60, 80, 1), (75, 100, 1), (76, 100, 2), (360, 640, 6), (480, 854, 8), (1080, 1920, 18)],
)
def test_the_tolerance_is_a_share_of_the_diagonal_rounded_up(height, width, tolerance):
    def left_of(edge):
        mask = np.zeros((height, width), bool)
        mask[:, :edge] = True
        return mask

    truth = left_of(30)
    assert f_of(left_of(30 + tolerance), truth) == 1
    assert f_of(left_of(30 + tolerance + 1), truth) == 0


def slow_boundary(mask):
    """Pixel by pixel, as the Berkeley benchmark states it."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(ny < height and nx < width and mask[ny, nx] != mask[y, x] for ny, nx in neighbours):
                found.append((y, x))
    return np.array(found).reshape(-1, 2)


def slow_boundary_measure(prediction, truth):
    """By the distances between all pixels of the two boundaries, in whole numbers."""
    height, width = truth.shape
    tolerance = math.ceil(0.008 * math.sqrt(height * height + width * width))
    first, second = slow_boundary(prediction), slow_boundary(truth)
    if len(first) == 0 and len(second) == 0:
        return 1
    if len(first) == 0 or len(second) == 0:
        return 0
    near = ((first[:, None] - second[None]) ** 2).sum(2) <= tolerance**2
    precision, recalled = near.any(1).sum() / len(first), near.any(0).sum() / len(second)
    return 0 if precision + recalled == 0 else 2 * precision * recalled / (precision + recalled)


def random_shapes(rng, height, width):
    """Ellipses, boxes and specks, some of them cut by the edge of the image."""
    canvas = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 5)):
        x, y = (int(v) for v in rng.integers(-10, (width + 10, height + 10)))
        a, b = (int(v) for v in rng.integers(1, (width // 3, height // 3)))
        if rng.random() < 0.5:
            cv2.ellipse(canvas, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        else:
            cv2.rectangle(canvas, (x, y), (x + a, y + b), int(rng.integers(0, 2)), -1)
    canvas[rng.random((height, width)) < 0.002] = 1
    return canvas > 0


def test_the_boundary_measure_of_random_shapes_by_all_distances():
    rng = np.random.default_rng(7)
    seen = []
    for _ in range(40):
        height, width = (int(v) for v in rng.integers((20, 30), (160, 240)))
        truth = random_shapes(rng, height, width)
        # Half of the predictions are the truth moved by some pixels, the others have nothing to do with it.
        moved = np.roll(truth, rng.integers(-4, 5, 2), (0, 1))
        prediction = moved if rng.random() < 0.5 else random_shapes(rng, height, width)
        expected = slow_boundary_measure(prediction, truth)
        assert f_of(prediction, truth) == expected
        assert PreparedTruth(truth).scores(prediction) == (jaccard(prediction, truth), expected)
        seen.append(expected)
    assert sum(0.2 < value < 0.8 for value in seen) > 5


def test_one_truth_for_several_predictions():
    rng = np.random.default_rng(8)
    truth = random_shapes(rng, 100, 150)
    prepared = PreparedTruth(truth)
    for _ in range(5):
        prediction = random_shapes(rng, 100, 150)
        assert prepared.scores(prediction) == (jaccard(prediction, truth), f_of(prediction, truth))


def test_mean_and_recall_by_hand():
    assert mean([0.2, 0.4, 0.9]) == pytest.approx(0.5)
    assert recall([0.2, 0.5, 0.51, 0.9]) == 0.5  # 0.5 itself is not over it
    assert mean([]) is None
    assert recall([]) is None
    assert decay([]) is None


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        # Ends of the quarters at 1, 3, 5, 7 and 9: frames 1 to 3 against frames 7 to 9.
        ([0.9, 0.8, 0.7, 0, 0, 0, 0.3, 0.2, 0.1], 0.8 - 0.2),
        # At 1, 3.25, 5.5, 7.75 and 10, which is 1, 3, 6, 8 and 10.
        ([0.9, 0.8, 0.7, 0, 0, 0, 0, 0.5, 0.2, 0.2], 0.8 - 0.3),
        # At 1, 1.5, 2, 2.5 and 3, halves up: 1, 2, 2, 3 and 3.
        ([0.8, 0.4, 0.1], 0.6 - 0.1),
        # At 1, 1.25, 1.5, 1.75 and 2: 1, 1, 2, 2 and 2.
        ([0.8, 0.5], 0.3),
        ([0.7], 0),
    ],
)
def test_decay_by_hand(scores, expected):
    assert decay(scores) == pytest.approx(expected)


def test_decay_of_any_length_as_the_official_formula_states_it():
    rng = np.random.default_rng(9)
    for length in range(1, 400):
        scores = rng.random(length)
        ids = (np.round(np.linspace(1, length, 5) + 1e-10) - 1).astype(int)
        expected = scores[ids[0] : ids[1] + 1].mean() - scores[ids[3] : ids[4] + 1].mean()
        assert decay(scores.tolist()) == pytest.approx(expected, abs=1e-12)


TWO = drawn(
    '##......',
    '##......',
    '......##',
    '......##',
)


@pytest.mark.parametrize(
    ('prediction', 'expected'),
    [
        (TWO, (2, 2, 0)),
        (drawn('........', '........', '........', '........'), (2, 0, 0)),
        # Half of the first, a quarter of the second.
        (drawn('##......', '........', '......#.', '........'), (2, 1, 0)),
        # One region over both; and one of one pixel beside them, which touches an object's edge but shares no pixel.
        (drawn('########', '########', '......##', '......##'), (2, 2, 0)),
        (drawn('##......', '###.....', '......##', '......##'), (2, 2, 0)),
        (drawn('........', '..##....', '..##....', '........'), (2, 0, 1)),
        # Two false regions; pixels that meet at a corner are one region.
        (drawn('##..#...', '##...#..', '......##', '#.....##'), (2, 2, 1)),
        (drawn('##.#....', '##......', '......##', '#..#..##'), (2, 2, 3)),
    ],
)
def test_counts_by_hand(prediction, expected):
    assert count_objects(prediction, TWO) == expected


def test_objects_that_meet_at_a_corner_are_one():
    truth = drawn('##..', '##..', '..##', '..##')
    assert count_objects(drawn('##..', '##..', '....', '....'), truth) == (1, 1, 0)
    assert count_objects(drawn('##..', '#...', '....', '....'), truth) == (1, 0, 0)


def test_no_object_and_no_mask():
    nothing = np.zeros((4, 8), bool)
    assert count_objects(nothing, nothing) == (0, 0, 0)
    assert count_objects(TWO, nothing) == (0, 0, 2)
    assert count_objects(~nothing, ~nothing) == (1, 1, 0)


def test_small_components_are_no_objects_but_no_false_alarm_either():
    """An image of 100x200 pixels: an object has at least 0.0005 x 20,000 = 10 of them."""
    truth = np.zeros((100, 200), bool)
    truth[10, 10:20] = True
    truth[50, 10:19] = True
    assert count_objects(truth, truth) == (1, 1, 0)
    prediction = np.zeros((100, 200), bool)
    prediction[50, 10:30] = True
    assert count_objects(prediction, truth) == (1, 0, 0)
    prediction[90, 100] = True
    assert count_objects(prediction, truth) == (1, 0, 1)
