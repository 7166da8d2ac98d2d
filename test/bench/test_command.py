from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from moving_object_detector.bench.report import markdown
from moving_object_detector.programs.commands import bench as main

SMALL = ['height=32', 'width=64', 'flow.height=48', 'flow.width=96', 'flow.preset=ultrafast', 'refinement.method=none']


@pytest.mark.slow
def test_a_quick_run(picture_folder, tmp_path, capsys):
    """Real processes, two rounds: end to end by the reference and the naive pipeline."""
    path = tmp_path / 'bench.json'
    only = ['cpu/naive*', 'cpu/torch-float32', 'cpu/torch-float16']
    words = ['--quick', '--input', str(picture_folder), '--frames', '5', '--only', *only, '--set', *SMALL]
    assert main([*words, '--json', str(path)]) == 0
    captured = capsys.readouterr()
    report = json.loads(path.read_text())
    assert captured.out == f'{markdown(report)}\n'
    assert 'elapsed' not in captured.out
    assert 'cpu round 2' in captured.err
    assert report['image'] == '48x32'
    assert report['command'].startswith('bench --quick')
    (frames,) = report['groups']
    assert (frames['window'], frames['size']) == ('-1..+1', [32, 64])
    naive, reference = frames['cases']
    assert (naive['variant'], reference['variant']) == ('naive float32', 'torch float32')
    for case in (naive, reference):
        times = case['milliseconds']
        assert 0 < times['median'] <= times['p95'] <= times['p99']
        assert case['rounds'] == 2
        assert case['calls'] >= 2
        assert case['per second'] == pytest.approx(1000 / times['median'], rel=0.01, abs=0.001)
        assert case['memory']['resident'] > 50
    stages = reference['stages']
    assert {'decode', 'prepare', 'flow', 'generator input', 'generator', 'vote', 'encode'} < set(stages)
    assert (
        sum(times['median'] for name, times in stages.items() if name != 'latency')
        < 1.5 * reference['milliseconds']['p99']
    )
    expected = naive['milliseconds']['median'] / reference['milliseconds']['median']
    assert reference['ratios']['naive float32']['ratio'] == pytest.approx(expected, abs=0.02, rel=0.02)
    assert naive['ratios']['torch float32']['ratio'] == pytest.approx(1 / expected, abs=0.02, rel=0.02)
    ((case, reason),) = report['skipped'].items()
    assert case == 'torch float16 on cpu'
    assert reason in captured.out


def test_mistakes_are_told(tmp_path, capsys):
    quick = ['--quick', '--only', 'cpu/torch-float32']
    for words, message in (
        (['--input', str(tmp_path / 'none')], 'no such file or folder'),
        (['--set', 'flow.presets=fast'], "there is no option 'flow.presets'"),
        (['--config', str(tmp_path / 'none.yaml')], 'none.yaml'),
        (['--set', f'model={tmp_path / "none.safetensors"}'], 'nothing could be measured: cpu/torch-float32: '),
    ):
        assert main([*quick, *words]) == 2
        assert message in capsys.readouterr().err
    assert main(['--only', 'tortoise']) == 2
    assert 'tortoise matches nothing' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(['--frames', '0'])
    assert stopped.value.code == 2


@pytest.mark.slow
def test_ctrl_c_ends_it(picture_folder):
    """Sent when the first rounds show on the progress bar."""
    only = ['--only', 'cpu/naive*', '--set', *SMALL]
    command = [sys.executable, '-m', 'moving_object_detector.programs', 'bench', '--input', str(picture_folder), *only]
    # A group of its own, as in a terminal: the signal goes to the children too.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, bufsize=1
    )
    seen = ''
    while 'cpu round' not in seen:
        letter = process.stderr.read(1)
        assert letter, seen
        seen += letter
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert 'Traceback' not in err
