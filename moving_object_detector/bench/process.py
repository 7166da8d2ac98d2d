"""What runs in a case's own process."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.bench.cases import Case, Variant
from moving_object_detector.common.errors import UserError

if TYPE_CHECKING:
    from moving_object_detector.bench.task import Task

LONGEST_WARM_UP: Final = 8.0
"""Seconds after which no more calls are made that do not count, but those that the task must have."""
STATUS: Final = Path('/proc/self/status')


@dataclass
class Turn:
    """What a process measured in its turn; seconds."""

    calls: list[float]
    stages: dict[str, list[float]]
    product: list[float]


def probe(pipe: Connection, device: str, variants: Sequence[Variant]) -> None:
    """Send which engines do not run on a device, and why.

    Args:
        pipe: To the parent.
        device: As in the options.
        variants: The engines in question.

    """
    _reporting(pipe, lambda: _refused(device, variants))


def work(pipe: Connection, case: Case, images: Path) -> None:
    """Prepare a case, send what it is, then obey: a number is a turn of so many seconds, None asks for the memory.

    Args:
        pipe: To the parent.
        case: What to do.
        images: File of frames.

    """
    made: list[Task] = []

    def prepare() -> dict[str, Any]:
        import torch

        from moving_object_detector.bench.task import make_task

        made.append(make_task(case, images))
        warm(made[0])
        return {**made[0].facts, 'threads': torch.get_num_threads()}

    def obey() -> Turn | dict[str, float]:
        return peak_memory() if wanted is None else turn(made[0], wanted)

    done = _reporting(pipe, prepare)
    while done:
        try:
            wanted = pipe.recv()
        except EOFError:
            return
        done = _reporting(pipe, obey)


def warm(task: Task) -> None:
    """Make the calls that do not count."""
    started = time.perf_counter()
    for call in range(task.fill + task.warm_up):
        task.call()
        if call >= task.fill and time.perf_counter() - started > LONGEST_WARM_UP:
            break
    if task.product:
        task.product()
    task.watch.take()


def turn(task: Task, seconds: float) -> Turn:
    """Do a task for about so many seconds, at least once."""
    # On a GPU waiting for every stage would cost what the stages gain by running ahead.
    task.watch.running = not task.on_gpu
    calls = _repeat(task.call, seconds, task.on_gpu)
    if task.on_gpu:
        task.watch.running = True
        _repeat(task.call, seconds, task.on_gpu)
    product = _repeat(task.product, seconds / 2, task.on_gpu) if task.product else []
    return Turn(calls, task.watch.take(), product)


def _repeat(action: Callable[[], object], seconds: float, on_gpu: bool) -> list[float]:
    import torch

    times: list[float] = []
    while not times or sum(times) < seconds:
        started = time.perf_counter()
        action()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return times


def peak_memory() -> dict[str, float]:
    """Return the most memory that this process had so far, in MB: ``resident``, and on a GPU ``gpu``."""
    import torch

    found = {'resident': _peak_resident() / 1e6}
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.max_memory_allocated() / 1e6
    return {name: round(megabytes, 1) for name, megabytes in found.items()}


def _peak_resident() -> float:
    """Return bytes."""
    try:
        # Not getrusage, which on Linux counts what the parent had when it started this process.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def _refused(device: str, variants: Sequence[Variant]) -> dict[Variant, str]:
    import torch
    from torch import nn

    from moving_object_detector.engines.create import choose_device, create_engine

    def refusal(variant: Variant) -> str:
        try:
            engine = create_engine(variant.engine, choose_device(device), precision=variant.precision)
            engine.load(nn.Conv2d(4, 4, 3), (torch.zeros(1, 4, 8, 8),), 'trial')
        except UserError as error:
            return str(error)
        return ''

    return {variant: reason for variant in variants if (reason := refusal(variant))}


def _reporting(pipe: Connection, action: Callable[[], object]) -> bool:
    """Send what an action returns, or why it failed; return whether it succeeded."""
    try:
        pipe.send(('done', action()))
    except UserError as error:
        pipe.send(('refused', str(error)))
    except Exception as error:  # noqa: BLE001 - goes into the report, and the other cases are measured
        sys.stderr.write(traceback.format_exc())
        pipe.send(('failed', f'{type(error).__name__}: {error}'))
    else:
        return True
    return False
