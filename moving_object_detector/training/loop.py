"""The training loop, resumable at any moment, and its files in a run's folder: checkpoints, log, pictures."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign, shown
from moving_object_detector.common.files import atomic_file, open_file
from moving_object_detector.common.options import flatten
from moving_object_detector.media.codecs import encode_png
from moving_object_detector.training.config import RunConfig
from moving_object_detector.training.stages import Stage

try:
    from torch.utils.tensorboard.writer import SummaryWriter
except ImportError:  # optional: log and pictures do not need it
    SummaryWriter = None  # type: ignore[misc, assignment]


_log = logging.getLogger(__name__)

# Checkpoints, each with a checksum, the last two kept ----------------------------------------------------------------

MARK: Final = b'checkpoint 1 '
CHECKSUM_BYTES: Final = 32
NAMED_OPTIONS: Final = 8
_DAMAGES: Final = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.UnpicklingError)


def earlier(path: Path) -> Path:
    """Return where the checkpoint before the one in ``path`` is kept."""
    return path.with_name(f'{path.stem}-before{path.suffix}')


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a run's state, which has ``options`` by which it is known; the one before is kept. Raises UserError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        with atomic_file(path) as file:
            file.write(content)
            file.write(_checksum(content))
            file.flush()
            # A damaged file must not replace the intact one before it, from which a resumed run came.
            if path.is_file() and _content(kept := path.read_bytes()) is not None:
                with atomic_file(earlier(path), durable=False) as before:
                    before.write(kept)
    except OSError as error:
        raise UserError(
            f'{path} cannot be written: {error.strerror}; free some space, or give a path in a folder you own'
        ) from error


def load_checkpoint(path: Path, options: dict[str, Any]) -> dict[str, Any] | None:
    """Read the state of a run with the same options, or None where there is none yet.

    Where the last checkpoint is damaged, the one before it is read, with a warning. Raises UserError where both are,
    or the run had other options.
    """
    if not path.exists():
        return None
    for file in filter(Path.exists, (path, earlier(path))):
        try:
            state = _read(file)
        except _DAMAGES as error:
            _log.warning('%s is damaged (%s); it is not used', foreign(file, 300), foreign(repr(error)))
            continue
        if file != path:
            _log.warning('the run goes on from the checkpoint before, %s', foreign(file, 300))
        _compare(file, state['options'], options)
        return state
    raise UserError(f'{path} is no checkpoint that can be read; remove it to start anew')


def _checksum(content: memoryview) -> bytes:
    return MARK + hashlib.blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def _content(whole: bytes) -> memoryview | None:
    """Return a checkpoint's content without its checksum; None where that is wrong or missing."""
    content = memoryview(whole)[: -CHECKSUM_BYTES - len(MARK)]
    return content if whole[len(content) :] == _checksum(content) else None


def _read(path: Path) -> dict[str, Any]:
    """Read a state; raises one of ``_DAMAGES``."""
    with open_file(path) as file:
        content = _content(file.read())
    if content is None:
        raise ValueError('cut short, of another version, or with a wrong checksum')
    # Onto the CPU: each process brings it to a device of its own, and a GPU's run may go on without one.
    state = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    return {**state, 'options': dict(state['options'])}


def _compare(path: Path, found: dict[str, Any], options: dict[str, Any]) -> None:
    there, here = dict(flatten(found)), dict(flatten(options))
    changed = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if changed:
        named = ', '.join(f'{name} {shown(there.get(name))} there and {shown(here.get(name))} now'
                          for name in changed[:NAMED_OPTIONS])  # fmt: skip
        raise UserError(f'{path} is of a run with other options ({named}); match them, or remove it to start anew')


# Log and pictures -----------------------------------------------------------------------------------------------------

LOG = 'log.jsonl'


