from __future__ import annotations

import json

import pytest

from moving_object_detector.evaluation.results import (
    RULES,
    RunResult,
    SequenceResult,
    VariantColumns,
    area_change,
    scores_of,
    summarise,
)


def columns(j, f=None, objects=None, found=None, false=None, area=None):
    """Columns in which what is not given fits frames with J of ``j``: one object, found where J is over 0.5."""

    def per_frame(value):
        return tuple(None if score is None else value(score) for score in j)

    return VariantColumns(
        j=tuple(j),
        f=tuple(f) if f is not None else per_frame(lambda score: score / 2),
        objects=tuple(objects) if objects is not None else per_frame(lambda score: 1),
        found=tuple(found) if found is not None else per_frame(lambda score: int(score > 0.5)),
        false=tuple(false) if false is not None else per_frame(lambda score: 0),
        area=tuple(area) if area is not None else (0.1,) * len(j),
    )


def sequence(name, *, fps=24.0, **variants):
    count = len(next(iter(variants.values())).j)
    return SequenceResult(name, count, (48, 96), fps, 1.0, variants)


def run(protocol, *sequences):
    variants = list(sequences[0].variants) if sequences else ['mask']
    return RunResult({'protocol': protocol, 'variants': variants}, {}, tuple(sequences))


def sequence_scores(item, variant, protocol):
    return scores_of([item], variant, protocol)


def run_scores(found, variant):
    return scores_of(found.sequences, variant, found.protocol)


CAT = sequence(
    'cat',
    mask=columns(
        [0.0, 0.8, 0.6, 0.4, 1.0],
        f=[0.9, 0.1, 0.2, 0.6, 0.7],
        objects=[5, 1, 2, 2, 7],
        found=[5, 1, 1, 0, 7],
        false=[9, 0, 3, 1, 9],
        area=[0.0, 0.1, 0.2, 0.0, None],
    ),
)


def test_a_sequence_by_the_rule_of_davis():
    """Frames 1 to 3 of 0 to 4; the quarters of three frames are the first two and the last one."""
    scores = sequence_scores(CAT, 'mask', 'davis2016')
    assert scores.frames == 3
    assert scores.j_mean == pytest.approx(0.6)
    assert scores.j_recall == pytest.approx(2 / 3)
    assert scores.j_decay == pytest.approx(0.7 - 0.4)
    assert scores.f_mean == pytest.approx(0.3)
    assert scores.f_recall == pytest.approx(1 / 3)
    assert scores.f_decay == pytest.approx(0.15 - 0.6)
    assert (scores.objects, scores.found, scores.false_regions) == (5, 2, 4)
    assert scores.empty == pytest.approx(2 / 4)  # of all frames that have a mask, scored or not
    assert (scores.still_seconds, scores.false_alarms, scores.false_alarms_per_minute) == (0, 0, None)


def test_the_change_of_the_area():
    # Half of the larger one, a quarter of it, nothing, all of it.
    assert area_change((0.2, 0.1)) == pytest.approx(0.5)
    assert area_change((0.3, 0.4, 0.4, 0.0)) == pytest.approx((0.25 + 0 + 1) / 3)
    assert area_change((0.0, 0.0, 0.2)) == pytest.approx(1)
    assert area_change((0.2, None, 0.1)) is None
    assert area_change((0.0, 0.0)) is None
    assert sequence_scores(CAT, 'mask', 'davis2016').change == pytest.approx((1 + 0.5 + 1) / 3)
    # Of a run it is the mean of the sequences', so that no pair of masks lies across two of them.
    steady = sequence('steady', mask=columns([0.5] * 3, area=[0.2, 0.2, 0.2]))
    assert run_scores(run('annotated', CAT, steady), 'mask').change == pytest.approx((1 + 0.5 + 1) / 3 / 2)


@pytest.mark.parametrize('protocol', ['segtrackv2', 'fbms59', 'annotated'])
def test_a_sequence_by_the_other_rules(protocol):
    scores = sequence_scores(CAT, 'mask', protocol)
    assert scores.frames == 5
    assert scores.j_mean == pytest.approx(2.8 / 5)
    # Quarters of five frames end at 1, 2, 3, 4 and 5.
    assert scores.j_decay == pytest.approx((0.0 + 0.8) / 2 - (0.4 + 1.0) / 2)
    assert (scores.objects, scores.found, scores.false_regions) == (17, 14, 22)


def test_frames_without_annotation_keep_their_place():
    dog = sequence('dog', mask=columns([None, 0.2, None, 0.8, None]))
    for protocol in ('davis2016', 'annotated'):
        scores = sequence_scores(dog, 'mask', protocol)
        assert (scores.frames, scores.objects, scores.found) == (2, 2, 1)
        assert scores.j_mean == pytest.approx(0.5)
        assert scores.j_decay == pytest.approx(0.2 - 0.8)
        assert scores.f_mean == pytest.approx(0.25)


def test_without_truth_there_is_nothing_but_the_masks():
    plain = sequence('plain', mask=columns([None] * 4, area=[0.0, 0.5, 0.5, 0.5]))
    for scores in (sequence_scores(plain, 'mask', 'davis2016'), run_scores(run('annotated', plain), 'mask')):
        assert scores.frames == 0
        assert {scores.j_mean, scores.j_recall, scores.j_decay} == {None}
        assert {scores.f_mean, scores.f_recall, scores.f_decay} == {None}
        assert (scores.objects, scores.found, scores.false_regions) == (0, 0, 0)
        assert scores.empty == 0.25
        assert (scores.still_seconds, scores.false_alarms) == (0, 0)


