"""Score masks by the rules of the data sets, with a report.

evaluate --dataset davis2016 --root FOLDER                        the detector on a data set, a folder, rendered scenes
evaluate --dataset bag --root BAG --mask-topic /truth             the detector on a recording, every frame
evaluate --dataset bag --root BAG --mask-topic /truth --predicted-topic /detect/mask    what was recorded of a live run
evaluate --dataset davis2016 --root FOLDER --predictions MASKS    masks of any method, MASKS/SEQUENCE/FRAME.png
evaluate compare A B [--out FILE.html]                            two runs side by side
evaluate report DIR                                               the report of a run anew

Everything goes to --out: results.json, report.html, pictures. An interrupted run is resumed where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign
from moving_object_detector.common.program import provenance, run_program
from moving_object_detector.evaluation.options import EvaluateOptions, add_flags, read_flags, refuse_old

if TYPE_CHECKING:
    from moving_object_detector.evaluation.methods import Method
    from moving_object_detector.evaluation.results import RunResult

INFORMATION_EVERY: Final = 5
"""Frames from one that the inpainter looks at to the next; each takes as long as a fifth of a frame's detection."""
_LIVE: Final = (
    'play a bag through the node with "ros2 launch moving_object_detector evaluate.launch.py live:=true bag:=BAG", or '
    'record its masks yourself and score them with --predicted-topic'
)
_RENAMED: Final = {
    '--topic': 'write --bag-topic',
    '--live': _LIVE,
    '--rate': _LIVE,
    '-p': 'options of the detector are written --set name=value',
}
_APART: Final = ('out', 'overwrite', 'save_masks', 'video', 'sequences', 'variants', 'inpainter')
"""Options that decide no number of a sequence, or stand in the identity in another form."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_flags(parser)
    parser.add_argument('--config', metavar='FILE', help="the detector's parameters, such as config/cpu.yaml")
    parser.add_argument(
        '--set', nargs='+', action='extend', default=[], metavar='NAME=VALUE', help='its options, such as window.past=3'
    )
    commands = parser.add_subparsers(dest='command', metavar='compare | report')
    two = commands.add_parser('compare', help='put two runs side by side')
    two.add_argument('a', type=Path, metavar='A', help='folder of a run')
    two.add_argument('b', type=Path, metavar='B', help='folder of another run')
    two.add_argument('--out', dest='page', type=Path, metavar='FILE.html', help='page to write (default: text alone)')
    again = commands.add_parser('report', help='write the report of a run anew')
    again.add_argument('folder', type=Path, metavar='DIR', help='folder of a run')
    return parser


def _lacks_for_reports() -> str:
    """Return what is missing to write a report, in words; empty: nothing."""
    missing = [name for name in ('jinja2', 'matplotlib') if find_spec(name) is None]
    return f'{" and ".join(missing)} not installed; python3 -m pip install {" ".join(missing)}' if missing else ''


def _compare(a: Path, b: Path, page: Path | None) -> int:
    from moving_object_detector.evaluation.compare import compare, text_table
    from moving_object_detector.evaluation.results import read_results

    if page is not None and (lacking := _lacks_for_reports()):
        raise UserError(f'no page can be written: {lacking}')
    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b)) if str(a) != str(b) else ('A', 'B')
    comparison = compare(read_results(a), read_results(b), names)
    if page is not None:
        from moving_object_detector.evaluation.report import write_comparison

        write_comparison(page, comparison, (a, b))
    sys.stdout.write(text_table(comparison))
    return 0


def _report(folder: Path) -> int:
    from moving_object_detector.evaluation.results import read_results

    if lacking := _lacks_for_reports():
        raise UserError(f'no report can be written: {lacking}')
    from moving_object_detector.evaluation.report import write_report

    sys.stdout.write(f'{foreign(write_report(folder, read_results(folder)), LONGEST_MESSAGE)}\n')
    return 0


def _method(options: EvaluateOptions, config: str | None, settings: Sequence[str]) -> Method:
    """Return what is to be scored."""
    if options.method == 'masks':
        from moving_object_detector.evaluation.methods import GivenMasks

        predictions = Path(options.predictions).expanduser() if options.predictions else None
        return GivenMasks(predictions, options.predicted_topic)
    if options.method != 'detector':
        from moving_object_detector.evaluation.baselines import make_baseline

        return make_baseline(options.method)
    from moving_object_detector.common.parameter_files import load_config
    from moving_object_detector.detection.config import DetectorConfig
    from moving_object_detector.evaluation.methods import DetectorMethod

    loaded = load_config(DetectorConfig(), Path(config) if config else None, settings)
    return DetectorMethod(loaded, options.list_of('variants'))


def _identity(options: EvaluateOptions, method: Method) -> dict[str, Any]:
    from moving_object_detector.common.options import options_of
    from moving_object_detector.evaluation.summary import PROTOCOLS

    given = {
        declared.name: getattr(options, declared.name)
        for declared in options_of(EvaluateOptions)
        if declared.name not in _APART
        and (getattr(options, declared.name) != declared.default or declared.name in {'dataset', 'method'})
    }
    return {
        **given,
        'protocol': options.dataset if options.dataset in PROTOCOLS else 'annotated',
        'variants': list(method.variants),
        **method.identity,
    }


def _evaluate(options: EvaluateOptions, config: str | None, settings: Sequence[str], argv: Sequence[str]) -> RunResult:
    from moving_object_detector.common.files import default_inpainter, lock, make_folder
    from moving_object_detector.evaluation.clips import open_clips
    from moving_object_detector.evaluation.options import ONLY
    from moving_object_detector.evaluation.run import claim_folder, evaluate_clips
    from moving_object_detector.evaluation.sequence_pass import OutputOptions
    from moving_object_detector.evaluation.signals import InpaintingScore, Signals

    out = Path(options.out).expanduser()
    make_folder(out)
    with lock(out / '.lock', f'the folder {out}'):
        clips, problems = open_clips(options)
        method = _method(options, config, settings)
        inpainting = None
        if options.inpainter != 'none' and options.method in ONLY['inpainter'][1]:
            default = options.inpainter == 'default'
            path = default_inpainter() if default else Path(options.inpainter).expanduser()
            inpainting = InpaintingScore(path, INFORMATION_EVERY)
        identity = {**_identity(options, method), **(inpainting.identity if inpainting is not None else {})}
        claim_folder(out, identity, overwrite=options.overwrite)
        return evaluate_clips(
            method,
            clips,
            identity,
            {**provenance('evaluate', argv), **method.details},
            Signals(inpainting),
            OutputOptions(out, masks=options.save_masks, video=options.video),
            problems,
        )


def last_line(run: RunResult) -> str:
    """Return the run in one line: J, F, frames, frames per second."""
    from moving_object_detector.evaluation.summary import run_scores, text_number

    scores = run_scores(run, run.variants[-1])
    frames = sum(sequence.frame_count for sequence in run.sequences)
    seconds = sum(sequence.seconds for sequence in run.sequences)
    rate = frames / max(seconds, 1e-9)
    return f'J {text_number(scores.j_mean)} F {text_number(scores.f_mean)} frames {frames} fps {rate:.2f}'


def _run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    config, settings = arguments.config, arguments.set
    options = read_flags(arguments)
    lacking = _lacks_for_reports()
    if lacking:
        sys.stderr.write(f'warning: there will be no report.html: {lacking}; "evaluate report" writes it later\n')
    run = _evaluate(options, config, settings, argv)
    from moving_object_detector.evaluation.results import write_results
    from moving_object_detector.evaluation.summary import summarise, table

    out = Path(options.out).expanduser()
    write_results(out, run, summarise(run))
    sys.stdout.write(f'{table(run)}\n')
    if not lacking:
        from moving_object_detector.evaluation.report import write_report

        sys.stdout.write(f'report: {foreign(write_report(out, run), LONGEST_MESSAGE)}\n')
    problems = len(run.problems) + sum(len(sequence.problems) for sequence in run.sequences)
    if problems:
        missing = sum(sequence.dropped for sequence in run.sequences)
        said = f'; {missing} frames have no mask and count as empty' if missing else ''
        sys.stderr.write(f'warning: {problems} problems, listed in the report and in results.json{said}\n')
    sys.stdout.write(f'{last_line(run)}\n')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``evaluate``."""
    given = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        refuse_old(given, _RENAMED)
        arguments = _parser().parse_args(given)
        if arguments.command == 'compare':
            return _compare(arguments.a, arguments.b, arguments.page)
        if arguments.command == 'report':
            return _report(arguments.folder)
        return _run(arguments, given)

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
