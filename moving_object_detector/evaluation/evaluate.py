"""Score masks by the rules of the data sets, and write a report.

evaluate --dataset davis2016 --root FOLDER                        the detector on a data set, a folder, rendered footage
evaluate --dataset bag --root BAG --mask-topic /truth             the detector on a recording, every frame
evaluate --dataset bag --root BAG --mask-topic /truth --predicted-topic /detect/mask    masks recorded from a live run
evaluate --dataset davis2016 --root FOLDER --predictions MASKS    masks of any method, MASKS/SEQUENCE/FRAME.png
evaluate compare A B                                              compare two runs
evaluate report DIR                                               write the report of a run again

Results go to --out: results.json, report.html, pictures. The same command resumes an interrupted run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign
from moving_object_detector.common.program import run_program
from moving_object_detector.evaluation.options import EvaluateOptions, add_flags, flag_of, given_options, read_flags

if TYPE_CHECKING:
    from moving_object_detector.evaluation.results import RunResult


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_flags(parser)
    commands = parser.add_subparsers(dest='command', metavar='compare | report')
    two = commands.add_parser('compare', help='compare two runs')
    two.add_argument('a', type=Path, metavar='A', help='folder of a run')
    two.add_argument('b', type=Path, metavar='B', help='folder of another run')
    again = commands.add_parser('report', help='write the report of a run again')
    again.add_argument('folder', type=Path, metavar='DIR', help='folder of a run')
    return parser


def _report(folder: Path, run: RunResult) -> None:
    # jinja2 and matplotlib are optional.
    from moving_object_detector.evaluation.report import write_report

    sys.stdout.write(f'report: {foreign(write_report(folder, run), LONGEST_MESSAGE)}\n')


def _run(arguments: argparse.Namespace, options: EvaluateOptions | None, given: Sequence[str]) -> None:
    # Imported late, so that --help does not wait for PyTorch and OpenCV.
    from moving_object_detector.evaluation.compare import compare_folders
    from moving_object_detector.evaluation.results import last_line, read_results, score_table
    from moving_object_detector.evaluation.run import evaluate

    missing = ' and '.join(name for name in ('jinja2', 'matplotlib') if find_spec(name) is None)
    lacking = f'{missing} not installed; python3 -m pip install jinja2 matplotlib' if missing else ''
    if arguments.command == 'compare':
        sys.stdout.write(compare_folders(arguments.a, arguments.b).text())
    elif options is None:
        if lacking:
            raise UserError(f'the report cannot be written: {lacking}')
        _report(arguments.folder, read_results(arguments.folder))
    else:
        if lacking:
            sys.stderr.write(f'warning: no report.html: {lacking}; then "evaluate report" writes it\n')
        run = evaluate(options, arguments.set, given)
        sys.stdout.write('\n'.join([*score_table(run).lines(), '']))
        if not lacking:
            _report(Path(options.out).expanduser(), run)
        problems = len(run.problems) + sum(len(sequence.problems) for sequence in run.sequences)
        if problems:
            dropped = sum(sequence.dropped for sequence in run.sequences)
            note = f'; {dropped} frames have no mask and count as empty' if dropped else ''
            sys.stderr.write(f'warning: {problems} problems, listed in results.json{note}\n')
        sys.stdout.write(f'{last_line(run)}\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``evaluate``."""
    given = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        arguments = _parser().parse_args(given)
        idle = list(map(flag_of, given_options(arguments)))
        if arguments.command and idle:
            raise UserError(f'{", ".join(idle)} before {arguments.command} has no effect; leave it out')
        _run(arguments, None if arguments.command else read_flags(arguments), given)
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
