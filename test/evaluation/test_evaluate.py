from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from moving_object_detector.evaluation.clips import open_clips
from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.options import EvaluateOptions
from moving_object_detector.evaluation.results import read_results


def run(davis, out, options, *more):
    assert main(['--root', str(davis), '--out', str(out), *more, '--set', *options]) == 0
    return read_results(out)


def test_the_program_end_to_end(davis, options, tmp_path, capsys):
    out = tmp_path / 'new' / 'results'
    result = run(davis, out, options, '--variants', 'zero_lag', 'refined+none', 'refined', '--save-masks')
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r'J (\d\.\d{3}) F (\d\.\d{3}) frames 12 fps (\d+\.\d\d)', last)
    assert found
    assert float(found[3]) > 0

    assert [sequence.name for sequence in result.sequences] == ['wander', 'blink']
    assert result.variants == ('zero_lag', 'refined+none', 'refined')
    for sequence in result.sequences:
        assert sequence.frame_count == 6
        assert sequence.size == (48, 96)
        assert set(sequence.variants) == set(result.variants)
        assert len(sequence.latency) == 5  # the last frame is complete without a frame that follows it
        assert all(value > 0 for value in sequence.latency)
        for picture in sequence.pictures:
            assert cv2.imread(str(out / picture.file)).shape == (48, 96, 3)
    means = [np.mean(sequence.variants['refined'].j[1:-1]) for sequence in result.sequences]
    assert f'{np.mean(means):.3f}' == found[1]
    summary = json.loads((out / 'results.json').read_text())['summary']
    assert summary['variants']['refined']['run']['j_mean'] == pytest.approx(np.mean(means))
    assert result.details['engine'] == 'torch float32 on cpu'
    assert result.details['flow'] == 'dis-ultrafast'
    assert result.identity['configuration']['window'] == {'past': 1, 'future': 1, 'stride': 1, 'slow_stride': 1}
    assert 'wander' in (out / 'report.html').read_text()


def test_kept_masks_are_what_is_scored(davis, options, tmp_path):
    result = run(davis, tmp_path / 'out', options, '--save-masks', '--variants', 'refined')
    covered = 0
    for sequence in result.sequences:
        for index, score in enumerate(sequence.variants['refined'].j):
            name = f'{index:05d}.png'
            mask = cv2.imread(str(tmp_path / 'out' / 'masks' / sequence.name / name), cv2.IMREAD_UNCHANGED)
            truth = cv2.imread(str(davis / 'Annotations' / '480p' / sequence.name / name), cv2.IMREAD_UNCHANGED)
            both, either = ((mask > 0) & (truth > 0)).sum(), ((mask > 0) | (truth > 0)).sum()
            assert score == (both / either if either else 1)
            covered += both
    assert covered > 0


def test_the_official_rule_by_hand(davis, options, tmp_path, capsys):
    """Nothing passes the gate: J is 1 where there is no object and 0 elsewhere, the ends not counted."""
    result = run(davis, tmp_path / 'out', [*options, 'gate.min_motion=1000.0'])
    wander, blink = (sequence.variants['refined'] for sequence in result.sequences)
    assert wander.j == wander.f == (0, 0, 0, 0, 0, 0)
    assert blink.j == blink.f == (0, 0, 1, 0, 0, 1)
    assert blink.objects == (1, 1, 0, 1, 1, 0)
    assert blink.area == (0, 0, 0, 0, 0, 0)
    assert capsys.readouterr().out.splitlines()[-1].startswith('J 0.125 F 0.125 frames 12 fps ')


def test_a_frame_of_which_nothing_is_said_counts_as_an_empty_mask(davis, options, tmp_path):
    result = run(davis, tmp_path / 'out', [*options, 'window.past=0'], '--variants', 'zero_lag')
    blink = result.sequences[1].variants['zero_lag']
    assert blink.j == (0, 0, 1, 0, 0, 1)
    assert blink.area == (None,) * 6


