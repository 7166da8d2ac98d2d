"""Evaluating a method on clips: one after another, each kept as soon as it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import lock, make_folder, write_atomically
from moving_object_detector.common.options import flatten
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.common.program import provenance
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.evaluation.clips import Clip, fingerprint, open_clips
from moving_object_detector.evaluation.methods import BASELINES, DetectorMethod, GivenMasks, Method
from moving_object_detector.evaluation.options import EvaluateOptions
from moving_object_detector.evaluation.results import (
    RunResult,
    SequenceResult,
    masks_per_second,
    read_stored,
    write_results,
)
from moving_object_detector.evaluation.sequence_pass import SequencePass
from moving_object_detector.evaluation.summary import RULES, sequence_scores, summarise, written

IDENTITY: Final = 'run.json'
SEQUENCES: Final = 'sequences'
_ANEW: Final = 'remove it, or give --overwrite to begin anew'


def claim_folder(folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make a folder that of a run, or check that it is; raises UserError where it holds another or a damaged one."""
    make_folder(folder / SEQUENCES)
    kept = list((folder / SEQUENCES).glob('*.json'))
    # A run that ended before its first sequence holds nothing to keep.
    if kept and not overwrite and (folder / IDENTITY).exists():
        before, now = dict(flatten(read_stored(dict, folder / IDENTITY, _ANEW))), dict(flatten(identity))
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise UserError(
                    f'{folder} holds a run in which {name} was {before.get(name)!r}, now it is {now.get(name)!r}; give '
                    'another --out, or --overwrite to begin anew'
                )
        return
    for path in kept:
        path.unlink()
    write_atomically(folder / IDENTITY, json.dumps(identity, indent=1).encode())


def _kept(clip: Clip, method: Method, options: EvaluateOptions, folder: Path) -> tuple[SequenceResult | None, str]:
    """Return the result of a clip that the run's folder holds, or None and why it is made anew."""
    path = folder / SEQUENCES / f'{clip.name}.json'
    if not path.exists():
        return None, ''
    try:
        before = read_stored(SequenceResult, path, _ANEW)
    except UserError as error:
        return None, f'{path.name} is damaged ({error}); scored anew'
    if set(before.variants) != set(method.variants):
        return None, f'{path.name} has other variants; scored anew'
    if before.footage != fingerprint((*clip.files, *method.files(clip))):
        return None, 'its frames or masks have changed since it was scored; scored anew'
    lacks = (options.video and not before.video) or (options.save_masks and not before.masks)
    return (None, 'scored anew for what is to be kept now') if lacks else (before, '')


def _line(result: SequenceResult, variant: str, protocol: str) -> str:
    scores, rate = sequence_scores(result, variant, protocol), masks_per_second([result])
    return f'{foreign(result.name):20s} J {written(scores.j_mean)}  F {written(scores.f_mean)}' + (
        '' if rate is None else f'  {rate:5.1f} frames/s'
    )


def _evaluate_clips(
    method: Method, clips: Sequence[Clip], protocol: str, options: EvaluateOptions, folder: Path
) -> tuple[list[SequenceResult], list[str]]:
    """Evaluate all clips but those that the folder has already; return results and what is wrong with the others."""
    results: list[SequenceResult] = []
    failures: list[str] = []
    done = {clip.name: _kept(clip, method, options, folder) for clip in clips}
    total = sum(clip.frame_count for clip in clips if done[clip.name][0] is None)
    with tqdm(total=total, unit='frame', dynamic_ncols=True, smoothing=0.05) as bar:
        for clip in clips:
            before, reason = done[clip.name]
            if before is not None:
                results.append(before)
                continue
            if reason:
                bar.write(f'{foreign(clip.name):20s} {reason}')
            bar.set_description(foreign(clip.name))
            try:
                result = SequencePass(clip, method, RULES[protocol], options, bar.update).run()
            except UserError as error:
                text = str(error)
                failures.append(text if text.startswith(f'{clip.name}:') else f'{clip.name}: {text}')
                bar.write(f'{foreign(clip.name):20s} left out: {error}')
                continue
            write_atomically(folder / SEQUENCES / f'{clip.name}.json', json.dumps(asdict(result)).encode())
            results.append(result)
            bar.write(_line(result, method.variants[-1], protocol))
            for problem in result.problems:
                bar.write(f'  {problem}')
    return results, failures


def _method(options: EvaluateOptions, settings: Sequence[str]) -> Method:
    """Return what is to be scored."""
    if options.method == 'masks':
        predictions = Path(options.predictions).expanduser() if options.predictions else None
        return GivenMasks(predictions, options.predicted_topic)
    if options.method != 'detector':
        return BASELINES[options.method]()
    config = load_config(DetectorConfig(), Path(options.config) if options.config else None, settings)
    return DetectorMethod(config, options.list_of('variants'))


def evaluate(options: EvaluateOptions, settings: Sequence[str], command: Sequence[str]) -> RunResult:
    """Evaluate what the options say, or resume it, and write ``results.json``.

    ``settings`` are options of the detector, as name=value. Raises UserError where an option or the data is wrong, the
    folder is in use or holds another run, or not one clip could be evaluated.
    """
    folder = Path(options.out).expanduser()
    clips, problems = open_clips(options)
    method = _method(options, settings)
    protocol = options.dataset if options.dataset in RULES else 'annotated'
    scoring = {'protocol': protocol, 'variants': method.variants}
    decided = {**options.identity(), **scoring, **method.identity}
    identity = json.loads(json.dumps(decided))
    details = {**provenance('evaluate', command), **method.details}
    make_folder(folder)
    with lock(folder / '.lock', f'the folder {folder}'):
        claim_folder(folder, identity, overwrite=options.overwrite)
        results, failures = _evaluate_clips(method, clips, protocol, options, folder)
        problems += failures
        if not results:
            raise UserError(f'nothing could be evaluated: {"; ".join(problems) or "there is no clip"}')
        run = RunResult(identity, details, tuple(results), tuple(problems))
        write_results(folder, run, summarise(run))
    return run
