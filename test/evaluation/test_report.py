from __future__ import annotations

import base64
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.evaluation.report import write_report
from moving_object_detector.evaluation.results import KeptFrame, read_results, write_results


def assert_self_contained(page, text):
    for tag, name, value in page.references:
        inside = value.startswith(('#', 'data:image/jpeg;base64,', 'data:image/svg+xml;base64,'))
        assert inside, (tag, name, value[:80])
    assert not {'link', 'iframe', 'object', 'embed', 'base'} & set(page.tags)
    assert '@import' not in text
    assert 'url(http' not in text
    anchors = {value[1:] for tag, _, value in page.references if tag == 'a' and value.startswith('#')}
    assert all(f'id="{anchor}"' in text for anchor in anchors)


def photographs(page):
    return [value for tag, _, value in page.references if tag == 'img' and value.startswith('data:image/jpeg')]


def drawings(page):
    found = [value for tag, _, value in page.references if tag == 'img' and value.startswith('data:image/svg')]
    return [base64.b64decode(value.partition(',')[2]).decode() for value in found]


def test_numbers_worked_by_hand(run, tmp_path, parse):
    path = write_report(tmp_path, run)
    assert path == tmp_path / 'report.html'
    page = parse(path)
    # F: means 0.5 and 0.55, recalls 1/3 and 1/2; 4 of 5 objects found; no footage in which nothing moves.
    variants = dict(zip(page.row('variant'), page.row('refined'), strict=True))
    assert page.row('refined')[1:3] == ['0.700', '0.833']
    assert page.row('refined')[4:6] == ['0.525', '0.417']
    assert (variants['objects'], variants['found'], variants['false']) == ('5', '4', '0')
    assert 'alarms/min' not in variants
    assert page.row('zero_lag')[1] == '0.400'
    car = dict(zip(page.row('sequence'), page.row('car'), strict=True))
    assert (car['frames'], car['J'], car['F'], car['objects'], car['found']) == ('5', '0.600', '0.500', '3', '2')
    assert car['empty'] == '0.400'  # two of five masks
    assert car['change'] == '0.500'  # from nothing, none, none, to nothing
    assert car['masks/s'] == '2.50'
    assert 'DAVIS2016 val' in page.text
    assert '9 in 2 sequences' in page.text
    assert '3.00 fps' in page.text
    assert 'Latency, median 25 ms p95 38 ms' in page.text
    for caption in ('best frame 1 · J 0.900', 'worst frame 2 · J 0.200', 'frame 3 · J 0.700'):
        assert caption in page.text


def test_all_else_that_was_run_is_told(run, tmp_path, parse):
    text = parse(write_report(tmp_path, run)).text
    for words in (
        'threshold 0.45', 'window.past 5', 'model abc123', 'command evaluate --root <here>', 'versions.numpy 2.2.6',
        'lost: no frame could be read', 'frame 2 is <damaged>', 'dis-medium',
        'all frames but the first and last of each sequence',
    ):  # fmt: skip
        assert words in text


def test_one_file_whatever_the_names(run, odd, tmp_path, parse):
    path = write_report(tmp_path, run)
    page, text = parse(path), path.read_text(encoding='utf-8')
    assert_self_contained(page, text)
    assert page.text.count(odd) >= 2  # table, frames
    assert '<b>&"' not in text
    assert page.tags.count('script') == 1
    assert len(photographs(page)) == 6
    identifiers = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(identifiers) == len(set(identifiers))


def test_the_same_bytes_every_time(run, tmp_path):
    first = write_report(tmp_path, run).read_bytes()
    assert write_report(tmp_path, run).read_bytes() == first
    write_results(tmp_path, run)
    program = (
        'from pathlib import Path; from moving_object_detector.evaluation.report import write_report; '
        'from moving_object_detector.evaluation.results import read_results; '
        f'write_report(Path({str(tmp_path)!r}), read_results(Path({str(tmp_path)!r})))'
    )
    environment = {**os.environ, 'PYTHONHASHSEED': '77'}
    subprocess.run([sys.executable, '-c', program], check=True, env=environment, cwd=Path(__file__).parents[2])
    assert (tmp_path / 'report.html').read_bytes() == first


def test_footage_without_truth(blind, tmp_path, parse):
    path = write_report(tmp_path, blind)
    page = parse(path)
    assert_self_contained(page, path.read_text(encoding='utf-8'))
    assert page.text.startswith('ride.mcap ')
    assert 'There is no truth to score against' in page.text
    for word in ('J, region', 'best frame', 'outline: truth', 'J over', 'mean 0.'):
        assert word not in page.text
    # Masks of car cover 0, 1/4, 1/4, 1/4 and 0 of the image.
    car = dict(zip(page.row('sequence'), page.row('car'), strict=True))
    assert (car['frames'], car['area']) == ('5', '0.1500')
    assert not {'J', 'F', 'objects'} & set(car)
    assert len(photographs(page)) == 2
    assert len(drawings(page)) == 2  # a curve for each sequence


def test_one_sequence_without_latency_or_pictures(run, tmp_path, parse):
    bare = replace(run.sequences[0], latency=(), pictures=())
    page = parse(write_report(tmp_path, replace(run, sequences=(bare,), problems=())))
    assert 'Latency' not in page.text
    assert 'in 1 sequence ' in page.text
    assert f'J of {run.variants[-1]}' not in page.text  # there is no chart that this would explain
    assert 'Problems None.' in page.text
    assert not photographs(page)


def test_nothing_evaluated(run, tmp_path, parse):
    text = parse(write_report(tmp_path, replace(run, sequences=()))).text
    assert 'lost: no frame could be read' in text
    assert '0 in 0 sequences' in text


def test_dropped_frames_are_shown(run, tmp_path, parse):
    live = replace(run, sequences=(replace(run.sequences[0], dropped=7), run.sequences[1]))
    page = parse(write_report(tmp_path, live))
    assert dict(zip(page.row('sequence'), page.row('car'), strict=True))['no mask'] == '7'


def test_pictures_that_are_gone_or_elsewhere_are_left_out(run, tmp_path, parse):
    (tmp_path / 'pictures' / 'car' / 'best_0.jpg').unlink()
    folder = tmp_path / 'run'
    folder.mkdir()
    outside = replace(run.sequences[1], pictures=(KeptFrame('../pictures/odd/best_0.jpg', 1, 'best'),))
    page = parse(write_report(tmp_path, run))
    assert len(photographs(page)) == 5
    page = parse(write_report(folder, replace(run, sequences=(outside,))))
    assert not photographs(page)


def test_few_annotations_are_drawn_as_dots(run, tmp_path, parse):
    """A data set that annotates every tenth frame: the curve joins what is known."""
    item = run.sequences[0]
    sparse = tuple(0.5 if place % 10 == 0 else None for place in range(41))
    variants = {name: replace(values, j=sparse, f=sparse, area=sparse) for name, values in item.variants.items()}
    variants = {name: replace(values, objects=sparse, found=sparse, false=sparse) for name, values in variants.items()}
    sparse_run = replace(run, sequences=(replace(item, frame_count=41, variants=variants, pictures=()),))
    curve = drawings(parse(write_report(tmp_path, sparse_run)))[-1]
    assert curve.count('<use ') >= 5


def test_a_protocol_that_there_is_not(run, tmp_path):
    write_results(tmp_path, run)
    stored = tmp_path / 'results.json'
    stored.write_text(stored.read_text().replace('"protocol": "davis2016"', '"protocol": "mine"'))
    with pytest.raises(UserError, match='no protocol mine'):
        read_results(tmp_path)