def test_sequences_do_not_influence_each_other(davis, options, tmp_path):
    both = run(davis, tmp_path / 'both', options)
    alone = run(davis, tmp_path / 'alone', options, '--sequences', 'blink')
    assert [sequence.name for sequence in alone.sequences] == ['blink']
    assert alone.sequences[0].variants == both.sequences[1].variants


def test_parameters_of_the_nodes_file(davis, options, tmp_path):
    config = tmp_path / 'params.yaml'
    rows = [option.replace('=', ': ', 1) for option in options]
    config.write_text('/**:\n  ros__parameters:\n    qos_depth_of_somebody_else: 3\n    ' + '\n    '.join(rows))
    out = tmp_path / 'out'
    assert main(['--root', str(davis), '--sequences', 'wander', '--config', str(config), '--out', str(out)]) == 0
    assert read_results(out).identity['configuration']['flow']['preset'] == 'ultrafast'


def test_a_baseline(davis, tmp_path, capsys):
    arguments = ['--root', str(davis), '--method', 'everything', '--out', str(tmp_path / 'out')]
    assert main(arguments) == 0
    area = 20 * 20 / (48 * 96)
    expected = (area + 3 * area / 4) / 2  # blink is empty in one of its four scored frames
    assert capsys.readouterr().out.splitlines()[-1].startswith(f'J {expected:.3f} F ')


def test_mistakes_are_told(davis, options, tmp_path, capsys):
    def error(*arguments, root=davis, out=tmp_path / 'out'):
        assert main(['--root', str(root), '--out', str(out), *arguments, '--set', *options]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert re.search(r'error: .*none.*val\.txt is missing', error(root=tmp_path / 'none'))
    assert re.search(r'error: .*split train.*val', error('--split', 'train'))
    assert error('--sequences', 'wander', 'dog', 'cat') == (
        'error: no sequence dog, cat in the footage; there are wander, blink'
    )
    (tmp_path / 'file').write_text('')
    assert 'cannot be made a folder' in error(out=tmp_path / 'file')
    assert 'error: last is no variant; give zero_lag or refined' in error('--variants', 'last')
    assert '--set has no effect with --method everything' in error('--method', 'everything')
    assert main(['--dataset', 'folder']) == 2
    assert '--dataset folder needs --root' in capsys.readouterr().err
    assert main(['--root', str(davis), '--set', 'window.past=many']) == 2
    assert "error: window.past is 'many', but takes a whole number from 0 to 20" in capsys.readouterr().err


def test_a_damaged_frame_costs_that_frame(davis, options, tmp_path):
    before = run(davis, tmp_path / 'before', options)
    (davis / 'JPEGImages' / '480p' / 'wander' / '00002.jpg').write_bytes(b'no picture')
    (davis / 'JPEGImages' / '480p' / 'wander' / '00004.jpg').unlink()
    result = run(davis, tmp_path / 'after', options)
    wander, blink = result.sequences
    assert wander.frame_count == 6
    assert wander.variants['refined'].area[2] is None
    assert wander.variants['refined'].j[2] == wander.variants['refined'].j[4] == 0
    assert wander.variants['refined'].area[3] is not None
    assert 'frame 2 is left out' in wander.problems[0]
    assert 'not an image that can be decoded' in wander.problems[0]
    assert 'frame 4 is left out' in wander.problems[1]
    assert blink.variants == before.sequences[1].variants
    assert 'frame 2 is left out' in (tmp_path / 'after' / 'report.html').read_text()


def test_a_first_frame_that_is_damaged_costs_that_frame_too(davis, options, tmp_path):
    (davis / 'JPEGImages' / '480p' / 'wander' / '00000.jpg').write_bytes(b'')
    wander = run(davis, tmp_path / 'out', options, '--sequences', 'wander').sequences[0]
    assert [value is None for value in wander.variants['refined'].area] == [True, *(5 * [False])]


def test_an_empty_sequence_costs_that_sequence(options, tmp_path):
    root, rng = tmp_path / 'segtrack', np.random.default_rng(3)
    for name, count in (('bird', 3), ('frog', 0)):
        for folder in ('JPEGImages', 'GroundTruth'):
            (root / folder / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(root / 'JPEGImages' / name / f'{number}.png'), rng.integers(0, 255, (48, 96, 3), np.uint8))
            cv2.imwrite(str(root / 'GroundTruth' / name / f'{number}.png'), np.full((48, 96), 255, np.uint8))
    arguments = ['--dataset', 'segtrackv2', '--root', str(root), '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--set', *options]) == 0
    result = read_results(tmp_path / 'out')
    assert [sequence.name for sequence in result.sequences] == ['bird']
    assert result.problems == ('frog: no frame there; is the data complete?',)


