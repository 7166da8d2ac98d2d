from __future__ import annotations

from dataclasses import replace

import pytest

from moving_object_detector.evaluation.compare import compare_runs
from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.report import write_comparison
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
    path = write_comparison(tmp_path / 'page.html', compare_runs(run, worse, ('old', 'new')), (tmp_path, tmp_path))
    page = parse(path)
    assert page.row('car')[:5] == ['car', '3', '0.600', '0.500', '-0.100']
    assert 'new is worse than old: J -0.100' in page.text
    assert 'J of new minus J of old -0.100' in page.text
    assert 'only in old: odd <b>&"name" $x$' in page.text
    assert page.row('threshold') == ['threshold', '0.45', '0.6']
    assert 'old · worst frame 2 · J 0.200' in page.text
    assert 'new · worst frame 2 · J 0.100' in page.text
    for tag, _, value in page.references:
        assert value.startswith('#' if tag == 'a' else 'data:image/')


def test_equal_runs(run, tmp_path, parse):
    first = write_comparison(tmp_path / 'page.html', compare_runs(run, run), (tmp_path, tmp_path)).read_bytes()
    page = parse(tmp_path / 'page.html')
    assert 'A and B score the same on all 2 sequences.' in page.text
    assert 'same options, weights and versions' in page.text
    assert write_comparison(tmp_path / 'page.html', compare_runs(run, run), (tmp_path, tmp_path)).read_bytes() == first


def test_of_folders(run, worse, tmp_path, parse, capsys):
    write_results(tmp_path, run, {})
    write_results(tmp_path / 'new', worse, {})
    folders = [str(tmp_path), str(tmp_path / 'new')]
    assert main(['compare', *folders, '--out', str(tmp_path / 'pages' / 'page.html')]) == 0
    assert 'threshold: 0.45 -> 0.6' in capsys.readouterr().out
    # The second folder has no pictures.
    assert 'new · worst' not in parse(tmp_path / 'pages' / 'page.html').text
    (tmp_path / 'file').write_text('')
    assert main(['compare', *folders, '--out', str(tmp_path / 'file' / 'page.html')]) == 2
    assert 'page.html' in capsys.readouterr().err
