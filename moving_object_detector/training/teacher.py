"""Masks of a slow, accurate detector as training targets for a student with fast flow, computed once and cached.

The detector runs over the footage as on the robot, with a flow estimator and window affordable offline; the student
learns its refined masks, weighted by their certainty. Targets are stored in the flow cache, in chunks like the flows,
under a key of everything they depend on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.common.errors import NotFiniteError, UserError
from moving_object_detector.common.files import file_hash, generator_path
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.datasets.layouts import ClipFiles
from moving_object_detector.detection.build import build_detector, choose_flow
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.detector import StepOutcome
from moving_object_detector.detection.result import Result
from moving_object_detector.engines.create import choose_device, mask_precision
from moving_object_detector.media.frames import prefetch, resize_image
from moving_object_detector.networks.generator_forms import ranges_path
from moving_object_detector.training.chunks import Chunks, done_chunks, fill, read_item
from moving_object_detector.training.flow_cache import CHUNK, CachedClip
from moving_object_detector.training.pairs import Targets
from moving_object_detector.training.selection import THRESHOLD

TARGET_FORMAT: Final = 3
"""Version of the files and of the targets, part of the key."""
KIND: Final = 'target'
SEGMENT: Final = 16
"""Chunks after which the detector is reset; a killed run loses at most these."""


def make_target(result: Result, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a result as target and certainty at ``size`` (height, width), uint8 (2, h, w), 255 for 1.

    Certainty is high where the generator's averaged mask is near 0 or 1 and the final mask agrees. It is 0 where
    refinement or the score removed a region, and in the whole of an empty frame, whose objects may have been missed.
    Raises NotFiniteError.
    """
    target = (resize_image(result.mask, size) / 255).clip(0, 1)
    votes = resize_image(result.steadied, size).clip(0, 1)
    certain = np.abs(2 * votes - 1) * ((votes > THRESHOLD) == (target > THRESHOLD)) * target.any()
    return np.asarray(np.rint(np.stack((target, certain)) * 255), np.uint8)


@contextmanager
def _threads_given_back() -> Iterator[None]:
    """Restore PyTorch's thread count, which the detector sets to one beside an engine with threads of its own."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Teacher:
    """The detector of a parameter file, on ``device`` unless the file names one.

    Raises UserError if the file, the weights or an option is wrong.
    """

    def __init__(self, parameters: Path, device: torch.device) -> None:
        try:
            config = load_config(DetectorConfig(), parameters)
            device = device if config.device == 'auto' else choose_device(config.device)
            config = dataclasses.replace(config, device=str(device), flow=choose_flow(config.flow))
            with _threads_given_back():
                self._detector = build_detector(config)
                self._threads = torch.get_num_threads()
        except UserError as error:
            raise UserError(f'teacher.detector {parameters}: {error}') from error
        self._name, self._detector.refined_only = str(parameters), True
        # The content of the weights, not their paths.
        model = generator_path(config.model, config.flow.backend)
        files = [path.expanduser() for path in (model, ranges_path(model), Path(config.flow.model))]
        of_weights = [file_hash(path) for path in files if path.is_file()]
        plain = dataclasses.asdict(config)
        del plain['model'], plain['flow']['model'], plain['threads'], plain['odometry']
        engine = self._detector.engine
        depends = [TARGET_FORMAT, plain, of_weights, engine.name, mask_precision(config.engine, device)]
        self.key = hashlib.blake2b(json.dumps(depends, sort_keys=True).encode(), digest_size=8).hexdigest()
        """Hash of everything but the footage that affects the masks."""

    def targets(self, clips: Sequence[tuple[ClipFiles, CachedClip]], cache: Path) -> list[Targets]:
        """Return a reader of targets for each clip, computing what the cache lacks.

        Raises UserError if writing fails, a mask is not finite, or a clip has changed.
        """
        all_targets: list[Targets] = []
        with _threads_given_back():
            torch.set_num_threads(self._threads)
            for clip, cached in clips:
                folder = cache / f'{cached.folder.name}-{self.key}'
                all_targets.append(partial(read_item, folder, chunk=CHUNK, kind=KIND))
                chunks = range(-(-cached.frame_count // CHUNK))
                if set(chunks) - done_chunks(folder, (KIND,)):
                    make = partial(self._missing, clip, cached, chunks)
                    try:
                        fill(folder, f'targets of {cached.name}', (KIND,), len(chunks), make)
                    except NotFiniteError as error:
                        raise UserError(f'teacher.detector {self._name}: {error}') from error
        return all_targets

    def _missing(self, clip: ClipFiles, kept: CachedClip, chunks: range, done: set[int]) -> Chunks:
        found: dict[int, NDArray[np.uint8]] = {}
        nothing = np.zeros((2, *kept.size), np.uint8)
        self._detector.reset()
        with torch.inference_mode(), prefetch(clip.source(), depth=4) as frames:
            numbered = enumerate(frames)
            for first in chunks[::SEGMENT]:
                missing = [number for number in chunks[first : first + SEGMENT] if number not in done]
                last = min((first + SEGMENT) * CHUNK, kept.frame_count) - 1
                for index, frame in numbered:
                    if missing:
                        found |= _targets(self._detector.step(frame.image, frame.stamp, tag=index), kept.size)
                    if index == last:
                        break
                else:
                    raise UserError(f'{clip.name}: it has fewer frames than before; do not change the footage')
                found |= _targets(self._detector.flush(), kept.size)
                for number in missing:
                    places = range(number * CHUNK, min((number + 1) * CHUNK, kept.frame_count))
                    yield number, [np.stack([found.get(place, nothing) for place in places])]
                found.clear()


def _targets(outcome: StepOutcome, size: tuple[int, int]) -> dict[int, NDArray[np.uint8]]:
    return {cast('int', result.tag): make_target(result, size) for result in outcome.results}