def test_a_lost_sequence_costs_that_sequence(davis, options, tmp_path):
    for frame in (davis / 'JPEGImages' / '480p' / 'wander').iterdir():
        frame.write_bytes(b'')
    result = run(davis, tmp_path / 'out', options)
    assert [sequence.name for sequence in result.sequences] == ['blink']
    assert result.problems[0].startswith('wander: ')


def test_damaged_and_missing_annotations(davis, options, tmp_path):
    truth = davis / 'Annotations' / '480p' / 'wander'
    (truth / '00003.png').unlink()
    (truth / '00002.png').write_bytes(b'\x89PNG cut short')
    big = cv2.resize(cv2.imread(str(truth / '00001.png'), cv2.IMREAD_UNCHANGED), None, fx=2, fy=2)
    cv2.imwrite(str(truth / '00001.png'), big)
    wander = run(davis, tmp_path / 'out', options).sequences[0]
    assert [value is None for value in wander.variants['refined'].j] == [False, False, True, True, False, False]
    text = ' | '.join(wander.problems)
    assert '1 of 6 frames have no annotation' in text
    assert 'annotation of frame 2 is left out' in text
    assert 'annotations are 192x96, masks 96x48' in text


def test_a_run_goes_on_where_it_was(davis, options, tmp_path, capsys):
    whole = run(davis, tmp_path / 'whole', options)
    out = tmp_path / 'out'
    run(davis, out, options)
    (out / 'sequences' / 'blink.json').unlink()
    kept = (out / 'sequences' / 'wander.json').stat().st_mtime_ns
    again = run(davis, out, options)
    assert (out / 'sequences' / 'wander.json').stat().st_mtime_ns == kept
    assert [s.variants for s in again.sequences] == [s.variants for s in whole.sequences]
    assert again.problems == ()

    # A sequence that another version has scored is kept, and said.
    stored = json.loads((out / 'sequences' / 'wander.json').read_text())
    stored['made_by'] = 'revision 123 on another machine'
    (out / 'sequences' / 'wander.json').write_text(json.dumps(stored))
    (problem,) = run(davis, out, options).problems
    assert problem.startswith('1 of 2 sequences were scored by revision 123 on another machine')

    capsys.readouterr()
    assert main(['--root', str(davis), '--out', str(out), '--set', *options, 'window.past=2']) == 2
    assert 'holds a run in which configuration.window.past was 1, now it is 2' in capsys.readouterr().err
    assert main(['--root', str(davis), '--out', str(out), '--overwrite', '--set', *options, 'window.past=2']) == 0
    assert read_results(out).identity['configuration']['window']['past'] == 2