def test_a_frame_of_which_a_method_says_nothing_has_no_mask():
    silent = sequence('silent', mask=columns([0.0, 0.0], area=[None, None]))
    assert sequence_scores(silent, 'mask', 'annotated').empty is None


ANT = sequence('ant', mask=columns([0.5, 0.2, 0.3]))
PLAIN = sequence('plain', mask=columns([None] * 100))


def test_a_run_by_the_mean_of_sequences():
    """``cat`` counts as much as ``ant``, which has one frame between its ends; ``plain`` not at all."""
    scores = run_scores(run('davis2016', CAT, ANT, PLAIN), 'mask')
    assert scores.frames == 4
    assert scores.j_mean == pytest.approx((0.6 + 0.2) / 2)
    assert scores.j_recall == pytest.approx((2 / 3 + 0) / 2)
    assert scores.j_decay == pytest.approx((0.3 + 0) / 2)
    assert scores.f_mean == pytest.approx((0.3 + 0.1) / 2)
    assert scores.f_recall == pytest.approx((1 / 3 + 0) / 2)
    assert scores.f_decay == pytest.approx((-0.45 + 0) / 2)
    assert (scores.objects, scores.found, scores.false_regions) == (6, 2, 4)
    assert scores.empty == pytest.approx(2 / 107)


@pytest.mark.parametrize('protocol', ['segtrackv2', 'fbms59'])
def test_a_run_by_the_mean_of_frames(protocol):
    """Every frame counts the same; decay has a meaning within a sequence alone."""
    scores = run_scores(run(protocol, CAT, ANT, PLAIN), 'mask')
    assert scores.frames == 8
    assert scores.j_mean == pytest.approx((2.8 + 1.0) / 8)
    assert scores.j_recall == pytest.approx(3 / 8)
    assert scores.f_mean == pytest.approx((2.5 + 0.5) / 8)
    assert scores.f_recall == pytest.approx(3 / 8)
    assert scores.j_decay == pytest.approx((-0.3 + (0.35 - 0.3)) / 2)
    assert scores.f_decay == pytest.approx((0.5 - 0.65 + (0.175 - 0.15)) / 2)


def test_footage_of_no_published_data_set_is_averaged_over_sequences():
    scores = run_scores(run('annotated', CAT, ANT, PLAIN), 'mask')
    assert scores.frames == 8
    assert scores.j_mean == pytest.approx((2.8 / 5 + 1 / 3) / 2)


def test_an_empty_run():
    scores = run_scores(run('davis2016'), 'mask')
    assert (scores.frames, scores.j_mean, scores.empty) == (0, None, None)


def test_false_alarms_on_footage_where_nothing_moves():
    """Six seconds in which a mask comes up three times, once over a frame that got none; and a sequence that moves."""
    yard = sequence(
        'yard',
        fps=2.0,
        mask=columns(
            [1, None, 0, 1, None, 0, 0, 1, None, 1, 1, 0],
            objects=[0, None, 0, 0, None, 0, 0, 0, None, 0, 0, 0],
            found=[0, None, 0, 0, None, 0, 0, 0, None, 0, 0, 0],
            area=[0.0, 0.1, 0.1, 0.0, 0.2, None, 0.3, 0.0, 0.0, 0.0, 0.0, 0.1],
        ),
    )
    scores = sequence_scores(yard, 'mask', 'annotated')
    assert (scores.still_seconds, scores.false_alarms) == (6.0, 3)
    assert scores.false_alarms_per_minute == 30
    moves = sequence('moves', mask=columns([0.5, 0.5], objects=[0, 1]))
    assert sequence_scores(moves, 'mask', 'annotated').still_seconds == 0

    quiet = sequence('quiet', fps=1.0, mask=columns([1.0] * 54, objects=[0] * 54, area=[0.0] * 54))
    both = run_scores(run('annotated', yard, moves, quiet), 'mask')
    assert (both.still_seconds, both.false_alarms, both.false_alarms_per_minute) == (60.0, 3, 3)

    # A mover too small to be counted as an object, found once, or missed by an empty mask.
    for j, area in (([1.0, 0.6], [0.0, 0.0002]), ([1.0, 0.0], [0.0, 0.0])):
        tiny = sequence('tiny', mask=columns(j, objects=[0, 0], area=area))
        assert sequence_scores(tiny, 'mask', 'annotated').still_seconds == 0


def test_the_summary_of_a_run_through_json():
    two = sequence('two', first=columns([0.1, 0.3]), last=columns([0.5, 0.7]))
    bare = sequence('bare', first=columns([None]), last=columns([None]))
    summary = json.loads(json.dumps(summarise(run('segtrackv2', two, bare)), allow_nan=False))
    assert summary['protocol'] == 'segtrackv2'
    assert list(summary['variants']) == ['first', 'last']
    first, last = summary['variants'].values()
    assert first['run']['j_mean'] == first['sequences']['two']['j_mean'] == pytest.approx(0.2)
    assert last['run']['j_mean'] == pytest.approx(0.6)
    assert last['sequences']['bare']['j_mean'] is None
    assert last['run']['false_alarms_per_minute'] is None
    assert set(last['run']) == set(last['sequences']['two'])
    assert {'frames', 'j_mean', 'f_decay', 'objects', 'found', 'false_regions', 'empty'} < set(last['run'])


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
    rule = RULES[name]
    assert [index for index in range(5) if rule.scored(index, 5, annotated=index != 2)] == expected
    assert rule.average == average
    assert rule.words


def test_short_sequences_of_davis_have_nothing_to_score():
    davis = RULES['davis2016']
    assert [count for count in range(1, 5) if not any(davis.scored(k, count, True) for k in range(count))] == [1, 2]


def test_an_unknown_protocol():
    with pytest.raises(ValueError, match='protocol davis'):
        run('davis')
