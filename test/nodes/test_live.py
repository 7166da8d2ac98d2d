"""The program ``live``: mistakes, and its end in the middle. A whole run is in test/evaluation/test_live.py."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from moving_object_detector.nodes.live import main

# Starting Python and ROS takes seconds on a busy machine.
PATIENCE = 120


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


def wait_for(condition, limit=PATIENCE):
    deadline = time.monotonic() + limit
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_mistakes_are_told_before_anything_is_loaded(picture_folder, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main([str(tmp_path / 'absent'), '--out', str(out)]) == 2
    assert 'absent: no such file or folder' in capsys.readouterr().err
    assert main([str(picture_folder), '--out', str(out), '--params', str(tmp_path / 'no.yaml')]) == 2
    assert 'no.yaml; --params takes a YAML file' in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize('arguments', [['folder'], ['folder', '--out', 'o', '--rate', '0'], ['--out', 'o']])
def test_arguments_that_are_wrong(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert 'usage: live' in capsys.readouterr().err


def test_a_parameter_that_the_detector_refuses_ends_it_with_the_reason(start, picture_folder, tmp_path):
    live = start(
        'live', picture_folder, '--out', tmp_path / 'out', '--ros-args', '-p', 'model:=/no/such/file.safetensors'
    )
    _, err = live.communicate(timeout=PATIENCE)
    assert live.returncode == 2
    assert '/no/such/file.safetensors' in err
    assert not (tmp_path / 'out' / 'live.json').exists()


def test_ctrl_c_ends_all_its_processes(start, picture_folder, tmp_path):
    live = start('live', picture_folder, '--out', tmp_path / 'out')
    assert wait_for(lambda: children_of(live.pid))
    children = children_of(live.pid)
    live.send_signal(signal.SIGINT)
    _, err = live.communicate(timeout=PATIENCE)
    assert live.returncode == 130
    assert 'Traceback' not in err
    assert not [pid for pid in children if Path(f'/proc/{pid}').exists()]