@pytest.mark.slow
def test_a_killed_run_loses_nothing_that_was_done(davis, options, tmp_path):
    source, out = davis / 'JPEGImages' / '480p', tmp_path / 'out'
    rows = (davis / 'ImageSets' / '480p' / 'val.txt').read_text().splitlines()
    for number in range(8):
        for folder in ('JPEGImages', 'Annotations'):
            shutil.copytree(davis / folder / '480p' / 'wander', davis / folder / '480p' / f'more{number}')
        rows += [row.replace('wander', f'more{number}') for row in rows[:6]]
    (davis / 'ImageSets' / '480p' / 'val.txt').write_text('\n'.join(rows))
    assert len(list(source.iterdir())) == 10
    arguments = ['--root', str(davis), '--out', str(out), '--set', *options]
    command = [sys.executable, '-m', 'moving_object_detector.evaluation.evaluate', *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 120
        while len(list((out / 'sequences').glob('*.json'))) < 3:
            assert time.monotonic() < end
            assert process.poll() is None, 'it ended before it could be killed'
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    done = {path.name: path.stat().st_mtime_ns for path in (out / 'sequences').glob('*.json')}
    assert 3 <= len(done) < 10
    assert main(arguments) == 0
    assert len(read_results(out).sequences) == 10
    assert all((out / 'sequences' / name).stat().st_mtime_ns == when for name, when in done.items())


def test_footage_in_which_nothing_moves(davis, options, tmp_path, capsys):
    """Declared still, every mask is a false alarm; a folder's clips are named by their folders."""
    root = davis / 'JPEGImages' / '480p'
    arguments = ['--dataset', 'folder', '--root', str(root), '--still', '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--set', *options]) == 0
    result = read_results(tmp_path / 'out')
    assert [sequence.name for sequence in result.sequences] == ['blink', 'wander']
    for sequence in result.sequences:
        columns = sequence.variants['refined']
        assert columns.j == tuple(1.0 if area == 0 else 0.0 for area in columns.area)
    assert 'alarms/min' in capsys.readouterr().out


def test_a_folder_with_masks_scores_as_the_data_set(davis, options, tmp_path):
    published = run(davis, tmp_path / 'published', options)
    root, masks = davis / 'JPEGImages' / '480p', davis / 'Annotations' / '480p'
    arguments = ['--dataset', 'folder', '--root', str(root), '--masks', str(masks), '--out', str(tmp_path / 'folder')]
    assert main([*arguments, '--set', *options]) == 0
    found = {sequence.name: sequence for sequence in read_results(tmp_path / 'folder').sequences}
    for sequence in published.sequences:
        assert found[sequence.name].variants == sequence.variants


