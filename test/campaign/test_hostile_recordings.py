"""Videos and bags with damage anywhere: read as far as they can be, or refused; no crash, no trace, no wrong size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.messages import encode_image

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

pytestmark = pytest.mark.slow
CODECS = {'mp4': (), 'mkv': (), 'avi': ('-c:v', 'mjpeg'), 'webm': ('-c:v', 'libvpx-vp9', '-b:v', '200k')}


@pytest.mark.parametrize('kind', [*CODECS, 'mcap', 'db3'])
def test_damage_anywhere(kind, tmp_path, effort):
    whole = tmp_path / f'whole.{kind}'
    if kind in CODECS:
        picture = ('-f', 'lavfi', '-i', 'testsrc2=size=96x64:rate=24:duration=1')
        subprocess.run([FFMPEG, '-v', 'error', *picture, *CODECS[kind], str(whole)], check=True)
    else:
        rng = np.random.default_rng(1)
        with BagWriter(tmp_path / 'bag', storage='mcap' if kind == 'mcap' else 'sqlite3') as bag:
            for k in range(12):
                bag.write_image(
                    '/i', 10**9 + k * 40_000_000, encode_image(rng.integers(0, 256, (32, 48, 3), np.uint8), 'rgb8')
                )
        next((tmp_path / 'bag').glob(f'*.{kind}')).rename(whole)
    program = Path(__file__).with_name('read_damaged.py')
    environment = os.environ | {'PYTHONPATH': str(Path(__file__).parents[2])}
    command = [sys.executable, program, whole, '7', str(int(40 * effort))]
    done = subprocess.run(map(str, command), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read
    assert refused
    assert 'Traceback' not in done.stderr
