from __future__ import annotations

import os
from dataclasses import replace

import pytest

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.evaluation.compare import compare_runs
from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.results import (
    RESULTS,
    RunResult,
    SequenceResult,
    VariantColumns,
    read_results,
    write_results,
)

IDENTITY = {
    'dataset': 'davis2016',
    'root': 'data',
    'split': 'val',
    'protocol': 'davis2016',
    'method': 'detector',
    'variants': ['refined'],
    'configuration': {'threshold': 0.5, 'window': {'past': 5, 'future': 5}},
}


def columns(j):
    one = tuple(None if value is None else 1.0 for value in j)
    return VariantColumns(j=tuple(j), f=tuple(j), objects=one, found=one, false=one, area=tuple(0.1 for _ in j))


def run_of(scores, identity=None, variants=('refined',)):
    """A run in which each sequence has three frames; the second alone is scored, with the J given."""
    sequences = tuple(
        SequenceResult(
            name=name,
            frame_count=3,
            size=(48, 96),
            fps=24.0,
            seconds=1.0,
            variants={
                variant: columns([None, None, None] if j is None else [0.0, j - 0.1 * place, 0.0])
                for place, variant in enumerate(reversed(variants))
            },
        )
        for name, j in scores.items()
    )
    return RunResult({**IDENTITY, 'variants': list(variants), **(identity or {})}, {}, sequences)


NAMES = 'abcdefgh'
BASE = dict.fromkeys(NAMES, 0.5)


def test_differences_by_hand():
    found = compare_runs(run_of({'x': 0.5, 'y': 0.25, 'left': 0.1}), run_of({'y': 0.75, 'x': 0.25, 'right': 0.2}))
    assert found.differences == {'x': pytest.approx(-0.25), 'y': pytest.approx(0.5)}
    assert found.table.rows[-1][:5] == ['mean', None, *map(pytest.approx, (0.375, 0.5, 0.125))]
    assert found.options == ()
    assert found.notes == ('only in A: left', 'only in B: right')


def test_what_it_comes_to_is_said():
    """Of the 256 ways to sign eight differences above zero, two reach their sum."""
    better = {name: 0.51 + 0.01 * place for place, name in enumerate(NAMES)}
    found = compare_runs(run_of(BASE), run_of(better), ('old', 'new'))
    assert found.p == pytest.approx(2 / 256)
    assert 'new minus old: J +0.045, higher on 8 of 8 sequences; ' in found.text()
    assert 'p = 0.008' in found.text()
    mirrored = compare_runs(run_of(better), run_of(BASE), ('new', 'old'))
    assert 'old minus new: J -0.045, higher on 0 of 8 sequences; ' in mirrored.text()
    same = compare_runs(run_of(BASE), run_of(BASE), ('old', 'new'))
    assert same.p == 1
    assert 'J +0.000, higher on 0 of 8' in same.text()


def test_what_cannot_be_compared():
    with pytest.raises(UserError, match=r'davis2016, new .* fbms59'):
        compare_runs(run_of(BASE), run_of(BASE, {'protocol': 'fbms59'}), ('old', 'new'))
    with pytest.raises(UserError, match='no sequence in common'):
        compare_runs(run_of({'x': 0.5}), run_of({'y': 0.5}))
    with pytest.raises(UserError, match='no sequence in common'):
        compare_runs(run_of({'x': None}), run_of({'x': None}))


def test_sequences_without_truth_are_shown_and_do_not_count():
    found = compare_runs(run_of({'x': 0.5, 'y': None}), run_of({'x': 0.6, 'y': None}))
    assert [row[0] for row in found.table.rows] == ['x', 'y', 'mean']
    assert found.differences == {'x': pytest.approx(0.1)}
    assert found.table.rows[-1][2:4] == [pytest.approx(0.5), pytest.approx(0.6)]


def test_the_variant_that_counts_is_compared():
    run = run_of(BASE, variants=('zero_lag', 'refined'))
    other = replace(run, identity={**run.identity, 'variants': ['refined', 'zero_lag']})
    assert not any(compare_runs(run, run).differences.values())
    found = compare_runs(other, run)
    assert found.differences == dict.fromkeys(NAMES, pytest.approx(0.1))
    assert found.options == (('variant', 'zero_lag', 'refined'),)


def test_what_the_runs_differ_in():
    other = {'configuration': {'threshold': 0.4, 'window': {'past': 3, 'future': 5}, 'sign': 'border'}, 'root': 'disk'}
    b = replace(run_of(BASE, other), details={'flow': 'raft', 'command': 'evaluate'})
    assert compare_runs(run_of(BASE), b).options == (
        ('threshold', '0.5', '0.4'),
        ('window.past', '5', '3'),
        ('sign', '-', 'border'),
        ('flow', '-', 'raft'),
    )


def test_sequences_of_other_lengths_are_noted():
    b = run_of({'x': 0.5})
    longer = columns([0.0, 0.5, 0.5, 0.0])
    b = replace(b, sequences=(replace(b.sequences[0], frame_count=4, variants={'refined': longer}),))
    assert compare_runs(run_of({'x': 0.5}), b, ('old', 'new')).notes == ('x: 1 frames were scored in old, 2 in new',)


def test_text_for_the_terminal(tmp_path, capsys):
    write_results(tmp_path / 'old', run_of({'bear': 0.5, 'boat': 0.25, 'lost': 0.5}))
    write_results(tmp_path / 'new', run_of({'bear': 0.75, 'boat': 0.25}))
    assert main(['compare', str(tmp_path / 'old'), str(tmp_path / 'new')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[1:5]] == [
        ['bear', '1', '0.500', '0.750', '+0.250'],
        ['boat', '1', '0.250', '0.250', '+0.000'],
        ['-' * len(lines[0])],
        ['mean', '-', '0.375', '0.500', '+0.125'],
    ]
    assert 'only in old: lost' in lines
    assert lines[-1].startswith('new minus old: J +0.125, higher on 1 of 2')
    assert 'sign-flip permutation test' in lines[-1]
    assert not list(tmp_path.glob('*.html'))


def test_folders_of_one_name_are_told_apart(tmp_path, capsys):
    for place in ('here', 'there'):
        write_results(tmp_path / place / 'out', run_of(BASE))
    folders = [str(tmp_path / place / 'out') for place in ('here', 'there')]
    assert main(['compare', *folders]) == 0
    out = capsys.readouterr().out
    assert all(f'J {foreign(folder)}' in out for folder in folders)
    assert main(['compare', str(tmp_path), folders[0]]) == 2
    assert 'results.json is not there' in capsys.readouterr().err


def test_results_that_are_a_pipe_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / RESULTS)
    with pytest.raises(UserError, match='it is not a file'):
        read_results(tmp_path)
