"""Targets of a student that sees cheap flow: masks of a better detector, made once and kept on disk.

The detector runs over the footage as it would in flight, with flow and a window that one can afford offline, and its
refined results are what the student learns, as far as it is sure of them. Targets lie in the flow cache, in chunks as
the flows, under a key of all that they depend on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.common.files import file_hash
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.datasets.layouts import ClipFiles
from moving_object_detector.detection.build import build_detector, choose_flow, load_generator
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.detector import Detector
from moving_object_detector.detection.result import Result
from moving_object_detector.media.frames import prefetch, resize_image
from moving_object_detector.training.chunks import Chunks, done_chunks, fill, read_item
from moving_object_detector.training.flow_cache import CHUNK, CachedClip
from moving_object_detector.training.selection import THRESHOLD

TARGET_FORMAT: Final = 3
"""Of the files and of how targets are made; another number, another key."""
KIND: Final = 'target'
SEGMENT: Final = 16 * CHUNK
"""Frames after which the detector starts anew: what a kill loses at most."""


def make_target(result: Result, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a result as target and certainty at ``size`` (height, width), uint8 (2, h, w), 255 for 1.

    The detector is certain where the generator's masks are near 0 or 1. Of a region that it has dropped nothing is
    certain, and nothing in a frame in which it finds nothing: it may have missed it.
    """
    found = resize_image(result.probability, size).clip(0, 1)
    certain = np.abs(2 * resize_image(result.steadied, size) - 1).clip(0, 1)
    kept = resize_image(result.mask, size) > 0
    certain[(found > THRESHOLD) & ~kept] = 0
    if not kept.any():
        certain[:] = 0
    return np.asarray(np.rint(np.stack((found, certain)) * 255), np.uint8)


@dataclass(frozen=True)
class Targets:
    """The targets of a clip, read from disk at each call."""

    folder: Path

    def __call__(self, frame: int) -> NDArray[np.uint8]:
        """Return target and certainty of a frame, uint8 (2, H, W); raises CacheError."""
        return np.array(read_item(self.folder, frame, CHUNK, KIND), np.uint8)


class Teacher:
    """A detector by its parameters, a file of ``ros__parameters`` or plain options; made when it is first needed.

    Raises UserError where the file, the weights or an option is wrong.
    """

    def __init__(self, parameters: Path, device: torch.device) -> None:
        config = load_config(DetectorConfig(), parameters)
        self._config = dataclasses.replace(config, device=str(device), flow=choose_flow(config.flow))
        files = [str(load_generator(self._config).path), self._config.flow.model]
        depends = [TARGET_FORMAT, dataclasses.asdict(self._config), *(file_hash(Path(one)) for one in files if one)]
        self.key = hashlib.blake2b(json.dumps(depends, sort_keys=True).encode(), digest_size=8).hexdigest()
        """What the masks depend on beside the footage."""
        self._detector: Detector | None = None

    @property
    def detector(self) -> Detector:
        """The detector."""
        if self._detector is None:
            threads = torch.get_num_threads()
            self._detector = build_detector(self._config)
            self._detector.refined_only = True
            # An engine of its own sets them to one; a training needs all.
            torch.set_num_threads(threads)
        return self._detector

    def targets(self, clips: Sequence[tuple[ClipFiles, CachedClip]], cache: Path) -> list[Targets]:
        """Return the targets of clips, computing what is not in the cache yet; raises UserError: the disk is full."""
        all_targets = []
        for clip, kept in clips:
            folder = cache / f'{kept.folder.name}-{self.key}'
            all_targets.append(Targets(folder))
            chunks = range(-(-kept.frame_count // CHUNK))
            if set(chunks) - done_chunks(folder, (KIND,)):
                make: Callable[[set[int]], Chunks] = partial(self._missing, clip, kept)
                fill(folder, f'targets of {kept.name}', (KIND,), len(chunks), make)
        return all_targets

    def _missing(self, clip: ClipFiles, kept: CachedClip, done: set[int]) -> Chunks:
        found: dict[int, NDArray[np.uint8]] = {}

        def take(results: Sequence[Result]) -> None:
            for result in results:
                number = int(str(result.tag))
                found[number] = make_target(result, kept.size)

        nothing = np.zeros((2, *kept.size), np.uint8)
        self.detector.reset()
        with torch.inference_mode(), prefetch(clip.source(), depth=4) as frames:
            for index, frame in enumerate(frames):
                first = index - index % SEGMENT
                last = min(first + SEGMENT, kept.frame_count)
                missing = sorted({*range(first // CHUNK, -(-last // CHUNK))} - done)
                if not missing:
                    continue
                take(self.detector.step(frame.image, frame.stamp, tag=index).results)
                if index != last - 1:
                    continue
                take(self.detector.flush().results)
                for number in missing:
                    places = range(number * CHUNK, min((number + 1) * CHUNK, last))
                    yield number, [np.stack([found.get(place, nothing) for place in places])]
                found.clear()
