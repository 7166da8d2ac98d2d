"""Evaluating a method on clips: one after another, each kept as soon as it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import make_folder, write_atomically
from moving_object_detector.common.options import flatten
from moving_object_detector.evaluation.clips import EvaluationClip
from moving_object_detector.evaluation.method import Method
from moving_object_detector.evaluation.results import RunResult, SequenceResult
from moving_object_detector.evaluation.sequence_pass import Keeping, SequencePass
from moving_object_detector.evaluation.signals import Signals
from moving_object_detector.evaluation.summary import sequence_scores

IDENTITY: Final = 'run.json'
SEQUENCES: Final = 'sequences'


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON gives back of values."""
    return dict(json.loads(json.dumps(values)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted names of what differs, with both values; None where one has no such name."""
    first, second = dict(flatten(_plain(one))), dict(flatten(_plain(other)))
    names = [*first, *(name for name in second if name not in first)]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except OSError:
        return None
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}); remove it, or give --overwrite to begin anew') from error
    return values if isinstance(values, dict) else None


def claim_folder(folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make a folder that of a run, or check that it is.

    Raises:
        UserError: It holds a run that differs, or cannot be written.

    """
    make_folder(folder / SEQUENCES)
    before = None if overwrite else _read_json(folder / IDENTITY)
    changed = differences(before, identity) if before is not None else {}
    if changed:
        name, (old, new) = next(iter(changed.items()))
        raise UserError(
            f'{folder} holds a run in which {name} was {old!r}, now it is {new!r}; give another --out, '
            'or --overwrite to begin anew'
        )
    if before is None:
        for path in (folder / SEQUENCES).glob('*.json'):
            path.unlink()
        write_atomically(folder / IDENTITY, json.dumps(_plain(identity), indent=1).encode())


def _line(result: SequenceResult, protocol: str) -> str:
    scores = sequence_scores(result, list(result.variants)[-1], protocol)
    j, f = ('  -  ' if value is None else f'{value:.3f}' for value in (scores.j_mean, scores.f_mean))
    return f'{result.name:20s} J {j}  F {f}  {result.frame_count / max(result.seconds, 1e-9):5.1f} frames/s'


def evaluate_clips(
    method: Method,
    clips: Sequence[EvaluationClip],
    identity: Mapping[str, Any],
    details: Mapping[str, Any],
    signals: Signals,
    keeping: Keeping,
    problems: Sequence[str] = (),
) -> RunResult:
    """Evaluate all clips; those that the folder has already are read back.

    Args:
        method: What is scored.
        clips: With unique names.
        identity: What decides the numbers; has ``protocol``.
        details: What else is to be told.
        signals: Label-free signals.
        keeping: The run's folder, and what to keep.
        problems: What is wrong already.

    Raises:
        UserError: Not one clip could be evaluated.

    """
    protocol = str(identity['protocol'])
    results: list[SequenceResult] = []
    failures = list(problems)
    done = {clip.name: _read_json(keeping.folder / SEQUENCES / f'{clip.name}.json') for clip in clips}
    total = sum(clip.frame_count for clip in clips if done[clip.name] is None)
    with tqdm(total=total, unit='frame', dynamic_ncols=True, smoothing=0.05) as bar:
        for clip in clips:
            before = done[clip.name]
            if before is not None:
                results.append(SequenceResult.from_json(before))
                continue
            bar.set_description(clip.name)
            try:
                result = SequencePass(clip, method, protocol, signals, keeping, bar.update).run()
            except UserError as error:
                text = str(error)
                failures.append(text if text.startswith(f'{clip.name}:') else f'{clip.name}: {text}')
                bar.write(f'{clip.name:20s} left out: {error}')
                continue
            write_atomically(keeping.folder / SEQUENCES / f'{clip.name}.json', json.dumps(asdict(result)).encode())
            results.append(result)
            bar.write(_line(result, protocol))
            for problem in result.problems:
                bar.write(f'  {problem}')
    if not results:
        raise UserError(f'nothing could be evaluated: {"; ".join(failures) or "there is no clip"}')
    return RunResult(_plain(identity), _plain(details), tuple(results), tuple(failures))
