"""The program ``train`` on few, small textures and scenes: making all of them takes long.

    python small_train.py ARGUMENT...

Patched on import, so that worker processes, which import the main file, have the same.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import cv2

from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.training import run, setup, train

cv2.setNumThreads(1)
run.SceneOptions = partial(SceneOptions, textures=4)


class BrokenProcess(setup.Processes):
    """Fails in the middle of the training, as a broken frame makes a process fail."""

    calls = 0

    def average(self, values):
        BrokenProcess.calls += 1
        if BrokenProcess.calls == 3:
            raise OSError('this process broke')
        return super().average(values)


if __name__ == '__main__':
    if os.environ.get('BREAKS', '') == os.environ.get('RANK'):
        setup.Processes = BrokenProcess
    sys.exit(train.main())