def test_footage_without_truth_gets_a_report(davis, options, tmp_path, capsys):
    root = davis / 'JPEGImages' / '480p' / 'wander'
    assert main(['--dataset', 'folder', '--root', str(root), '--out', str(tmp_path / 'out'), '--set', *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('J - F - frames 6 fps ')
    assert (tmp_path / 'out' / 'report.html').stat().st_size > 10_000


def test_rendered_scenes(options, tmp_path):
    arguments = ['--dataset', 'rendered', '--scenes', '3', '--scene-frames', '3', '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--set', *options]) == 0
    result = read_results(tmp_path / 'out')
    assert [sequence.name for sequence in result.sequences] == ['moving-0', 'moving-1', 'moving-2', 'still-0']
    objects = {sequence.name: sequence.variants['refined'].objects for sequence in result.sequences}
    assert objects['still-0'] == (0, 0, 0)
    assert sum(sum(counts) for counts in objects.values()) > 0


def test_flights_are_scored_by_motion_and_by_parallax(options, tmp_path, capsys):
    names = ['still-04-hover', 'moving-07-drive']
    arguments = ['--dataset', 'flights', '--scene-frames', '3', '--sequences', *names, '--out', str(tmp_path / 'out')]
    assert main([*arguments, '--set', *options]) == 0
    still, moving = read_results(tmp_path / 'out').sequences
    assert still.variants['refined'].objects == (0, 0, 0)
    assert sum(moving.variants['refined'].objects) > 0
    assert still.groups == {'all': 'still', 'still motion': 'hover', 'still parallax': '1'}
    summary = json.loads((tmp_path / 'out' / 'results.json').read_text())['summary']['variants']['refined']
    areas = still.variants['refined'].area
    assert summary['groups']['still motion hover']['area'] == pytest.approx(sum(areas) / 3)
    assert summary['groups']['all moving']['objects'] == sum(moving.variants['refined'].objects)
    assert 'still parallax 1' in capsys.readouterr().out


def test_there_are_twenty_still_flights_and_twenty_with_movers():
    clips, problems = open_clips(EvaluateOptions(dataset='flights'))
    assert not problems
    assert [clip.groups['all'] for clip in clips] == ['still'] * 20 + ['moving'] * 20
    assert len({clip.name for clip in clips}) == 40


@pytest.mark.parametrize(
    'arguments',
    [
        ['--dataset', 'bag', '--root', 'b', '--fps', '5'],
        ['--dataset', 'bag', '--root', 'b', '--split', 'val'],
        ['--dataset', 'segtrackv2', '--root', 'b', '--split', 'val'],
        ['--dataset', 'davis2016', '--root', 'b', '--masks', 'm'],
        ['--dataset', 'davis2016', '--root', 'b', '--still'],
        ['--dataset', 'folder', '--root', 'b', '--mask-topic', '/truth'],
        ['--dataset', 'folder', '--root', 'b', '--masks', 'm', '--still'],
        ['--dataset', 'davis2016', '--root', 'b', '--bag-topic', '/image'],
        ['--dataset', 'rendered', '--root', 'b'],
        ['--dataset', 'folder', '--root', 'b', '--scenes', '3'],
        ['--root', 'b', '--method', 'mog2', '--variants', 'refined'],
        ['--root', 'b', '--method', 'mog2', '--config', 'c.yaml'],
        ['--root', 'b', '--method', 'detector', '--predictions', 'p'],
        ['--root', 'b', '--predicted-topic', '/detect/mask'],
        ['--dataset', 'folder'],
        ['--root', 'b', '--fps', '-3'],
        ['--save-masks', 'report', 'b'],
        ['--out', 'b', 'compare', 'a', 'b'],
    ],
)
def test_options_that_would_have_no_effect_are_refused(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert any(word in error for word in arguments if word.startswith('-'))
    assert not list(tmp_path.iterdir())


def test_options_given_twice_are_all_heard(davis, tmp_path, capsys):
    assert main(['--root', str(davis), '--out', str(tmp_path), '--set', 'window.past=many', '--set', 'threads=1']) == 2
    assert 'window.past' in capsys.readouterr().err


def test_a_split_of_what_has_none_is_refused(davis, tmp_path, capsys):
    folder = davis / 'JPEGImages' / '480p'
    arguments = ['--dataset', 'folder', '--root', str(folder), '--split', 'val', '--method', 'nothing']
    assert main([*arguments, '--out', str(tmp_path / 'out')]) == 2
    assert 'val' in capsys.readouterr().err


def test_fps_of_a_folder(davis, tmp_path):
    folder = davis / 'JPEGImages' / '480p'
    arguments = ['--dataset', 'folder', '--root', str(folder), '--method', 'nothing', '--fps', '5']
    assert main([*arguments, '--out', str(tmp_path / 'out')]) == 0
    assert {sequence.fps for sequence in read_results(tmp_path / 'out').sequences} == {5.0}


def test_mistakes_are_told_before_anything_is_loaded(tmp_path):
    code = (
        'import sys; from moving_object_detector.evaluation.evaluate import main\n'
        "assert main(['--dataset', 'folder']) == 2\nassert not {'torch', 'cv2', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).parents[2], timeout=240)


def test_without_jinja2_the_run_is_kept_and_the_report_is_named(davis, tmp_path):
    block = (
        'import sys, importlib.abc\n'
        'class Block(importlib.abc.MetaPathFinder):\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        "        if name.partition('.')[0] == 'jinja2': raise ModuleNotFoundError(name='jinja2')\n"
        'import importlib.util as u; real = u.find_spec\n'
        "u.find_spec = lambda name, *a: None if name == 'jinja2' else real(name, *a)\n"
        'sys.meta_path.insert(0, Block())\n'
        'from moving_object_detector.evaluation.evaluate import main\n'
    )

    def program(*arguments):
        code = f'{block}sys.exit(main({[str(argument) for argument in arguments]!r}))'
        return subprocess.run(
            [sys.executable, '-c', code],
            check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=240,
        )  # fmt: skip

    done = program('--root', davis, '--method', 'nothing', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert 'jinja2' in done.stderr
    assert 'Traceback' not in done.stderr
    assert len(read_results(tmp_path / 'out').sequences) == 2
    again = program('report', tmp_path / 'out')
    assert (again.returncode, 'Traceback' in again.stderr, 'jinja2' in again.stderr) == (2, False, True)
    assert main(['report', str(tmp_path / 'out')]) == 0
    assert (tmp_path / 'out' / 'report.html').is_file()


def test_what_has_changed_since_is_scored_anew(davis, tmp_path, capsys):
    """Frames, masks and given masks: the sequence they belong to, and no other."""
    masks = tmp_path / 'given'
    shutil.copytree(davis / 'Annotations' / '480p', masks)
    out = tmp_path / 'out'
    arguments = ['--root', str(davis), '--predictions', str(masks), '--out', str(out)]

    def scores():
        assert main(arguments) == 0
        return {sequence.name: sequence.variants['masks'].j for sequence in read_results(out).sequences}

    assert set(scores()['wander']) == set(scores()['blink']) == {1.0}
    kept = (out / 'sequences' / 'blink.json').stat().st_mtime_ns
    truth = davis / 'Annotations' / '480p' / 'wander' / '00002.png'
    cv2.imwrite(str(truth), np.zeros((48, 96), np.uint8))
    capsys.readouterr()
    changed = scores()['wander']
    assert 'scored anew' in ''.join(capsys.readouterr())
    assert [value == 1 for value in changed] == [True, True, False, True, True, True]
    shutil.copy(truth, masks / 'wander' / '00002.png')
    assert set(scores()['wander']) == {1.0}
    frame = davis / 'JPEGImages' / '480p' / 'wander' / '00003.jpg'
    frame.write_bytes(b'damaged')
    assert scores()['wander'][3] == 0
    assert (out / 'sequences' / 'blink.json').stat().st_mtime_ns == kept


def test_what_is_to_be_kept_now_is_made(davis, tmp_path):
    arguments = ['--root', str(davis), '--method', 'everything', '--out', str(tmp_path / 'out')]
    assert main(arguments) == 0
    assert main([*arguments, '--save-masks']) == 0
    assert len(list((tmp_path / 'out' / 'masks' / 'wander').glob('*.png'))) == 6
    # Masks that an earlier run left are not those of this one.
    nothing = ['--root', str(davis), '--method', 'nothing', '--out', str(tmp_path / 'out')]
    assert main([*nothing, '--overwrite']) == 0
    assert main([*nothing, '--save-masks']) == 0
    assert not any(cv2.imread(str(file)).any() for file in (tmp_path / 'out' / 'masks').glob('*/*.png'))


def test_truth_that_is_turned_is_an_error_and_not_a_score_of_zero(davis, tmp_path, capsys):
    for file in (davis / 'Annotations' / '480p' / 'wander').iterdir():
        cv2.imwrite(str(file), np.ascontiguousarray(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).T))
    assert main(['--root', str(davis), '--method', 'everything', '--out', str(tmp_path / 'out')]) == 0
    result = read_results(tmp_path / 'out')
    assert [sequence.name for sequence in result.sequences] == ['blink']
    assert '48x96' in result.problems[0]
    capsys.readouterr()
    wander = ['--root', str(davis), '--sequences', 'wander', '--method', 'everything', '--out', str(tmp_path / 'one')]
    assert main(wander) == 2
    assert '96x48' in capsys.readouterr().err


def test_images_that_are_too_small_or_damaged_cost_themselves(davis, options, tmp_path):
    """One frame of 15x15; a PNG that says it has 2^31 rows; a sequence of nothing but small ones."""
    frames = davis / 'JPEGImages' / '480p'
    small = np.zeros((15, 15, 3), np.uint8)
    cv2.imwrite(str(frames / 'wander' / '00002.jpg'), small)
    picture = bytearray(cv2.imencode('.png', np.zeros((48, 96, 3), np.uint8))[1].tobytes())
    picture[16:24] = (2**31 - 1).to_bytes(4, 'big') * 2
    picture[29:33] = zlib.crc32(picture[12:29]).to_bytes(4, 'big')
    (frames / 'wander' / '00004.jpg').write_bytes(picture)
    for file in (frames / 'blink').iterdir():
        cv2.imwrite(str(file), small)
    result = run(davis, tmp_path / 'out', options)
    assert [sequence.name for sequence in result.sequences] == ['wander']
    area = result.sequences[0].variants['refined'].area
    assert [value is None for value in area] == [False, False, True, False, True, False]
    said = ' | '.join(result.sequences[0].problems)
    assert 'frame 2 is left out' in said
    assert 'frame 4 is left out' in said
    assert result.problems[0].startswith('blink')


def test_two_evaluations_in_one_folder(davis, tmp_path, capsys):
    out = tmp_path / 'out'
    out.mkdir()
    code = (
        'import sys, time; from pathlib import Path; from moving_object_detector.common.files import lock\n'
        f"with lock(Path({str(out)!r}) / '.lock', 'it'): print('held', flush=True); time.sleep(120)"
    )
    command = [sys.executable, '-c', code]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout.readline() == b'held\n'
        arguments = ['--root', str(davis), '--method', 'nothing', '--out', str(out)]
        assert main(arguments) == 2
        assert f'process {process.pid}' in capsys.readouterr().err
        process.kill()
    assert main(arguments) == 0


@pytest.mark.parametrize('file', ['run.json', 'results.json', 'sequences/wander.json'])
@pytest.mark.parametrize('damage', [b'', b'{"format": 1}', b'[' * 100_000, 'half'])
def test_damaged_results_end_in_a_sentence(file, damage, davis, tmp_path, capsys):
    out = tmp_path / 'out'
    arguments = ['--root', str(davis), '--method', 'everything', '--out', str(out)]
    assert main(arguments) == 0
    before = read_results(out)
    whole = (out / file).read_bytes()
    (out / file).write_bytes(whole[: len(whole) // 2] if damage == 'half' else damage)
    capsys.readouterr()
    if file == 'results.json':
        for command in (['report', str(out)], ['compare', str(out), str(out)]):
            assert main(command) == 2
            assert 'results.json' in capsys.readouterr().err
    status = main(arguments)
    said = ''.join(capsys.readouterr())
    if file == 'run.json':
        assert (status, 'run.json' in said or 'holds a run' in said) == (2, True)
        assert main([*arguments, '--overwrite']) == 0
    else:
        assert status == 0
        assert file != 'sequences/wander.json' or 'wander.json is damaged' in said
    assert [s.variants for s in read_results(out).sequences] == [s.variants for s in before.sequences]


def test_names_that_are_no_text_reach_the_report_and_no_terminal(tmp_path):
    """A folder name that is not UTF-8, and one that would clear the screen."""
    for name in (b'caf\xe9', b'\x1b[2J'):
        folder = tmp_path / 'root' / os.fsdecode(name)
        folder.mkdir(parents=True)
        for number in range(3):
            image = cv2.imencode('.png', np.full((32, 48, 3), 40 * number, np.uint8))[1].tobytes()
            (folder / f'{number}.png').write_bytes(image)
    arguments = ['--dataset', 'folder', '--root', str(tmp_path / 'root'), '--method', 'nothing']
    command = [sys.executable, '-m', 'moving_object_detector.evaluation.evaluate', *arguments]
    done = subprocess.run(
        [*command, '--out', str(tmp_path / 'out')], check=False, capture_output=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    assert b'\x1b[2J' not in done.stdout + done.stderr
    assert (tmp_path / 'out' / 'report.html').stat().st_size > 5000
    assert len(read_results(tmp_path / 'out').sequences) == 2
