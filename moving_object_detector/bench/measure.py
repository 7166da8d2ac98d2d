"""Cases that are compared take turns, each in a process of its own, so that memory and threads are its own."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.bench.cases import EAGER, NAIVE, Case, all_variants, chosen, groups
from moving_object_detector.bench.report import Measured, Turn, group_report, markdown
from moving_object_detector.bench.tasks import Task, make_task
from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.common.options import with_values
from moving_object_detector.common.program import provenance
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.media.pixels import Levels
from moving_object_detector.media.sources import open_source
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import save_network
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene

T = TypeVar('T')
LONGEST_WARM_UP: Final = 8.0
"""Seconds after which the warm-up ends, once the window is full."""
RANDOM_FLOW: Final = 'PWC-Net has random weights, since flow.model names none: its times are right, its masks are not'
_task: list[Task] = []
"""In a case's own process: what it does."""


class Effort(NamedTuple):
    """How much is measured: rounds of each group, and seconds that each case has in a round, for one call at least."""

    least: int = 3
    most: int = 60
    turn: float = 0.3


# In a case's own process ---------------------------------------------------------------------------------------------


def prepare(case: Case, images: Path) -> dict[str, Any]:
    """Make this process's task and the calls that do not count; return what the task is."""
    task = make_task(case, images)
    _task[:] = [task]
    started = time.perf_counter()
    for call in range(task.fill + task.warm_up):
        task.call()
        if call >= task.fill and time.perf_counter() - started > LONGEST_WARM_UP:
            break
    task.settle()
    task.watch.take()
    return {**task.facts, 'threads': torch.get_num_threads()}


def take_turn(seconds: float) -> Turn:
    """Do this process's task for about so many seconds, at least once."""
    (task,) = _task

    def repeat() -> list[float]:
        times: list[float] = []
        while not times or sum(times) < seconds:
            started = time.perf_counter()
            task.call()
            if task.on_gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        task.settle()
        times[-1] += time.perf_counter() - started
        return times

    # On a GPU waiting for every stage would cost what the stages gain by running ahead.
    task.watch.running = not task.on_gpu
    calls = repeat()
    if task.on_gpu:
        task.watch.running = True
        repeat()
    return Turn(calls, task.watch.take())


def peak_memory() -> dict[str, float]:
    """Return the most memory that this process had so far, in MB: ``resident``, and on a GPU ``gpu``."""
    # Not getrusage, which on Linux counts what the parent had when it started this process.
    lines = Path('/proc/self/status').read_text().splitlines()
    found = {'resident': int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024 / 1e6}
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.max_memory_allocated() / 1e6
    return {name: round(megabytes, 1) for name, megabytes in found.items()}


# In the program's ----------------------------------------------------------------------------------------------------


class UnableError(Exception):
    """A case that cannot run; ``expected`` where that is a property of this machine, else something is broken."""

    def __init__(self, reason: str, *, expected: bool) -> None:
        super().__init__(reason)
        self.expected = expected


@contextmanager
def _ctrl_c_afterwards() -> Iterator[None]:
    """Start a child whole: half of it would end with a trace. Children inherit that they do not see Ctrl-C."""
    pressed: list[int] = []
    # The mask is this thread's alone; another thread would take the signal, and Python raise it here.
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


