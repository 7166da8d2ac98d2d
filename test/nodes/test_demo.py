"""The demo: real processes, ROS 2 between them, results that fit together."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import pytest
from rosbags.highlevel import AnyReader

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')
from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.demo import Child, isolated_environment

FRAMES = 12


def command(*arguments: object) -> list[str]:
    return [sys.executable, '-m', 'moving_object_detector.programs', 'demo', *map(str, arguments)]


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), check=False, capture_output=True, text=True, timeout=280)


def test_rendered_clip_becomes_video_masks_and_sheet(tmp_path: Path):
    done = demo('--frames', FRAMES, '--rate', '0.1', '--out', tmp_path)
    log = (tmp_path / 'node.log').read_text() if (tmp_path / 'node.log').exists() else ''
    assert done.returncode == 0, done.stderr + log
    lines = done.stdout.splitlines()
    place = next(index for index, line in enumerate(lines) if line.startswith('frames '))
    summary, machine, *advice = lines[place:]
    found = re.fullmatch(
        r'frames (\d+), masks (\d+), dropped (\d+), skipped (\d+), latency median [\d.]+ ms, '
        r'p95 [\d.]+ ms, window delay \d+ frames',
        summary,
    )
    assert found, summary
    frames, masks, dropped, skipped = map(int, found.groups())
    # What it could do comes from the time of a frame, not from the rate that it was played at.
    (possible,) = map(float, re.findall(r'([\d.]+) frames/s', machine))
    (each,) = map(float, re.findall(r'(\d+) ms each', machine))
    assert possible == pytest.approx(1000 / each, rel=0.1)
    assert frames == FRAMES
    # On a busy machine some are skipped, but none is unaccounted for.
    assert masks > 0
    assert masks + dropped + skipped >= frames
    assert bool(advice) == bool(dropped + skipped)
    assert all('RATE=' in line for line in advice)
    video = cv2.VideoCapture(str(tmp_path / 'overlay.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == masks
    assert int(video.get(cv2.CAP_PROP_FRAME_WIDTH)) == 640
    with AnyReader([tmp_path / 'masks']) as bag:
        kept = [connection for connection in bag.connections if connection.topic == '/detect/mask']
        messages = [bag.deserialize(raw, connection.msgtype) for connection, _, raw in bag.messages(kept)]
        assert set(bag.topics) == {'/detect/mask', '/detect/debug/pipeline_latency_ms'}
    assert len(messages) == masks
    assert {message.encoding for message in messages} == {'mono8'}
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in messages]
    # Outputs carry the stamps of their frames: the clip's own 24 frames a second, in order.
    steps = [(after - before) * 24 for before, after in pairwise(stamps)]
    assert all(step > 0.5 and abs(step - round(step)) < 1e-3 for step in steps)
    assert cv2.imread(str(tmp_path / 'contact_sheet.png')) is not None


def test_wrong_input_is_told_before_anything_is_loaded(tmp_path: Path):
    done = demo(tmp_path / 'absent', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert 'absent' in done.stderr
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out' / 'node.log').exists()


def test_detector_that_refuses_ends_the_demo_with_its_reason(tmp_path: Path):
    parameters = tmp_path / 'wrong.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    model: /no/such/file.safetensors\n')
    done = demo('--frames', 2, '--params', parameters, '--out', tmp_path / 'out')
    assert done.returncode == 2, done.stdout + done.stderr
    assert '/no/such/file.safetensors' in done.stderr


def test_missing_parameters_file_is_told(tmp_path: Path):
    done = demo('--params', tmp_path / 'absent.yaml', '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert 'absent.yaml' in done.stderr


def test_a_folder_that_cannot_be_made_and_options_without_effect_are_told(tmp_path: Path):
    (tmp_path / 'file').write_text('')
    for words, said in (
        (['--out', tmp_path / 'file' / 'out'], 'cannot be made a folder'),
        ([tmp_path, '--frames', 3], '--frames'),
    ):
        done = demo(*words)
        assert done.returncode == 2
        assert said in done.stderr
        assert 'Traceback' not in done.stderr


def children_of(pid: int) -> list[int]:
    """The processes that were started by one."""
    found = []
    for entry in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = entry.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def test_ctrl_c_ends_all_its_processes(picture_folder: Path, tmp_path: Path):
    words = command(picture_folder, '--out', tmp_path)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        deadline = time.monotonic() + 120
        while not (children := children_of(program.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=120)
    assert program.returncode == 130
    assert 'Traceback' not in err
    assert not [pid for pid in children if Path(f'/proc/{pid}').exists()]


def test_demo_keeps_to_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '0')
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    environment = isolated_environment()
    assert 1 <= int(environment['ROS_DOMAIN_ID']) <= 101
    assert environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert isolated_environment()['ROS_LOCALHOST_ONLY'] == '1'


# The programs that it starts, watches and stops

READY = 'import signal, sys, time\nprint("ready", flush=True)\n'


def child(tmp_path: Path, code: str) -> Child:
    return Child('child', [sys.executable, '-c', code], tmp_path / 'log')


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < deadline, f'{text!r} did not come'
        time.sleep(0.02)


def test_work_that_is_done_is_finished(tmp_path: Path):
    with child(tmp_path, 'print("done")') as program:
        program.wait()
        assert program.finished()


def test_failure_shows_the_end_of_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = 'for k in range(100): print("line", k)\nraise SystemExit(3)'
    with child(tmp_path, code) as program, pytest.raises(UserError) as failure:
        program.wait()
    assert 'exit status 3' in str(failure.value)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].strip() == 'line 99'
    assert 'line 50' not in '\n'.join(shown)


def test_stop_is_ctrl_c(tmp_path: Path):
    code = READY + 'try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print("interrupted")\n'
    with child(tmp_path, code) as program:
        wait_for(tmp_path / 'log', 'ready')
        assert not program.finished()
        program.stop()
    assert 'interrupted' in (tmp_path / 'log').read_text()


def test_bad_end_after_stop_is_a_failure(tmp_path: Path):
    code = READY + 'try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(4)\n'
    with child(tmp_path, code) as program:
        wait_for(tmp_path / 'log', 'ready')
        with pytest.raises(UserError, match='exit status 4'):
            program.stop()


def test_nothing_outlives_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        'moving_object_detector.nodes.demo._PATIENCE',
        {signal.SIGINT: 0.2, signal.SIGTERM: 0.2, signal.SIGKILL: 30.0},
    )
    code = (
        'import os, signal, time\n'
        'for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n'
        'print(os.getpid(), "ready", flush=True)\ntime.sleep(60)\n'
    )
    with child(tmp_path, code):
        wait_for(tmp_path / 'log', 'ready')
    pid = int((tmp_path / 'log').read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
