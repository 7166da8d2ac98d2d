"""Score masks by the rules of the data sets, with a report.

evaluate --dataset davis2016 --root FOLDER                        the detector on a data set, a folder, rendered footage
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
from typing import Final

from moving_object_detector.common.errors import LONGEST_MESSAGE, UserError, foreign
from moving_object_detector.common.program import refuse_old, run_program
from moving_object_detector.evaluation.options import add_flags, given_options, read_flags

_LIVE: Final = (
    'play a bag through the node with "ros2 launch moving_object_detector evaluate.launch.py live:=true bag:=BAG", or '
    'record its masks yourself and score them with --predicted-topic'
)
_SET: Final = 'options of the detector are written --set name=value'
_RENAMED: Final = {'--topic': 'write --bag-topic', '--live': _LIVE, '--rate': _LIVE, '-p': _SET}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_flags(parser)
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


def _write_report(folder: Path) -> None:
    from moving_object_detector.evaluation.report import write_report
    from moving_object_detector.evaluation.results import read_results

    sys.stdout.write(f'report: {foreign(write_report(folder, read_results(folder)), LONGEST_MESSAGE)}\n')


def _compare(a: Path, b: Path, page: Path | None) -> None:
    from moving_object_detector.evaluation.compare import compare, text_table
    from moving_object_detector.evaluation.results import read_results

    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b)) if str(a) != str(b) else ('A', 'B')
    comparison = compare(read_results(a), read_results(b), names)
    if page is not None:
        from moving_object_detector.evaluation.report import write_comparison

        write_comparison(page, comparison, (a, b))
    sys.stdout.write(text_table(comparison))


def _run(arguments: argparse.Namespace, argv: Sequence[str], lacking: str) -> None:
    options = read_flags(arguments)
    if lacking:
        sys.stderr.write(f'warning: there will be no report.html: {lacking}; "evaluate report" writes it later\n')
    from moving_object_detector.evaluation.run import evaluate
    from moving_object_detector.evaluation.summary import last_line, table

    run = evaluate(options, arguments.config, arguments.set, argv)
    sys.stdout.write(f'{table(run)}\n')
    if not lacking:
        _write_report(Path(options.out).expanduser())
    problems = len(run.problems) + sum(len(sequence.problems) for sequence in run.sequences)
    missing = sum(sequence.dropped for sequence in run.sequences)
    if problems:
        said = f'; {missing} frames have no mask and count as empty' if missing else ''
        sys.stderr.write(f'warning: {problems} problems, listed in results.json{said}\n')
    sys.stdout.write(f'{last_line(run)}\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``evaluate``."""
    given = list(sys.argv[1:] if argv is None else argv)

    def body() -> int:
        refuse_old(given, "the detector's", _RENAMED)
        arguments = _parser().parse_args(given)
        lacking = _lacks_for_reports()
        if arguments.command is None:
            _run(arguments, given, lacking)
            return 0
        idle = given_options(arguments)
        if idle:
            raise UserError(f'{", ".join(idle)} before {arguments.command} has no effect; leave it out')
        if lacking and (arguments.command == 'report' or arguments.page is not None):
            raise UserError(f'no report can be written: {lacking}')
        if arguments.command == 'compare':
            _compare(arguments.a, arguments.b, arguments.page)
        else:
            _write_report(arguments.folder)
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
