from __future__ import annotations

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.evaluation.summary import PROTOCOLS, find_protocol


@pytest.mark.parametrize(
    ('name', 'expected', 'average'),
    [
        ('davis2016', [1, 3], 'sequences'),
        ('segtrackv2', [0, 1, 3, 4], 'frames'),
        ('fbms59', [0, 1, 3, 4], 'frames'),
        ('annotated', [0, 1, 3, 4], 'sequences'),
    ],
)
def test_which_frames_are_scored(name, expected, average):
    """Of five frames, the third of which has no annotation."""
    protocol = find_protocol(name)
    assert [index for index in range(5) if protocol.scored(index, 5, annotated=index != 2)] == expected
    assert protocol.average == average
    assert protocol.rule


def test_short_sequences_of_davis_have_nothing_to_score():
    davis = PROTOCOLS['davis2016']
    assert [count for count in range(1, 5) if not any(davis.scored(k, count, True) for k in range(count))] == [1, 2]


def test_an_unknown_name():
    with pytest.raises(UserError, match='no protocol davis; there are davis2016, segtrackv2, fbms59, annotated'):
        find_protocol('davis')