class Journal:
    """Writes the log, pictures and TensorBoard files of stages with given names into a run's folder.

    A resumed run passes the number of the stage and the step at which it continues; later entries are dropped.
    """

    def __init__(self, folder: Path, stages: Sequence[str], stage: int = 0, step: int = 0) -> None:
        """Open the files; raises UserError."""
        self._folder = folder
        self._stages = tuple(stages)
        self._at = (stage, step)
        self._boards: dict[int, SummaryWriter] = {}
        log = folder / LOG
        with self._reported('give another --out'):
            (folder / 'pictures').mkdir(parents=True, exist_ok=True)
            # The log may be of an earlier run with other stages.
            lines = [line for line in read_log(log) if line['stage'] in self._stages]
            kept = [line for line in lines if (self._stages.index(line['stage']), line['step']) < self._at]
            with atomic_file(log) as file:
                file.write(''.join(f'{json.dumps(line)}\n' for line in kept).encode())
            self._log = log.open('a', encoding='utf-8')
        self._kept = kept

    def losses(self, stage: int) -> list[tuple[int, float]]:
        """Return the steps and losses of a stage that were logged before this run was resumed."""
        own = [line for line in self._kept if line['stage'] == self._stages[stage]]
        return [(line['step'], line['loss']) for line in own if isinstance(line.get('loss'), float)]

    def __enter__(self) -> Journal:
        return self

    def _board(self, stage: int) -> SummaryWriter | None:
        """Return the TensorBoard writer of a stage, if installed; one per stage, since each counts steps from 0."""
        if SummaryWriter is not None and stage not in self._boards:
            # Hides events of the killed run at or after this step.
            first = self._at[1] if stage == self._at[0] else 0
            folder = f'{self._folder}/tensorboard/{self._stages[stage]}'
            self._boards[stage] = SummaryWriter(folder, purge_step=first)
        return self._boards.get(stage)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # Must not hide an earlier error: a resumed run drops incomplete lines anyway.
        with suppress(OSError) if error else self._reported():
            self._log.close()
            for board in self._boards.values():
                board.close()

    def write(
        self, stage: int, step: int, values: Mapping[str, float], pictures: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        """Log the values of a step, write its pictures, (H, W, 3) RGB, as PNG, and send both to TensorBoard."""
        name = self._stages[stage]
        with self._reported():
            board = self._board(stage)
            self._log.write(json.dumps({'stage': name, 'step': step, **values}) + '\n')
            if board:
                for key, value in values.items():
                    board.add_scalar(f'{name}/{key}', value, step)
            for key, picture in pictures.items():
                path = self._folder / f'pictures/{name}-{key}-{step + 1:06d}.png'
                path.write_bytes(encode_png(picture).tobytes())
                if board:
                    board.add_image(f'{name}-{key}', picture, step, dataformats='HWC')

    def flush(self) -> None:
        """Flush everything to disk, since a checkpoint must not be ahead of the log."""
        with self._reported():
            self._log.flush()
            os.fsync(self._log.fileno())
            for board in self._boards.values():
                board.flush()

    @contextmanager
    def _reported(self, remedy: str = 'free some space and start again to resume') -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f'{self._folder} cannot be written to: {error.strerror}; {remedy}') from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's log without damaged or truncated lines; none if there is no file."""
    if not path.exists():
        return []
    # A line is complete only with its newline.
    *whole, _ = path.read_bytes().split(b'\n')
    lines = []
    for line in whole:
        with suppress(ValueError, RecursionError, KeyError, TypeError):
            found = json.loads(line)
            if isinstance(found['stage'], str) and isinstance(found['step'], int):
                lines.append(found)
    if damaged := len(whole) - len(lines):
        _log.warning('%s: %d damaged lines are left out', foreign(path, 300), damaged)
    return lines


CHECKPOINT: Final = 'checkpoint.pt'


def dry_run(stages: Sequence[Stage], folder: Path, options: dict[str, Any]) -> None:
    """Run each stage for two batches, a picture and a checkpoint, then restore its state.

    Errors that would come after an hour (full disk, damaged file, wrong shape) come at once, as UserError.
    """
    for stage in stages:
        if not stage.steps:
            continue
        state = copy.deepcopy(stage.state_dict())
        for step, batch in enumerate(itertools.islice(stage.batches(0), 2)):
            _numbers(stage.name, step, stage.step(step, batch))
        stage.pictures()
        trial = folder / 'trial.pt'
        save_checkpoint(trial, {'options': options, 'state': stage.state_dict()})
        trial.unlink()
        stage.load_state_dict(state)


