"""Computing what is missing in the flow cache, beside other processes that do the same."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.collection import ClipFiles
from moving_object_detector.datasets.prefetch import Prefetch
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.training.clip_flow import clip_flows
from moving_object_detector.training.clip_store import (
    ClipLayout,
    ClipWriter,
    cache_errors,
    clip_lock,
    finished_frames,
    started_frames,
)

COMMIT_SECONDS: Final = 1.0
"""At most so much work is lost by a kill."""


@dataclass(frozen=True)
class Job:
    """A clip and the folder that its flow goes to."""

    clip: ClipFiles
    folder: Path


def _frames_ahead(jobs: Sequence[Job]) -> list[int]:
    """Return the number of frames of each clip, 0 where only reading all of it tells."""
    return [job.clip.source().frame_count or 0 for job in jobs]


def _check_space(folder: Path, jobs: Sequence[Job], frames: Sequence[int], layout: ClipLayout) -> None:
    needed = 0
    for job, count in zip(jobs, frames, strict=True):
        needed += max(layout.total_bytes(count) - layout.total_bytes(started_frames(job.folder, layout)), 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f'{folder}: the flow cache takes {needed / 1e9:.2f} GB more, but {free / 1e9:.2f} GB are free there; '
            'free some space, give a folder on another disk, or a smaller size or largest gap'
        )


def _compute(
    job: Job, layout: ClipLayout, backend: FlowBackend, batch: int, about: dict[str, object]
) -> Generator[int, None, None]:
    """Compute what is missing of a clip; yield how many frames came to it, those that were there first."""
    with cache_errors(job.folder), ClipWriter(job.folder, layout) as writer:
        yield writer.frames
        committed = time.monotonic()
        with Prefetch(job.clip.source(), depth=4) as frames:
            flows = clip_flows(job.clip.name, frames, backend, layout.size, layout.gaps, batch, writer.frames)
            for images, found, streams in flows:
                writer.append(images, found, streams)
                if time.monotonic() - committed > COMMIT_SECONDS:
                    writer.commit()
                    committed = time.monotonic()
                yield len(images)
        writer.finish(about)


def _skip(bar: tqdm[NoReturn], frames: int) -> None:
    """Count frames that were not computed here, so that they do not enter the rate and the time left."""
    if bar.disable:  # it has no counters then
        return
    bar.initial += frames
    bar.n += frames
    bar.last_print_n += frames
    bar.refresh()


def fill_cache(
    folder: Path,
    jobs: Sequence[Job],
    layout: ClipLayout,
    backend: FlowBackend,
    batch: int,
    settings: dict[str, object],
    *,
    progress: bool,
) -> None:
    """Compute the clips: first those that no other process is at, then what the others have left.

    Args:
        folder: Of the cache.
        jobs: What is missing.
        layout: Of the files.
        backend: Estimates the flow.
        batch: Pairs that it gets at once.
        settings: For the manifest.
        progress: Whether to show a bar on stderr.

    Raises:
        UserError: As in :func:`~moving_object_detector.training.flow_cache.cached_clips`.

    """
    with cache_errors(folder):
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
    frames = _frames_ahead(jobs)
    _check_space(folder, jobs, frames, layout)
    with tqdm(total=sum(frames), unit='frame', disable=not progress) as bar:
        for wait in (False, True):
            left = []
            for job in jobs:
                bar.set_description(f'{"waiting for" if wait else "flow of"} {job.clip.name}')
                with cache_errors(job.folder), clip_lock(job.folder, wait=wait) as mine:
                    if not mine:
                        left.append(job)
                    elif (done := finished_frames(job.folder, layout)) is not None:
                        _skip(bar, done)
                    else:
                        about = {'clip': job.clip.name, **settings}
                        with closing(_compute(job, layout, backend, batch, about)) as steps:
                            _skip(bar, next(steps))
                            for count in steps:
                                bar.update(count)
            jobs = left
