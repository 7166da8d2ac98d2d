from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
import torch

from moving_object_detector.config_file import load_config
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.weights import save_network
from moving_object_detector.tools.bench import Stopwatch, main, measure, summary, table

STAGES = {'prepare', 'flow', 'generator input', 'generator', 'vote', 'refinement and regions'}


@pytest.fixture(scope='module')
def options(tmp_path_factory):
    torch.manual_seed(1)
    model = tmp_path_factory.mktemp('model') / 'random.safetensors'
    save_network(
        Generator(), model, {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}
    )
    small = ['flow.height=48', 'flow.width=96', 'flow.preset=ultrafast', 'window.past=2', 'window.future=2']
    return [f'model={model}', 'engine=torch', *small]


def test_summary_by_hand():
    seconds = [k / 1000 for k in range(1, 102)]  # 1 to 101 ms
    assert summary(seconds) == {'median': 51.0, 'p95': 96.0, 'p99': 100.0}
    assert summary([0.0012345]) == {'median': 1.23, 'p95': 1.23, 'p99': 1.23}
    # Between the second and the third of three: 95 % is nine tenths of the way.
    assert summary([0.01, 0.02, 0.03]) == {'median': 20.0, 'p95': 29.0, 'p99': 29.8}


def test_stopwatch():
    watch = Stopwatch(synchronise=False)
    for _ in range(2):
        with watch('outer'):
            time.sleep(0.02)
            with watch('inner'):
                time.sleep(0.03)
    assert len(watch.times['outer']) == len(watch.times['inner']) == 2
    assert all(
        0.03 <= inner < outer - 0.015 for inner, outer in zip(watch.times['inner'], watch.times['outer'], strict=True)
    )


def test_measure_gives_every_stage(options):
    config = load_config(DetectorConfig(), None, options)
    rng = np.random.default_rng(1)
    report = measure(config, [rng.integers(0, 256, (48, 96, 3), np.uint8) for _ in range(6)], 2)
    assert set(report['stages']) == STAGES
    for times in (*report['stages'].values(), report['frame']):
        assert 0 <= times['median'] <= times['p95'] <= times['p99']
    assert sum(times['median'] for times in report['stages'].values()) < 1.5 * report['frame']['p99'] + 1
    assert report['frames per second'] == pytest.approx(1000 / report['frame']['median'], abs=0.01)
    assert report['engine'] == 'torch float32 on cpu'
    assert report['flow'] == 'dis-ultrafast'
    assert report['size'] == '64x32'
    assert report['window'] == '-2..+2'


def test_frames_before_those_that_count_are_left_out(options):
    """Of six frames, five to warm up: every figure is that of a single frame."""
    config = load_config(DetectorConfig(), None, options)
    report = measure(config, [np.full((48, 96, 3), 9 * k, np.uint8) for k in range(6)], 5)
    for times in (*report['stages'].values(), report['frame']):
        assert times['median'] == times['p95'] == times['p99']


def test_table_text():
    times = {'median': 1.5, 'p95': 2.0, 'p99': 2.25}
    report = {
        'engine': 'torch float32 on cpu',
        'flow': 'dis-medium',
        'size': '192x96',
        'window': '-5..+5',
        'stages': {'prepare': times, 'flow': {'median': 30.0, 'p95': 31.0, 'p99': 40.0}},
        'frame': {'median': 50.0, 'p95': 60.0, 'p99': 70.0},
        'frames per second': 20.0,
    }
    assert table(report) == (
        '**torch float32 on cpu, dis-medium flow, 192x96, window -5..+5**: 20.0 frames/s\n\n'
        '| stage | median ms | p95 | p99 |\n'
        '|---|---|---|---|\n'
        '| prepare | 1.5 | 2.0 | 2.25 |\n'
        '| flow | 30.0 | 31.0 | 40.0 |\n'
        '| **frame** | 50.0 | 60.0 | 70.0 |'
    )


def test_the_program_on_a_folder(picture_folder, options, tmp_path, capsys):
    path = tmp_path / 'bench.json'
    arguments = ['--input', str(picture_folder), '--frames', '4', '--warm-up', '3', '--json', str(path)]
    assert main([*arguments, '--set', *options]) == 0
    out = capsys.readouterr().out
    report = json.loads(path.read_text())
    assert table(report) in out
    assert re.search(r'48x32 images, 4 frames, \S+, \d+ threads', out)
    assert report['image'] == '48x32'
    assert report['torch'] == torch.__version__
    assert report['configuration']['window']['past'] == 2
    assert set(report['stages']) == STAGES


def test_the_program_renders_where_no_input_is_given(options, capsys):
    assert main(['--frames', '2', '--warm-up', '1', '--set', *options]) == 0
    assert '640x480 images, 2 frames' in capsys.readouterr().out


def test_mistakes_are_told(options, tmp_path, capsys):
    assert main(['--input', str(tmp_path / 'none'), '--set', *options]) == 2
    assert 'no such file or folder' in capsys.readouterr().err
    assert main(['--set', 'flow.presets=fast']) == 2
    assert "there is no option 'flow.presets'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(['--frames', '0'])
    assert stopped.value.code == 2