def _numbers(name: str, step: int, values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return the logged values as floats; raises UserError if one is not finite."""
    numbers = {key: float(value) for key, value in values.items()}
    broken = [key for key, value in numbers.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f'{name}, step {step}: {broken[0]} is {numbers[broken[0]]}; the training diverged. Start again with a '
            'lower learning rate and another --out'
        )
    return numbers


SETTLED: Final = 200
"""Steps over which a loss is averaged, and for which the average must stay high before the training is stopped."""
RISEN: Final = 2.0
"""Multiple of its least average at which a loss counts as high."""


class LossWatch:
    """Detects a stage that diverges with finite loss, as at too high a learning rate."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._recent: deque[float] = deque(maxlen=SETTLED)
        self._first: float | None = None
        self._least = float('inf')
        self._risen = 0

    def take(self, step: int, loss: float) -> None:
        """Add a step's loss; raises UserError if its moving average has stayed at twice its least for long."""
        self._recent.append(loss)
        if len(self._recent) < SETTLED:
            return
        mean = sum(self._recent) / SETTLED
        self._first, self._least = mean if self._first is None else self._first, min(self._least, mean)
        # A loss that has fallen to near zero may double harmlessly.
        self._risen = self._risen + 1 if mean > max(RISEN * self._least, self._first / RISEN) else 0
        if self._risen >= SETTLED:
            raise UserError(
                f'{self._name}, step {step}: the loss has doubled from its minimum: the training diverged. '
                'Start again with a lower learning rate and another --out'
            )


Keep = Callable[[str, nn.Module], object]


def candidate_steps(steps: int, candidates: int) -> list[int]:
    """Return the numbers of finished steps at which a candidate is saved: evenly spaced from 0 to the end."""
    return sorted({round(k * steps / candidates) for k in range(candidates + 1)})


def candidate_names(stages: Sequence[Stage], candidates: int) -> list[str]:
    """Return the names of all candidates of a run, in order."""
    offering = [stage for stage in stages if stage.steps and stage.candidate is not None]
    return [f'{stage.name}-{step:06d}' for stage in offering for step in candidate_steps(stage.steps, candidates)]


def fit(
    stages: Sequence[Stage],
    folder: Path,
    options: dict[str, Any],
    run: RunConfig,
    keep: Keep = lambda *_: None,
    candidates: int = 1,
) -> None:
    """Run the stages in order, or resume a killed run with the same options.

    Writes checkpoint, log and pictures to the folder. ``options`` are all options that affect the result; a checkpoint
    with other options is refused. ``keep`` is called with name and network of each candidate: the one before a stage
    and ``candidates`` during it (see :func:`candidate_names`).
    Raises UserError if a checkpoint is damaged or has other options, the loss diverges, or a file cannot be written.
    """
    checkpoint = folder / CHECKPOINT
    state = load_checkpoint(checkpoint, options)
    current, first = (state['stage'], state['step']) if state else (0, 0)
    if state:
        # Checkpoints of earlier versions lack the finished stages.
        for stage, kept in zip(stages[-len(state['states']) :], state['states'], strict=True):
            stage.load_state_dict(kept)
    else:
        dry_run(stages, folder, options)
    with Journal(folder, [stage.name for stage in stages], current, first) as journal:

        def save(number: int, step: int) -> None:
            # Finished ones too: no later stage need have their networks.
            states = [stage.state_dict() for stage in stages]
            journal.flush()
            save_checkpoint(checkpoint, {'options': options, 'stage': number, 'step': step, 'states': states})

        for number in range(current, len(stages)):
            stage, start = stages[number], first if number == current else 0
            offered = candidate_steps(stage.steps, candidates)
            if not start:
                stage.begin()
            for done in _steps(stage, number, start, run, journal):
                if stage.candidate is not None and done in offered:
                    keep(f'{stage.name}-{done:06d}', stage.candidate)
                if done % run.checkpoint_every == 0 and start < done < stage.steps:
                    save(number, done)
            stage.finish()
            save(number + 1, 0)


def _steps(stage: Stage, number: int, first: int, run: RunConfig, journal: Journal) -> Iterator[int]:
    """Run a stage's steps from ``first`` on; yield the number of finished steps before the first and after each."""
    if first >= stage.steps:
        return
    yield first
    shown: dict[str, float] = {}
    watch = LossWatch(stage.name)
    for logged in journal.losses(number):
        watch.take(*logged)
    batches = iter(stage.batches(first))
    waited, started = 0.0, time.perf_counter()  # the bar shows the share of time spent waiting for batches
    with tqdm(range(first, stage.steps), initial=first, total=stage.steps, unit='step', desc=stage.name) as bar:
        for step in bar:
            begun = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - begun
            values = _numbers(stage.name, step, stage.step(step, batch))
            shown |= values
            done = step + 1
            drawn = done % run.picture_every == 0 or done == stage.steps
            journal.write(number, step, values, stage.pictures() if drawn else {})
            if 'loss' in values:
                watch.take(step, values['loss'])
            yield done
            share = waited / (time.perf_counter() - started)
            bar.set_postfix({**{key: f'{value:.3f}' for key, value in shown.items()}, 'wait': f'{share:.0%}'})
