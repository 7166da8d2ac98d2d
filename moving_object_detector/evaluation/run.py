"""Evaluating a method on clips: one after another, each kept as soon as it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import default_inpainter, lock, make_folder, write_atomically
from moving_object_detector.common.options import flatten
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.common.program import provenance
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.evaluation.baselines import make_baseline
from moving_object_detector.evaluation.clips import Clip, fingerprint, open_clips
from moving_object_detector.evaluation.methods import DetectorMethod, GivenMasks, Method
from moving_object_detector.evaluation.options import ONLY, EvaluateOptions
from moving_object_detector.evaluation.results import RunResult, SequenceResult, read_json, write_results
from moving_object_detector.evaluation.sequence_pass import OutputOptions, SequencePass
from moving_object_detector.evaluation.signals import InpaintingScore, Signals
from moving_object_detector.evaluation.summary import PROTOCOLS, find_protocol, sequence_scores, summarise

INFORMATION_EVERY: Final = 5
"""Frames from one that the inpainter looks at to the next; each takes as long as a fifth of a frame's detection."""
IDENTITY: Final = 'run.json'
SEQUENCES: Final = 'sequences'
_APART: Final = ('out', 'overwrite', 'save_masks', 'video', 'sequences', 'variants', 'inpainter')
"""Options that decide no number of a sequence, or stand in the identity in another form."""
_ANEW: Final = 'remove it, or give --overwrite to begin anew'


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON gives back of values."""
    return dict(json.loads(json.dumps(values)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted names of what differs, with both values; None where one has no such name."""
    first, second = dict(flatten(_plain(one))), dict(flatten(_plain(other)))
    names = [*first, *(name for name in second if name not in first)]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def claim_folder(folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make a folder that of a run, or check that it is; raises UserError where it holds another or a damaged one."""
    make_folder(folder / SEQUENCES)
    before = None
    # A run that ended before its first sequence holds nothing to keep.
    if not overwrite and any((folder / SEQUENCES).glob('*.json')):
        with suppress(FileNotFoundError):
            before = read_json(folder / IDENTITY, _ANEW)
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


def _kept(clip: Clip, method: Method, output: OutputOptions) -> tuple[SequenceResult | None, str]:
    """Return the result of a clip that the run's folder holds, or None and why it is made anew."""
    path = output.folder / SEQUENCES / f'{clip.name}.json'
    try:
        before = SequenceResult.from_json(read_json(path, _ANEW))
    except FileNotFoundError:
        return None, ''
    except ValueError as error:  # a UserError is one
        return None, f'{path.name} is damaged ({error}); scored anew'
    if set(before.variants) != set(method.variants):
        return None, f'{path.name} has other variants; scored anew'
    if before.footage != fingerprint((*clip.files, *method.files(clip))):
        return None, 'its frames or masks have changed since it was scored; scored anew'
    return (None, 'scored anew for what is to be kept now') if output.lacks(before) else (before, '')


def _line(result: SequenceResult, protocol: str) -> str:
    scores = sequence_scores(result, list(result.variants)[-1], protocol)
    j, f = ('  -  ' if value is None else f'{value:.3f}' for value in (scores.j_mean, scores.f_mean))
    return f'{foreign(result.name):20s} J {j}  F {f}  {result.frame_count / max(result.seconds, 1e-9):5.1f} frames/s'


def evaluate_clips(
    method: Method,
    clips: Sequence[Clip],
    identity: Mapping[str, Any],
    details: Mapping[str, Any],
    signals: Signals,
    output: OutputOptions,
    problems: Sequence[str] = (),
) -> RunResult:
    """Evaluate all clips; those that the folder has already are read back, if their files have not changed.

    ``identity`` decides the numbers and has ``protocol``; ``problems`` are known already. Raises UserError where not
    one clip could be evaluated.
    """
    protocol = str(identity['protocol'])
    results: list[SequenceResult] = []
    failures = list(problems)
    done = {clip.name: _kept(clip, method, output) for clip in clips}
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
                result = SequencePass(clip, method, find_protocol(protocol), signals, output, bar.update).run()
            except UserError as error:
                text = str(error)
                failures.append(text if text.startswith(f'{clip.name}:') else f'{clip.name}: {text}')
                bar.write(f'{foreign(clip.name):20s} left out: {error}')
                continue
            write_atomically(output.folder / SEQUENCES / f'{clip.name}.json', json.dumps(asdict(result)).encode())
            results.append(result)
            bar.write(_line(result, protocol))
            for problem in result.problems:
                bar.write(f'  {problem}')
    if not results:
        raise UserError(f'nothing could be evaluated: {"; ".join(failures) or "there is no clip"}')
    return RunResult(_plain(identity), _plain(details), tuple(results), tuple(failures))


def _method(options: EvaluateOptions, config: str | None, settings: Sequence[str]) -> Method:
    """Return what is to be scored."""
    if options.method == 'masks':
        predictions = Path(options.predictions).expanduser() if options.predictions else None
        return GivenMasks(predictions, options.predicted_topic)
    if options.method != 'detector':
        return make_baseline(options.method)
    loaded = load_config(DetectorConfig(), Path(config) if config else None, settings)
    return DetectorMethod(loaded, options.list_of('variants'))


def evaluate(
    options: EvaluateOptions, config: str | None, settings: Sequence[str], command: Sequence[str]
) -> RunResult:
    """Evaluate what the options say, or resume it, and write ``results.json``.

    The detector's own options are in the file ``config`` and in ``settings``, as name=value. Raises UserError where an
    option or the data is wrong, or the folder is in use or holds another run.
    """
    out = Path(options.out).expanduser()
    clips, problems = open_clips(options)
    method = _method(options, config, settings)
    inpainting = None
    if options.inpainter != 'none' and options.method in ONLY['inpainter'][1]:
        default = options.inpainter == 'default'
        path = default_inpainter() if default else Path(options.inpainter).expanduser()
        inpainting = InpaintingScore(path, INFORMATION_EVERY)
    identity = {
        **{name: value for name, value in options.changed().items() if name not in _APART},
        'protocol': options.dataset if options.dataset in PROTOCOLS else 'annotated',
        'variants': list(method.variants),
        **method.identity,
        **(inpainting.identity if inpainting is not None else {}),
    }
    details = {**provenance('evaluate', command), **method.details}
    output = OutputOptions(out, masks=options.save_masks, video=options.video)
    make_folder(out)
    with lock(out / '.lock', f'the folder {out}'):
        claim_folder(out, identity, overwrite=options.overwrite)
        run = evaluate_clips(method, clips, identity, details, Signals(inpainting), output, problems)
        write_results(out, run, summarise(run))
    return run
