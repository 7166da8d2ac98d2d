"""Programs that are started, watched and stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.nodes.demo import Child

READY = 'import signal, sys, time\nprint("ready", flush=True)\n'


def child(tmp_path: Path, code: str) -> Child:
    return Child([sys.executable, '-c', code], tmp_path / 'log', os.environ, 'child')


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in log.read_text():
        assert time.monotonic() < deadline, f'{text!r} did not come'
        time.sleep(0.02)


def test_work_that_is_done_is_finished(tmp_path: Path):
    with child(tmp_path, 'print("done")') as program:
        program.wait()
        assert program.finished()


def test_failure_shows_the_end_of_the_log(tmp_path: Path):
    code = 'for k in range(100): print("line", k)\nraise SystemExit(3)'
    with child(tmp_path, code) as program, pytest.raises(UserError) as failure:
        program.wait()
    message = str(failure.value)
    assert 'exit status 3' in message
    assert 'line 99' in message
    assert 'line 50' not in message


def test_stop_is_ctrl_c(tmp_path: Path):
    code = READY + 'try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print("interrupted")\n'
    with child(tmp_path, code) as program:
        wait_for(tmp_path / 'log', 'ready')
        assert not program.finished()
        program.check_alive()
        program.stop()
    assert 'interrupted' in (tmp_path / 'log').read_text()


def test_bad_end_after_stop_is_a_failure(tmp_path: Path):
    code = READY + 'try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    sys.exit(4)\n'
    with child(tmp_path, code) as program:
        wait_for(tmp_path / 'log', 'ready')
        with pytest.raises(UserError, match='exit status 4'):
            program.stop()


def test_end_that_nobody_asked_for_is_told(tmp_path: Path):
    with child(tmp_path, 'print("bye")') as program:
        program.wait()
        with pytest.raises(UserError, match='ended by itself'):
            program.check_alive()


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
