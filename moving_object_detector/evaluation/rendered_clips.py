"""Rendered scenes as clips with exact truth, some of them scenes in which nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.datasets.annotation import Annotation
from moving_object_detector.datasets.frames import DEFAULT_FPS, Frame, FrameSource, frame_stamp
from moving_object_detector.evaluation.clips import EvaluationClip
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.synthetic.scene import Scene

SIZE: Final = (360, 640)
FIRST_SEED: Final = 100_000
"""Far from the seeds of training."""
SCENES_PER_STILL: Final = 3


class SceneSource(FrameSource):
    """The frames of a scene.

    Args:
        name: What to call it.
        scene: Rendered at times 0, 1, 2 and so on.
        frame_count: Of the clip.

    """

    def __init__(self, name: str, scene: Scene, frame_count: int) -> None:
        self.name = name
        self.fps = DEFAULT_FPS
        self.frame_count = frame_count
        self.size = scene.size
        self._scene = scene

    def __iter__(self) -> Iterator[Frame]:
        """Render the frames in order."""
        for index in range(self.frame_count or 0):
            yield Frame(self._scene.image(index), frame_stamp(index, self.fps), f'{index:05d}')


@dataclass(frozen=True)
class SceneMask:
    """The exact truth of one frame."""

    scene: Scene
    time: int

    def read(self) -> NDArray[np.bool_]:
        """Render it; see :class:`Annotation`."""
        return self.scene.mask(self.time)


def _clip(name: str, seed: int, objects: tuple[int, int], frames: int) -> EvaluationClip:
    scene = clip_scene(seed, SceneOptions(size=SIZE, objects=objects))

    def truth(index: int, _: int) -> Annotation | None:
        return SceneMask(scene, index)

    return EvaluationClip(name, frames, partial(SceneSource, name, scene, frames), truth)


def rendered_clips(scenes: int, frames: int) -> list[EvaluationClip]:
    """Make clips with one or two moving objects, and after every third one in which only the camera moves.

    Args:
        scenes: With moving objects.
        frames: Of each clip.

    """
    clips = []
    for number in range(scenes):
        clips.append(_clip(f'moving-{number}', FIRST_SEED + number, (1, 2), frames))
        if (number + 1) % SCENES_PER_STILL == 0:
            clips.append(_clip(f'still-{number // SCENES_PER_STILL}', FIRST_SEED - 1 - number, (0, 0), frames))
    return clips
