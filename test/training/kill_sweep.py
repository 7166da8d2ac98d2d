"""Kills training runs at moments spread evenly over them, lets them go on, and tells whether the result is the same.

    kill_sweep.py FOLDER KILLS ARGUMENT...    a run of the program ``train`` with these arguments
    kill_sweep.py FOLDER KILLS --toy          stages so small that it can be killed at many moments

The run that nobody kills stays in FOLDER/whole. A moment is a call or a return in a module of the
training or in what writes files: before, in and after every write of a file among them. Prints a JSON list, one entry
a kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

# Imported once, before any fork.
import small_train  # noqa: F401
import torch
import toys

import moving_object_detector.training.run  # noqa: F401
from moving_object_detector.common import files
from moving_object_detector.synthetic.random_scene import pooled_texture
from moving_object_detector.training import train

WATCHED = (str(Path(train.__file__).parent), files.__file__)
RESULTS = ('*.safetensors', 'candidates/*', 'log.jsonl', 'result')


def forked(run: Callable[[Path], int], out: Path, moment: int = 0) -> int:
    """Run in a process of its own; return how many moments there were, or 0 where it was killed at the given one."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        passed = 0

        def watch(frame, event, argument):
            nonlocal passed
            if frame.f_code.co_filename.startswith(WATCHED):
                passed += 1
                if passed == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        sys.setprofile(watch)
        try:
            status = run(out)
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        sys.setprofile(None)
        os.write(writer, str(passed).encode())
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        passed = int(pipe.read() or 0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and moment:
        return 0
    if status or moment:
        raise SystemExit(f'{out}, moment {moment}: status {status}')
    return passed


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for pattern in RESULTS for path in folder.glob(pattern)]
    return {path.name: path.read_bytes() for path in files}


def place(folder: Path) -> list[int] | None:
    """Return stage and step of a run's checkpoint."""
    path = folder / 'checkpoint.pt'
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    return [state['stage'], state['step']]


def sweep(run: Callable[[Path], int], folder: Path, kills: int) -> list[dict[str, object]]:
    moments = forked(run, folder / 'whole')
    expected = contents(folder / 'whole')
    assert expected
    report = []
    for number in range(kills):
        moment = int((number + 0.5) * moments / kills)
        killed = folder / f'killed{number}'
        forked(run, killed, moment)
        at = place(killed)
        forked(run, killed)
        found = contents(killed)
        different = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        report.append({'moment': moment, 'of': moments, 'checkpoint': at, 'different': different})
    return report


def run_train(arguments: list[str], out: Path) -> int:
    return train.main(['--out', str(out), *arguments])


def main() -> None:
    folder, kills, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    # What is printed on the way is for stderr.
    out = os.dup(1)
    os.dup2(2, 1)
    # What PyTorch imports at a first step is imported before any fork too.
    toys.run(folder / 'imports')
    if arguments == ['--toy']:
        report = sweep(toys.run, folder, kills)
    else:
        for index in range(4):
            pooled_texture(index)
        # Fills the flow cache, so that all runs have the same moments.
        short = [*arguments, 'rendered.steps=1', 'inpainter.steps=0', 'game.steps=0']
        forked(partial(run_train, short), folder / 'first')
        report = sweep(partial(run_train, arguments), folder, kills)
    os.write(out, json.dumps(report).encode())


if __name__ == '__main__':
    main()
