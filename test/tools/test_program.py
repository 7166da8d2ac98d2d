from __future__ import annotations

import subprocess
import sys
import time

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


@pytest.mark.parametrize(
    'program', ['tools.make_bag', 'tools.make_video', 'tools.contact_sheet', 'nodes.play', 'nodes.record']
)
def test_help_imports_nothing_heavy(program):
    code = (
        f'import sys; from moving_object_detector.{program} import main\n'
        "try: main(['--help'])\n"
        'except SystemExit: pass\n'
        "print('heavy:', sorted({'cv2', 'numpy', 'torch', 'rclpy', 'rosbags'} & set(sys.modules)))"
    )
    begin = time.monotonic()
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert 'heavy: []' in run.stdout
    assert 'usage: ' in run.stdout
    assert time.monotonic() - begin < 20
