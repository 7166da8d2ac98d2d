from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest

from moving_object_detector.config_file import load_config
from moving_object_detector.datasets.davis import read_davis
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.errors import UserError
from moving_object_detector.evaluation.run import detect_sequence, score_sequence


@pytest.fixture
def build(options):
    def build(*more):
        return build_detector(load_config(DetectorConfig(), None, [*options, *more]))

    return build


def overlap(mask, truth):
    """Jaccard index by counting pixels, with the mask looked up at the truth's pixels."""
    rows = (np.arange(truth.shape[0]) * mask.shape[0]) // truth.shape[0]
    columns = (np.arange(truth.shape[1]) * mask.shape[1]) // truth.shape[1]
    inter = union = 0
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            both = bool(mask[row, column]), bool(truth[y, x])
            inter += all(both)
            union += any(both)
    return inter / union if union else 1.0


def test_every_frame_gets_a_result_of_either_kind(build, davis):
    sequence = read_davis(davis, 'val')[0]
    detector = build()
    assert [result.index for result in detect_sequence(detector, sequence, 'refined')] == list(range(6))
    # The first frame has no earlier neighbour.
    assert [result.index for result in detect_sequence(detector, sequence, 'zero_lag')] == [1, 2, 3, 4, 5]


def test_sequences_do_not_influence_each_other(build, davis):
    wander, blink = read_davis(davis, 'val')
    detector = build()
    alone = score_sequence(partial(detect_sequence, build(), estimate='refined'), blink, lambda _: None)
    score_sequence(partial(detect_sequence, detector, estimate='refined'), wander, lambda _: None)
    assert score_sequence(partial(detect_sequence, detector, estimate='refined'), blink, lambda _: None) == alone


def test_a_sequence_that_was_broken_off_leaves_nothing_behind(build, davis):
    wander, blink = read_davis(davis, 'val')
    detector = build()
    next(detect_sequence(detector, wander, 'refined'))
    results = list(detect_sequence(detector, blink, 'refined'))
    assert [result.index for result in results] == list(range(6))
    assert np.array_equal(results[0].image[:, :, ::-1], cv2.imread(str(blink.images[0])))


@pytest.mark.parametrize('scale', [1, 2])
def test_scores_against_counting(build, davis, scale):
    """The masks that the detector gives, scored by hand; annotations may be larger than the frames."""
    sequence = read_davis(davis, 'val')[0]
    paths = [davis / 'Annotations' / '480p' / 'wander' / f'{k:05d}.png' for k in range(6)]
    for path in paths:
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST))
    seen = []
    score = score_sequence(partial(detect_sequence, build(), estimate='refined'), sequence, seen.append)
    assert [result.index for result in seen] == list(range(6))
    expected = [
        overlap(result.mask, cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        for result, path in zip(seen, paths, strict=True)
    ]
    assert 0 < max(expected) < 1
    assert score.name == 'wander'
    assert score.frames == pytest.approx(expected)
    assert score.mean == pytest.approx(sum(expected[1:-1]) / 4)


def test_frames_without_a_result_count_as_empty_masks(build, davis):
    """Without earlier neighbours there is no zero-lag estimate: right where there is no object, wrong elsewhere."""
    blink = read_davis(davis, 'val')[1]
    score = score_sequence(partial(detect_sequence, build('window.past=0'), estimate='zero_lag'), blink, lambda _: None)
    assert score.frames == (0, 0, 1, 0, 0, 1)
    assert score.mean == 0.25


def test_missing_annotations(build, davis):
    (davis / 'Annotations' / '480p' / 'wander' / '00003.png').unlink()
    (davis / 'Annotations' / '480p' / 'wander' / '00000.png').unlink()
    wander = read_davis(davis, 'val')[0]
    score = score_sequence(partial(detect_sequence, build(), estimate='refined'), wander, lambda _: None)
    assert [frame is None for frame in score.frames] == [True, False, False, True, False, False]
    assert score.mean == pytest.approx(sum(score.frames[k] for k in (1, 2, 4)) / 3)


@pytest.mark.parametrize('kept', [[], [0], [0, 5], [0, 1]])
def test_a_sequence_with_nothing_to_score_is_refused_before_it_is_run(build, davis, kept):
    wander = read_davis(davis, 'val')[0]
    images = wander.images if kept != [0, 1] else wander.images[:2]
    annotations = tuple(path if k in kept else None for k, path in enumerate(wander.annotations))[: len(images)]
    with pytest.raises(UserError, match='sequence wander has no annotation between its first and last frame'):
        score_sequence(
            partial(detect_sequence, build(), estimate='refined'), Sequence('wander', images, annotations), pytest.fail
        )
