"""Options of a small training run, and the environment of its processes."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

SMALL = [
    'data.height=48', 'data.width=96', 'data.largest_gap=2', 'run.workers=0', 'flow.height=64', 'flow.width=128',
    'network.height=32', 'network.width=64', 'rendered.steps=3', 'rendered.batch=2', 'inpainter.steps=3',
    'inpainter.batch=2', 'game.steps=5', 'game.batch=2', 'run.candidates=2', 'run.checkpoint_every=2',
    'run.picture_every=2', 'run.device=cpu', 'run.threads=1',
]  # fmt: skip


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path, **more}
