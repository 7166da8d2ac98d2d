from __future__ import annotations

import os
import subprocess
import sys

import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.common.program import run_program


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


def test_numpy_starts_no_threads_of_its_own():
    program = 'import moving_object_detector, numpy, os; print(len(os.listdir("/proc/self/task")))'
    environment = {name: value for name, value in os.environ.items() if not name.endswith('_NUM_THREADS')}
    output = subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, check=True).stdout
    assert int(output) == 1
