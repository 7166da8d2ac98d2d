"""The training loop: any stages, resumable at any moment, watched through a progress bar, TensorBoard and pictures."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.config import RunConfig
from moving_object_detector.training.run_folder import Journal, load_checkpoint, save_checkpoint
from moving_object_detector.training.setup import Processes
from moving_object_detector.training.stages import Stage

CHECKPOINT: Final = 'checkpoint.pt'


def dry_run(stages: Sequence[Stage], folder: Path, options: dict[str, Any], group: Processes) -> None:
    """Take each stage through two batches, a picture and a checkpoint, and put everything back.

    So what would fail in an hour (no space, a broken file, a wrong shape) fails now, as a UserError.
    """
    for stage in stages:
        if not stage.steps:
            continue
        state = copy.deepcopy(stage.state_dict())
        for step, batch in enumerate(itertools.islice(stage.batches(0), 2)):
            _numbers(stage.name, step, stage.step(step, batch))
        if group.leads:
            stage.pictures()
            trial = folder / 'trial.pt'
            save_checkpoint(trial, {'options': options, 'state': stage.state_dict()})
            trial.unlink()
        stage.load_state_dict(state)


def _numbers(name: str, step: int, values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return the logged values as floats; raises UserError where one is not finite."""
    numbers = {key: float(value) for key, value in values.items()}
    broken = [key for key, value in numbers.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f'{name}, step {step}: {broken[0]} is {numbers[broken[0]]}; the training diverged. Start again with a '
            'lower learning rate; the last checkpoint is from before'
        )
    return numbers


Keep = Callable[[str, nn.Module], object]


def candidate_steps(steps: int, candidates: int) -> list[int]:
    """Return after how many steps there is a candidate: evenly from 0, what the stage begins with, to the end."""
    return sorted({round(k * steps / candidates) for k in range(candidates + 1)})


def candidate_names(stages: Sequence[Stage], candidates: int) -> list[str]:
    """Return the names of all candidates of a run, in their order."""
    offering = [stage for stage in stages if stage.steps and stage.candidate is not None]
    return [f'{stage.name}-{step:06d}' for stage in offering for step in candidate_steps(stage.steps, candidates)]


def fit(
    stages: Sequence[Stage],
    folder: Path,
    options: dict[str, Any],
    run: RunConfig,
    group: Processes | None = None,
    keep: Keep = lambda name, network: None,
    candidates: int = 1,
) -> None:
    """Run the stages one after the other, or go on where a killed run of the same options was.

    The folder gets checkpoint, log and pictures. ``options`` are all that decides what is computed: a checkpoint of
    others is refused. ``keep`` is called with the name of each of the ``candidates`` after a stage's beginning (see
    :func:`candidate_names`) and the network.
    Raises UserError where a checkpoint is damaged or of other options, a loss is not finite, or a file cannot be
    written.
    """
    group = group or Processes()
    checkpoint = folder / CHECKPOINT
    state = load_checkpoint(checkpoint, options)
    # All have read it before the first one may write it anew.
    group.wait()
    current, first = (state['stage'], state['step']) if state else (0, 0)
    if state:
        for stage, kept in zip(_unfinished(stages, current), state['states'], strict=True):
            stage.load_state_dict(kept)
    else:
        dry_run(stages, folder, options, group)
    with Journal(folder if group.leads else None, [stage.name for stage in stages], current, first) as journal:

        def save(number: int, step: int) -> None:
            if group.leads:
                states = [stage.state_dict() for stage in _unfinished(stages, number)]
                journal.flush()
                save_checkpoint(checkpoint, {'options': options, 'stage': number, 'step': step, 'states': states})

        for number in range(current, len(stages)):
            start = first if number == current else 0
            if not start:
                stages[number].begin()
            _run(stages[number], number, start, run, group, journal, save, keep, candidates)
            stages[number].finish()
            save(number + 1, 0)


def _unfinished(stages: Sequence[Stage], number: int) -> Sequence[Stage]:
    """Return the stages whose states a checkpoint holds: also those to come, which hold what the finished ones left."""
    return stages[min(number, len(stages) - 1) :]


def _run(
    stage: Stage, number: int, first: int, run: RunConfig, group: Processes, journal: Journal,
    save: Callable[[int, int], None], keep: Keep, candidates: int,
) -> None:  # fmt: skip
    offered = candidate_steps(stage.steps, candidates) if stage.candidate is not None and group.leads else []

    def offer(done: int) -> None:
        if done in offered and stage.candidate is not None:
            keep(f'{stage.name}-{done:06d}', stage.candidate)

    shown: dict[str, float] = {}
    if first >= stage.steps:
        return
    if not first:
        offer(0)
    batches = iter(stage.batches(first))
    span, silent = range(first, stage.steps), not group.leads
    waited, started = 0.0, time.perf_counter()
    with tqdm(span, initial=first, total=stage.steps, unit='step', desc=stage.name, disable=silent) as bar:
        for step in bar:
            begun = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - begun
            values = group.average(_numbers(stage.name, step, stage.step(step, batch)))
            journal.scalars(number, step, values)
            shown |= values
            done = step + 1
            offer(done)
            if done % run.picture_every == 0 or done == stage.steps:
                journal.pictures(number, step, stage.pictures() if group.leads else {})
            if done % run.checkpoint_every == 0 and done < stage.steps:
                save(number, done)
            share = waited / (time.perf_counter() - started)
            told = {**{key: f'{value:.3f}' for key, value in shown.items()}, 'wait': f'{share:.0%}'}
            bar.set_postfix(told)
