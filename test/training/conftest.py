"""A small clip and a small training run that the tests of the trainer share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

# For the programs and doubles beside the tests: pytest imports the test modules without the folder that they are in.
sys.path.insert(0, str(Path(__file__).parent))

KILLS = 3


@pytest.fixture
def one_thread():
    """Compute in one thread: more are slower at the sizes of these tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def small_scene():
    """A rendered scene in which one object moves."""
    return clip_scene(5, SceneOptions(size=(64, 128), objects=(1, 1), object_extent=(0.4, 0.6), textures=4))


@pytest.fixture(scope='session')
def footage(small_scene, tmp_path_factory) -> Path:
    """Eight rendered frames as PNG files in a folder ``walk``."""
    folder = tmp_path_factory.mktemp('footage') / 'walk'
    folder.mkdir()
    for time in range(8):
        cv2.imwrite(str(folder / f'{time:05d}.png'), cv2.cvtColor(small_scene.image(time), cv2.COLOR_RGB2BGR))
    return folder


class ExactClip:
    """Frames of a rendered scene with exact flow, as a clip of the flow cache."""

    name = 'scene'
    folder = Path('scene')
    gaps = (-2, -1, 1, 2)

    def __init__(self, scene, frames):
        self.frame_count = frames
        self._images = [scene.image(time) for time in range(frames)]
        self._flows = {
            (time, gap): scene.flow(time, time + gap).transpose(2, 0, 1).astype(np.float32)
            for time in range(frames)
            for gap in self.gaps
        }

    def image(self, index):
        return self._images[index]

    def flow(self, index, gap):
        return self._flows[index, gap]

    def neighbours(self, index):
        return tuple(gap for gap in self.gaps if 0 <= index + gap < self.frame_count)


@pytest.fixture(scope='session')
def exact_clip(small_scene):
    return ExactClip(small_scene, 4)


@pytest.fixture(scope='session')
def start_train(footage, tmp_path_factory):
    """Start the program on the small clip; all runs share a flow cache."""
    from training_runs import HERE, SMALL, environment

    cache = tmp_path_factory.mktemp('cache')
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, *arguments: str) -> subprocess.Popen[str]:
        program = str(HERE / 'small_train.py')
        options = ['--set', *SMALL, f'data.root={footage}', f'data.cache={cache}', *arguments]
        process = subprocess.Popen(
            [sys.executable, program, '--out', str(out), *options],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    start.cache = cache
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope='session')
def swept(footage, start_train, tmp_path_factory):
    """Runs that were killed and went on: what became of each, and the folder of the one that nobody killed."""
    from training_runs import HERE, SMALL, environment

    folder = tmp_path_factory.mktemp('sweep')
    command = [sys.executable, str(HERE / 'kill_sweep.py'), str(folder), str(KILLS), '--set', *SMALL]
    command += [f'data.root={footage}', f'data.cache={start_train.cache}']
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout), folder / 'whole'
