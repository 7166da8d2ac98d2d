"""The training loop: any task, resumable at any moment, watched through a progress bar, TensorBoard and pictures."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.checkpoint import load_checkpoint, save_checkpoint
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.journal import Journal

CHECKPOINT = 'checkpoint.pt'
SMOOTHING = 0.95
"""Of the values on the progress bar."""


class Task(Protocol):
    """One stage of a training run."""

    name: str
    steps: int

    def batches(self, first_step: int) -> Iterable[Any]:
        """Yield the batches from a step on; that of step s is a function of the options and s alone."""

    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Make one update; return what to log."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs, of types that a checkpoint may hold."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return pictures (H, W, 3) RGB of what the task does on its last batch."""

    def finish(self) -> None:
        """Hand on what the next stage needs; called once, after the last step."""


@dataclass(frozen=True)
class LoopOptions:
    """How the loop runs; none of it changes what is computed."""

    checkpoint_every: int = 50
    picture_every: int = 100


@dataclass
class Timing:
    """Where the time of a run went, in seconds."""

    waiting: float = 0.0
    """For data."""
    total: float = 0.0
    steps: int = 0

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for data."""
        return self.waiting / self.total if self.total else 0.0


def dry_run(tasks: Sequence[Task], folder: Path, options: dict[str, Any], group: Processes) -> None:
    """Take each task through two batches, a picture and a checkpoint, and put everything back.

    So what would fail in an hour (no space, a broken file, a wrong shape) fails now.

    Raises:
        UserError: Something cannot be read or written.

    """
    for task in tasks:
        if not task.steps:
            continue
        state = copy.deepcopy(task.state_dict())
        for step, batch in enumerate(itertools.islice(task.batches(0), 2)):
            _numbers(task.name, step, task.step(step, batch))
        if group.leads:
            task.pictures()
            trial = folder / 'trial.pt'
            save_checkpoint(trial, {'options': options, 'state': task.state_dict()})
            trial.unlink()
        task.load_state_dict(state)


def _numbers(name: str, step: int, values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return the logged values as floats.

    Raises:
        UserError: One of them is not finite.

    """
    numbers = {key: float(value) for key, value in values.items()}
    broken = [key for key, value in numbers.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f'{name}, step {step}: {broken[0]} is {numbers[broken[0]]}; the training diverged. Start again with a '
            'lower learning rate; the last checkpoint is from before'
        )
    return numbers


def fit(
    tasks: Sequence[Task], folder: Path, options: dict[str, Any], loop: LoopOptions, group: Processes | None = None
) -> dict[str, Timing]:
    """Run the tasks one after the other, or go on where a killed run of the same options was.

    Args:
        tasks: The stages, in order.
        folder: Of the run: checkpoint, log, pictures.
        options: All that decides what is computed; a checkpoint of other options is refused.
        loop: How often to write what.
        group: The processes that train together.

    Returns:
        Of each task where its time went in this process.

    Raises:
        UserError: A checkpoint is damaged or of other options, a loss is not finite, or a file cannot be written.

    """
    group = group or Processes()
    checkpoint = folder / CHECKPOINT
    state = load_checkpoint(checkpoint, options)
    # All have read it before the first one may write it anew.
    group.wait()
    stage, first = (state['stage'], state['step']) if state else (0, 0)
    if state:
        for task, kept in zip(_unfinished(tasks, stage), state['states'], strict=True):
            task.load_state_dict(kept)
    else:
        dry_run(tasks, folder, options, group)
    timings = {}
    with Journal(folder if group.leads else None, [task.name for task in tasks], stage, first) as journal:
        for number in range(stage, len(tasks)):
            task = tasks[number]

            def save(stage: int, step: int) -> None:
                if group.leads:
                    states = [task.state_dict() for task in _unfinished(tasks, stage)]
                    journal.flush()
                    save_checkpoint(checkpoint, {'options': options, 'stage': stage, 'step': step, 'states': states})

            timings[task.name] = _run(task, number, first if number == stage else 0, loop, group, journal, save)
            task.finish()
            save(number + 1, 0)
    return timings


def _unfinished(tasks: Sequence[Task], stage: int) -> Sequence[Task]:
    """Return the tasks whose states a checkpoint holds: also those to come, which hold what the finished ones left."""
    return tasks[min(stage, len(tasks) - 1) :]


def displayed(shown: Mapping[str, float], before: Collection[str], values: Mapping[str, float]) -> dict[str, float]:
    """Return what the progress bar shows after a step.

    Args:
        shown: What it showed.
        before: Names of the values of the step before.
        values: Of this step; those that come at every step are smoothed, one that is measured now and then is shown as
            it is, and stays.

    """
    smoothed = {
        key: SMOOTHING * shown[key] + (1 - SMOOTHING) * value if key in shown and key in before else value
        for key, value in values.items()
    }
    return {**shown, **smoothed}


def _run(
    task: Task,
    number: int,
    first: int,
    loop: LoopOptions,
    group: Processes,
    journal: Journal,
    save: Callable[[int, int], None],
) -> Timing:
    timing = Timing()
    shown: dict[str, float] = {}
    before: Collection[str] = ()
    if first >= task.steps:
        return timing
    batches = iter(task.batches(first))
    bar = tqdm(
        range(first, task.steps), initial=first, total=task.steps, unit='step', desc=task.name, disable=not group.leads
    )
    with bar:
        for step in bar:
            begun = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - begun
            values = group.average(_numbers(task.name, step, task.step(step, batch)))
            journal.scalars(number, step, values)
            shown = displayed(shown, before, values)
            before = values.keys()
            timing.waiting += waited
            done = step + 1
            if done % loop.picture_every == 0 or done == task.steps:
                journal.pictures(number, step, task.pictures() if group.leads else {})
            if done % loop.checkpoint_every == 0 and done < task.steps:
                save(number, done)
            timing.total += time.perf_counter() - begun
            timing.steps += 1
            bar.set_postfix(
                {**{key: f'{value:.3f}' for key, value in shown.items()}, 'wait': f'{timing.waiting_share:.0%}'}
            )
    return timing