class Worker:
    """A process that does as it is told: spawned, since a fork would inherit memory and the locks of threads."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=get_context('spawn'))

    def ask(self, action: Callable[..., T], *arguments: object) -> T:
        """Run something there; raises UnableError where it failed."""
        try:
            with _ctrl_c_afterwards():
                future = self.pool.submit(action, *arguments)
            return future.result()
        except UserError as error:
            raise UnableError(str(error), expected=True) from error
        except BrokenProcessPool as error:
            raise UnableError('its process ended unasked; was there enough memory?', expected=False) from error
        except Exception as error:
            sys.stderr.write(traceback.format_exc())
            raise UnableError(f'{type(error).__name__}: {error}', expected=False) from error


def measure_group(
    cases: Sequence[Case],
    images: Path,
    effort: Effort,
    fail: Callable[[Case, UnableError], None],
    progress: Callable[[float], None] = lambda _: None,
) -> list[Measured]:
    """Measure the cases of a group on a file of frames, one at a time: A B C A B C ...

    Each case that cannot run is told to ``fail``, and the others go on; they are returned in the order of ``cases``.
    """
    longest = cases[0].group.seconds
    workers = [(Measured(case), Worker()) for case in cases]
    running = list(workers)

    def everyone(action: Callable[..., Any], *arguments: object) -> Iterator[tuple[Measured, Any]]:
        """Let each that still runs do something; yield what it said."""
        for one, worker in tuple(running):
            try:
                yield one, worker.ask(action, *((one.case, images) if action is prepare else arguments))
            except UnableError as error:  # noqa: PERF203 - the others go on
                running.remove((one, worker))
                fail(one.case, error)

    try:
        for one, facts in everyone(prepare):
            one.facts = facts
        started = time.monotonic()
        for count in range(effort.most):
            spent = time.monotonic() - started
            if not running or (count >= effort.least and spent >= longest):
                break
            progress(min(max(count / effort.most, spent / longest if longest else 0.0), 1.0))
            for one, turn in everyone(take_turn, effort.turn):
                one.turns.append(turn)
        for one, memory in everyone(peak_memory):
            one.memory = memory
        return [one for one, _ in running]
    finally:
        for _, worker in workers:
            worker.pool.shutdown(cancel_futures=True)


def _measure(cases: Sequence[Case], images: Path, effort: Effort, skipped: list[dict[str, Any]]) -> Iterator[Any]:
    """Yield the report of each group; what cannot run goes to ``skipped``."""
    refused = {case: reason for case in cases if (reason := _refusal(case))}
    reasons = {f'{case.variant} on {case.config.device}': reason for case, reason in refused.items()}
    skipped += [{'case': name, 'reason': reason, 'expected': True} for name, reason in reasons.items()]
    by_group = [
        list(own) for _, own in groupby((case for case in cases if case not in refused), lambda case: case.group)
    ]

    def fail(case: Case, error: UnableError) -> None:
        skipped.append({'case': case.name, 'reason': str(error), 'expected': error.expected})

    with tqdm(total=len(by_group), dynamic_ncols=True, bar_format='{l_bar}{bar}| {elapsed}') as bar:
        for position, own in enumerate(by_group):
            bar.set_description(own[0].group.name)

            def progress(share: float, done: int = position) -> None:
                bar.n = round(done + share, 3)
                bar.refresh()

            if measured := measure_group(own, images, effort, fail, progress):
                yield group_report(own[0].group, measured)
            progress(1.0)


def _refusal(case: Case) -> str:
    """Return why the case's engine does not run on its device, as far as that is known without loading anything."""
    if case.variant in (EAGER, NAIVE):
        return ''
    try:
        create_engine(case.variant.engine, choose_device(case.config.device), precision=case.variant.precision)
    except UserError as error:
        return str(error)
    return ''


def random_pwcnet() -> PWCNet:
    """Return PWC-Net with the same random weights each time, whose flow is of some pixels."""
    torch.manual_seed(3)
    network = PWCNet()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(0.2)
    return network


def _with_flow_weights(case: Case, path: Path) -> Case:
    """Give PWC-Net random weights where it has none."""
    config = case.group.config
    if config.flow.backend != 'pwcnet' or config.flow.model:
        return case
    if not path.exists():
        save_network(random_pwcnet(), path, {})
    return replace(case, group=replace(case.group, config=with_values(config, {'flow.model': str(path)})))


def _clip(source: str, count: int, levels: Levels) -> NDArray[np.uint8]:
    """Return the first frames of a folder, video or bag, or rendered ones, uint8 (N, H, W, 3) RGB."""
    if source:
        return np.stack([frame.image for frame in islice(iter(open_source(source, levels=levels)), count)])
    scene = clip_scene(7, SceneOptions(size=(480, 640), objects=(1, 2)))
    return np.stack([scene.image(moment) for moment in range(count)])


def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Measure, print and write; return the exit status: 1 where something is broken, 130 after Ctrl-C.

    ``words`` is the command line as it was written, for the report.
    """
    effort = Effort(least=2, most=2, turn=0.05) if arguments.quick else Effort()
    if arguments.rounds:
        effort = effort._replace(least=min(effort.least, arguments.rounds), most=arguments.rounds)
    found = groups(arguments.config, arguments.set, gpu=torch.cuda.is_available(), quick=arguments.quick)
    engines = all_variants()
    cases = chosen([Case(group, variant) for group in found for variant in group.variants(engines)], arguments.only)
    if arguments.list:
        sys.stdout.write(''.join(f'{case.name}\n' for case in cases))
        return 0
    started, load = time.monotonic(), os.getloadavg()[0]
    images = _clip(arguments.input, arguments.frames, tuple(arguments.levels))
    reports: list[dict[str, Any]] = []
    skipped: list[dict[str, Any]] = []
    notes, status = [], 0
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, 'images.npy'), images)
        weights = Path(folder, 'random.safetensors')
        cases = [_with_flow_weights(case, weights) for case in cases]
        if weights.exists():
            notes.append(RANDOM_FLOW)
        try:
            reports.extend(_measure(cases, Path(folder, 'images.npy'), effort, skipped))
        except KeyboardInterrupt:
            if not reports:
                raise
            status = 130
            notes.append('stopped by Ctrl-C, so groups are missing')
    if not reports:
        reasons = '; '.join(f'{one["case"]}: {one["reason"]}' for one in skipped)
        raise UserError(f'nothing could be measured: {reasons}')
    report = {
        **provenance('bench', words),
        'image': f'{images.shape[2]}x{images.shape[1]}',
        'load average': [load, os.getloadavg()[0]],
        'seconds': round(time.monotonic() - started, 1),
        'notes': notes,
        'skipped': skipped,
        'groups': reports,
    }
    sys.stdout.write(f'{markdown(report)}\n')
    if arguments.json:
        write_atomically(arguments.json, json.dumps(report, indent=1).encode())
    return status or int(not all(one['expected'] for one in skipped))
