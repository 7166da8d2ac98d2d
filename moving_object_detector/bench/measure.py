"""Measurement of cases that take turns, each in its own process, so that memory and threads are separate."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.bench.cases import NAIVE, Case, all_cases, chosen
from moving_object_detector.bench.report import Measured, group_report, markdown
from moving_object_detector.bench.tasks import FrameTask, NaiveTask
from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import write_atomically
from moving_object_detector.common.program import provenance
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.media.sources import open_source
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

_task: list[FrameTask] = []
"""The task of this process, a case's own."""


class Effort(NamedTuple):
    """Least and most rounds of a group, and seconds per case and round, in which at least one call is made."""

    least: int = 3
    most: int = 60
    turn: float = 0.3


# In a case's own process ---------------------------------------------------------------------------------------------


def prepare(case: Case, images: Path) -> dict[str, Any]:
    """Create this process's task on frames in a NumPy file, run its warm-up calls, and return its facts."""
    kind = NaiveTask if case.variant == NAIVE else FrameTask
    task = kind(case.config, np.load(images, mmap_mode='r'))
    _task[:] = [task]
    for _ in range(task.fill + task.warm_up):
        task.call()
    task.settle()
    task.watch.take()
    return {**task.facts, 'threads': torch.get_num_threads()}


def take_turn(seconds: float) -> tuple[list[float], dict[str, list[float]]]:
    """Run this process's task for about ``seconds``, at least once; return the times of calls and stages, seconds."""
    (task,) = _task
    times: list[float] = []
    while not times or sum(times) < seconds:
        started = time.perf_counter()
        task.call()
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    task.settle()
    times[-1] += time.perf_counter() - started
    return times, task.watch.take()


def peak_memory() -> dict[str, float]:
    """Return this process's peak memory so far, MB: ``resident``, and with a GPU ``gpu``."""
    # Not getrusage, which on Linux includes the parent's memory at the time of the fork.
    lines = Path('/proc/self/status').read_text().splitlines()
    found = {'resident': int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024 / 1e6}
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.max_memory_allocated() / 1e6
    return {name: round(megabytes, 1) for name, megabytes in found.items()}


# In the main process -------------------------------------------------------------------------------------------------


def _ask(one: Measured, pool: ProcessPoolExecutor, action: Callable[..., Any], *arguments: object) -> Any:
    """Run an action in a pool's process and return its result; if it fails, note why and return None."""
    try:
        return pool.submit(action, *arguments).result()
    except UserError as error:
        one.failure = str(error)
    except BrokenProcessPool:
        one.failure = 'its process died; was there enough memory?'
    except Exception as error:  # noqa: BLE001 - such as a GPU without enough memory; the other cases still count
        one.failure = f'{type(error).__name__}: {foreign(error, 300)}'
    return None


def measure_group(
    cases: Sequence[Case], images: Path, effort: Effort, seen: Callable[[str], object] = lambda _: None
) -> list[Measured]:
    """Measure the cases of a group on a file of frames, in turns: A B C A B C ...

    A case that fails notes why and is skipped from then on; ``seen`` is called with a label before each round.
    """
    measured = [Measured(case) for case in cases]
    with ExitStack() as stack:
        # Spawned, since a fork inherits memory and locks of threads. Only the main process handles Ctrl-C.
        ignore_interrupt = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
        pools = [stack.enter_context(ProcessPoolExecutor(1, get_context('spawn'), *ignore_interrupt)) for _ in cases]
        for one, pool in zip(measured, pools, strict=True):
            one.facts = _ask(one, pool, prepare, one.case, images)
        started = time.monotonic()
        for count in range(effort.most):
            running = [(one, pool) for one, pool in zip(measured, pools, strict=True) if not one.failure]
            if not running or (count >= effort.least and time.monotonic() - started >= cases[0].seconds):
                break
            seen(f'{cases[0].group} round {count + 1}')
            for one, pool in running:
                one.add(_ask(one, pool, take_turn, effort.turn))
        for one, pool in zip(measured, pools, strict=True):
            one.memory = {} if one.failure else _ask(one, pool, peak_memory)
    return measured


def _refusal(case: Case) -> str:
    """Return why the case's engine cannot run on its device, as far as known without loading a model, else ''."""
    if case.variant == NAIVE:
        return ''
    try:
        create_engine(case.variant.engine, choose_device(case.config.device), precision=case.variant.precision)
    except UserError as error:
        return str(error)
    return ''


def _clip(source: str, count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` frames of a folder, video or bag, or rendered ones, uint8 (N, H, W, 3) RGB."""
    if source:
        images = [frame.image for frame in islice(iter(open_source(source)), count)]
        if len({image.shape for image in images}) != 1:
            raise UserError(f'{source}: bench takes frames of one size; give another input, or fewer --frames')
        return np.stack(images)
    scene = clip_scene(7, SceneOptions(size=(480, 640), objects=(1, 2)))
    return np.stack([scene.image(moment) for moment in range(count)])


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark and print its report; return the exit status. ``arguments.words`` is the command line."""
    effort = Effort(least=2, most=2, turn=0.05) if arguments.quick else Effort()
    found = all_cases(arguments.config, arguments.set, gpu=torch.cuda.is_available(), quick=arguments.quick)
    cases = chosen(found, arguments.only)
    started, load = time.monotonic(), os.getloadavg()[0]
    images = _clip(arguments.input, arguments.frames)
    refused = {case: reason for case in cases if (reason := _refusal(case))}
    skipped = {f'{case.variant} on {case.config.device}': reason for case, reason in refused.items()}
    groups = [list(own) for _, own in groupby((case for case in cases if case not in refused), lambda case: case.group)]
    reports: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(groups, dynamic_ncols=True, bar_format='{l_bar}{bar}| {elapsed}') as bar,
    ):
        path = Path(folder, 'images.npy')
        np.save(path, images)
        for own in bar:
            bar.set_description(f'{own[0].group}: loading')
            measured = measure_group(own, path, effort, bar.set_description)
            skipped |= {one.case.name: one.failure for one in measured if one.failure}
            if done := [one for one in measured if not one.failure]:
                reports.append(group_report(done))
    if not reports:
        raise UserError(
            f'nothing could be measured: {"; ".join(f"{one}: {reason}" for one, reason in skipped.items())}'
        )
    report = {
        **provenance('bench', arguments.words),
        'image': f'{images.shape[2]}x{images.shape[1]}',
        'load average': [load, os.getloadavg()[0]],
        'seconds': round(time.monotonic() - started, 1),
        'skipped': skipped,
        'groups': reports,
    }
    sys.stdout.write(f'{markdown(report)}\n')
    if arguments.json:
        write_atomically(arguments.json, json.dumps(report, indent=1).encode())
    return 0
