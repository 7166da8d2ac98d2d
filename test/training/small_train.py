"""The program ``train`` on few, small textures and scenes: making all of them takes long.

    python small_train.py ARGUMENT...

Patched on import, so that worker processes, which import the main file, have the same.
"""

from __future__ import annotations

import sys
from functools import partial

import cv2

from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.training import run, train

cv2.setNumThreads(1)
run.SceneOptions = partial(SceneOptions, textures=4)


if __name__ == '__main__':
    sys.exit(train.main())
