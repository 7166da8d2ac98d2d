from __future__ import annotations

from dataclasses import replace

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.evaluation.compare import compare, compare_folders
from moving_object_detector.evaluation.report.comparison import write_comparison
from moving_object_detector.evaluation.results import write_results


@pytest.fixture
def worse(run):
    """The run with J lower by 0.1 on ``car``, without the other sequence, with another threshold."""
    car = run.sequences[0]
    refined = car.variants['refined']
    lower = replace(refined, j=tuple(max(0.0, j - 0.1) for j in refined.j))
    configuration = {**run.identity['configuration'], 'threshold': 0.6}
    return replace(
        run,
        identity={**run.identity, 'configuration': configuration},
        sequences=(replace(car, variants={**car.variants, 'refined': lower}),),
    )


def test_two_runs_side_by_side(run, worse, tmp_path, parse):
    path = write_comparison(tmp_path / 'page.html', compare(run, worse, ('old', 'new')), (tmp_path, tmp_path))
    page = parse(path)
    assert page.row('car')[:5] == ['car', '3', '0.600', '0.500', '−0.100']  # noqa: RUF001 - the minus sign
    assert 'old is better by 0.100, on 1 of 1 sequence' in page.text
    assert 'Only in old : odd <b>&"name" $x$' in page.text
    assert page.row('threshold') == ['threshold', '0.45', '0.6']
    assert 'old · worst frame, 2 · J 0.200' in page.text
    assert 'new · worst frame, 2 · J 0.100' in page.text
    for tag, _, value in page.references:
        assert value.startswith('#' if tag in {'a', 'use'} else 'data:image/jpeg;base64,')


def test_equal_runs(run, tmp_path, parse):
    first = write_comparison(tmp_path / 'page.html', compare(run, run), (tmp_path, tmp_path)).read_bytes()
    page = parse(tmp_path / 'page.html')
    assert 'A and B score the same on all 2 sequences.' in page.text
    assert 'None: both runs were made with the same options' in page.text
    assert write_comparison(tmp_path / 'page.html', compare(run, run), (tmp_path, tmp_path)).read_bytes() == first


def test_of_folders(run, worse, tmp_path, parse):
    write_results(tmp_path, run, {})
    write_results(tmp_path / 'new', worse, {})
    text = compare_folders(tmp_path, tmp_path / 'new', tmp_path / 'pages' / 'page.html')
    assert 'threshold: 0.45 -> 0.6' in text
    # The second folder has no pictures.
    assert 'new · worst' not in parse(tmp_path / 'pages' / 'page.html').text
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written'):
        compare_folders(tmp_path, tmp_path / 'new', tmp_path / 'file' / 'page.html')
