from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.evaluation.metrics import count_objects


def drawn(*rows):
    return np.array([[letter == '#' for letter in row] for row in rows])


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


def test_masks_of_different_sizes():
    with pytest.raises(ValueError, match=r'prediction is \(4, 8\), truth is \(8, 4\)'):
        count_objects(TWO, TWO.T)
