"""Cases that are compared take turns, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from moving_object_detector.bench.cases import Case, Group
from moving_object_detector.bench.process import Turn
from moving_object_detector.bench.worker import UnableError, Worker

T = TypeVar('T')
Fail = Callable[[Case, UnableError], None]


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
class Measured:
    """What was found of a case."""

    case: Case
    facts: dict[str, Any]
    turns: list[Turn] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> list[list[float]]:
        """Seconds of the calls of each round."""
        return [turn.calls for turn in self.turns]

    @property
    def calls(self) -> list[float]:
        """Seconds of all calls."""
        return [seconds for turn in self.turns for seconds in turn.calls]

    @property
    def products(self) -> list[float]:
        """Seconds of all products of matrices."""
        return [seconds for turn in self.turns for seconds in turn.product]

    @property
    def stages(self) -> dict[str, list[float]]:
        """Seconds of all runs of each stage."""
        names = self.turns[0].stages if self.turns else {}
        return {name: [seconds for turn in self.turns for seconds in turn.stages.get(name, [])] for name in names}


def measure_group(
    group: Group,
    cases: Sequence[Case],
    images: Path,
    effort: Effort,
    fail: Fail,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Measured]:
    """Measure the cases of a group, one at a time: A B C A B C ...

    Args:
        group: What is compared.
        cases: Of that group.
        images: File of frames.
        effort: How much.
        fail: Told of each case that cannot run; the others go on.
        progress: Told what share of the group is done.

    Returns:
        Those that ran, in the order of ``cases``.

    """
    workers = [Worker(case, images) for case in cases]
    try:
        started_up = ((worker, _attempt(worker, worker.ready, fail)) for worker in workers)
        running = [(worker, Measured(worker.case, facts)) for worker, facts in started_up if facts is not None]
        started = time.monotonic()
        for count in range(effort.most):
            spent = time.monotonic() - started
            if not running or (count >= effort.least and spent >= group.seconds):
                break
            progress(min(max(count / effort.most, spent / group.seconds if group.seconds else 0.0), 1.0))
            running = _round(running, effort.turn, fail)
        for worker, measured in running:
            measured.memory = worker.memory()
        return [measured for _, measured in running]
    finally:
        for worker in workers:
            worker.close()


def _round(running: Sequence[tuple[Worker, Measured]], seconds: float, fail: Fail) -> list[tuple[Worker, Measured]]:
    """Give each a turn; return those that are still there."""
    turns = [(worker, measured, _attempt(worker, partial(worker.turn, seconds), fail)) for worker, measured in running]
    for _, measured, turn in turns:
        if turn is not None:
            measured.turns.append(turn)
    return [(worker, measured) for worker, measured, turn in turns if turn is not None]


def _attempt(worker: Worker, action: Callable[[], T], fail: Fail) -> T | None:
    try:
        return action()
    except UnableError as error:
        fail(worker.case, error)
        return None
