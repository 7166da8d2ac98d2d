from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.common.program import run_program
from moving_object_detector.programs import PROGRAMS


def raising(error):
    def body():
        raise error

    return body


def test_exit_statuses(capsys):
    assert run_program(lambda: 0) == 0
    assert run_program(lambda: 7) == 7
    assert run_program(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ''
    assert run_program(raising(UserError('a.mp4: no such file'))) == 2
    assert run_program(raising(ImageError('frame 3'))) == 2
    assert capsys.readouterr().err == 'error: a.mp4: no such file\nerror: frame 3\n'
    with pytest.raises(ZeroDivisionError):
        run_program(raising(ZeroDivisionError()))


@pytest.mark.parametrize(
    ('program', 'arguments', 'advice'),
    [
        ('play', ['--levels', '0', '4000', 'clip'], 'the first image'),
        ('play', ['clip', '--start-delay', '2'], '--wait-for-subscriber'),
        ('play', ['clip', '--best-effort'], 'qos_overrides'),
        ('record', ['--bag', 'out', '--idle-timeout=5'], '--frames'),
        ('record', ['--best-effort', '--bag', 'out'], 'qos_overrides'),
        ('make_bag', ['clip', 'out', '--gap', '3'], 'ten seconds'),
        ('demo', ['--domain-id', '7'], 'ROS_DOMAIN_ID'),
        ('bench', ['--list'], '--only'),
        ('evaluate', ['--black', '0', '--white', '4000'], 'the first image'),
        ('train', ['--set', 'data.root=clips', 'data.black=300'], 'the first image'),
    ],
)
def test_what_is_gone_is_answered_by_what_to_do_now(program, arguments, advice, capsys):
    module, _, function = PROGRAMS[program][0].partition(':')
    try:
        status = getattr(import_module(f'moving_object_detector.{module}'), function)(arguments)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err.splitlines()[-1]
    assert (status, advice in said) == (2, True), said
    assert any(word.partition('=')[0] in said for word in arguments)


def test_numpy_starts_no_threads_of_its_own():
    program = 'import moving_object_detector, numpy, os; print(len(os.listdir("/proc/self/task")))'
    environment = {name: value for name, value in os.environ.items() if not name.endswith('_NUM_THREADS')}
    output = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, check=True).stdout
    assert int(output) == 1
