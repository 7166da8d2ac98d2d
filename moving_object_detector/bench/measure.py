"""Cases that are compared take turns, each in a process of its own, so that memory and threads are its own."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from moving_object_detector.bench.cases import Case
from moving_object_detector.common.errors import UserError

if TYPE_CHECKING:
    from moving_object_detector.bench.tasks import Task

T = TypeVar('T')
LONGEST_WARM_UP: Final = 8.0
"""Seconds after which the warm-up ends, once the window is full."""
STATUS: Final = Path('/proc/self/status')
_task: list[Task] = []
"""In a case's own process: what it does."""


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    least: int = 3
    """Rounds of each group at least."""
    most: int = 60
    """Rounds of each group at most."""
    turn: float = 0.3
    """Seconds that each case has in a round; at least one call."""


@dataclass
class Turn:
    """What a process measured in its turn; seconds."""

    calls: list[float]
    stages: dict[str, list[float]]


@dataclass
class Measured:
    """What was found of a case; times in seconds."""

    case: Case
    facts: dict[str, Any]
    turns: list[Turn] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> list[list[float]]:
        """Of the calls of each round."""
        return [turn.calls for turn in self.turns]

    @property
    def calls(self) -> list[float]:
        """Of all calls."""
        return [seconds for turn in self.turns for seconds in turn.calls]

    @property
    def stages(self) -> dict[str, list[float]]:
        """Of all runs of each stage."""
        names = self.turns[0].stages if self.turns else {}
        return {name: [seconds for turn in self.turns for seconds in turn.stages.get(name, [])] for name in names}


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
        """Run something there.

        Raises:
            UnableError: It failed.

        """
        try:
            with _ctrl_c_afterwards():
                future = self.pool.submit(action, *arguments)
        except BrokenProcessPool as error:
            raise UnableError('its process has ended', expected=False) from error
        try:
            return future.result()
        except UserError as error:
            raise UnableError(str(error), expected=True) from error
        except BrokenProcessPool as error:
            raise UnableError('its process ended unasked; was there enough memory?', expected=False) from error
        except Exception as error:
            sys.stderr.write(traceback.format_exc())
            raise UnableError(f'{type(error).__name__}: {error}', expected=False) from error

    def close(self) -> None:
        """End it, when what it is at is done."""
        self.pool.shutdown(cancel_futures=True)


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
    workers = [(Measured(case, {}), Worker()) for case in cases]

    def everyone(action: Callable[..., Any], *arguments: object) -> Iterator[tuple[Measured, Any]]:
        """Let each that still runs do something; yield what it said."""
        for one, worker in tuple(running):
            try:
                yield one, worker.ask(action, *((one.case, images) if action is prepare else arguments))
            except UnableError as error:  # noqa: PERF203 - the others go on
                running.remove((one, worker))
                fail(one.case, error)

    running = list(workers)
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
            worker.close()


def prepare(case: Case, images: Path) -> dict[str, Any]:
    """Make this process's task and the calls that do not count; return what the task is."""
    import torch

    from moving_object_detector.bench.tasks import make_task

    task = make_task(case, images)
    _task[:] = [task]
    started = time.perf_counter()
    for call in range(task.fill + task.warm_up):
        task.call()
        if call >= task.fill and time.perf_counter() - started > LONGEST_WARM_UP:
            break
    task.watch.take()
    return {**task.facts, 'threads': torch.get_num_threads()}


def take_turn(seconds: float) -> Turn:
    """Do this process's task for about so many seconds, at least once."""
    (task,) = _task
    # On a GPU waiting for every stage would cost what the stages gain by running ahead.
    task.watch.running = not task.on_gpu
    calls = _repeat(task.call, seconds, task.on_gpu)
    if task.on_gpu:
        task.watch.running = True
        _repeat(task.call, seconds, task.on_gpu)
    return Turn(calls, task.watch.take())


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

    # Not getrusage, which on Linux counts what the parent had when it started this process.
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith('VmHWM'))
    found = {'resident': int(line.split()[1]) * 1024 / 1e6}
    if torch.cuda.is_available():
        found['gpu'] = torch.cuda.max_memory_allocated() / 1e6
    return {name: round(megabytes, 1) for name, megabytes in found.items()}
