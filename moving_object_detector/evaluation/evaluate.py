"""Score masks on data sets by their official rules, on your own footage and on bags, with a report.

evaluate --dataset davis2016 --root FOLDER [--split val] [--out DIR]   data sets, folders, rendered scenes
evaluate --dataset bag --root BAG [--mask-topic TOPIC] [--live]        bags, offline or through the real node
evaluate compare A B [--out FILE.html]                                 two runs side by side
evaluate report DIR                                                    write the report of a run anew

Everything goes to --out: results.json, report.html, pictures. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.program import run_program
from moving_object_detector.tools.arguments import positive_float, positive_int

if TYPE_CHECKING:
    from moving_object_detector.evaluation.clips import EvaluationClip
    from moving_object_detector.evaluation.method import Method
    from moving_object_detector.evaluation.results import RunResult

_DATASETS = ('davis2016', 'segtrackv2', 'fbms59', 'folder', 'bag', 'rendered')
INFORMATION_EVERY = 5
"""Frames from one that the inpainter looks at to the next; each takes as long as a fifth of a frame's detection."""
_METHODS = ('detector', 'homography', 'mog2', 'everything', 'nothing')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='evaluate', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group('footage')
    data.add_argument('--dataset', choices=_DATASETS, default='davis2016', help='default: %(default)s')
    data.add_argument('--root', type=Path, metavar='PATH', help='of the data set, folder, video or bag')
    data.add_argument('--split', default='', help='of DAVIS 2016 (default: val) or FBMS-59 (default: test)')
    data.add_argument('--sequences', nargs='+', default=[], metavar='NAME', help='only these')
    data.add_argument('--masks', type=Path, metavar='DIR', help='folder: the truth, named as the frames')
    data.add_argument('--still', action='store_true', help='nothing moves in it: all masks are false alarms')
    data.add_argument('--fps', type=positive_float, help='of frames without times (default: 24)')
    data.add_argument('--topic', help='bag: the images, where it has several image topics')
    data.add_argument('--mask-topic', metavar='TOPIC', help='bag: masks as truth, matched by their stamps')
    data.add_argument('--scenes', type=positive_int, default=6, help='rendered: with moving objects (default: 6)')
    data.add_argument('--scene-frames', type=positive_int, default=40, help='rendered: of each (default: 40)')
    what = parser.add_argument_group('what is scored')
    what.add_argument('--method', choices=_METHODS, default='detector', help='or a baseline (default: %(default)s)')
    what.add_argument('--config', type=Path, metavar='FILE', help="the node's parameters, such as config/cpu.yaml")
    what.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE', help='options, such as window.past=3')
    what.add_argument(
        '--variants',
        nargs='+',
        default=[],
        metavar='NAME',
        help='zero_lag or refined, with +crf or +guided; the last one counts (default: zero_lag refined refined+crf)',
    )
    what.add_argument('--live', action='store_true', help='bag: played through the real node, so drops count')
    what.add_argument('--rate', type=positive_float, default=1.0, help='live: speed of playing (default: 1)')
    out = parser.add_argument_group('output')
    out.add_argument('--out', type=Path, default=Path('evaluation_output'), metavar='DIR', help='default: %(default)s')
    out.add_argument('--overwrite', action='store_true', help='begin anew where --out holds a run')
    out.add_argument('--save-masks', action='store_true', help='keep the masks that count as PNG')
    out.add_argument('--video', action='store_true', help='make an MP4 of each sequence')
    out.add_argument(
        '--inpainter', default='default', metavar='FILE', help="for the signal 'information'; none: do without"
    )
    return parser


def _subcommand(name: str, argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f'evaluate {name}')
    if name == 'compare':
        parser.description = 'Put two runs side by side.'
        parser.add_argument('a', type=Path, metavar='A', help='folder of a run')
        parser.add_argument('b', type=Path, metavar='B', help='folder of another run')
        parser.add_argument('--out', type=Path, metavar='FILE.html', help='page to write (default: text alone)')
    else:
        parser.description = 'Write the report of a run anew.'
        parser.add_argument('folder', type=Path, metavar='DIR', help='folder of a run')
    arguments = parser.parse_args(argv)

    def body() -> int:
        if name == 'compare':
            from moving_object_detector.evaluation.compare import compare_folders

            sys.stdout.write(compare_folders(arguments.a, arguments.b, arguments.out))
            return 0
        from moving_object_detector.evaluation.report import write_report
        from moving_object_detector.evaluation.results import read_results

        path = write_report(arguments.folder, read_results(arguments.folder))
        sys.stdout.write(f'{path}\n')
        return 0

    return run_program(body)


def _footage(arguments: argparse.Namespace) -> tuple[list[EvaluationClip], list[str]]:
    import dataclasses

    from moving_object_detector.evaluation.footage import Footage, open_footage

    clips, problems = open_footage(
        Footage(
            dataset=arguments.dataset,
            root=arguments.root,
            split=arguments.split,
            masks=arguments.masks,
            topic=arguments.topic,
            mask_topic=arguments.mask_topic,
            fps=arguments.fps,
            scenes=arguments.scenes,
            scene_frames=arguments.scene_frames,
        )
    )
    if arguments.still:
        clips = [dataclasses.replace(clip, still=True) for clip in clips]
    there = {clip.name: clip for clip in clips}
    missing = [name for name in arguments.sequences if name not in there]
    if missing:
        raise UserError(f'no sequence {", ".join(missing)} in the footage; there are {", ".join(there)}')
    return [there[name] for name in arguments.sequences] or clips, problems


def _method(arguments: argparse.Namespace) -> Method:
    """Return what is to be scored."""
    if arguments.method != 'detector':
        from moving_object_detector.evaluation.baselines import make_baseline

        if arguments.config or arguments.set or arguments.variants or arguments.live:
            raise UserError(f'{arguments.method} takes no --config, --set, --variants or --live; leave them out')
        return make_baseline(arguments.method)
    if arguments.live:
        from moving_object_detector.evaluation.live import LiveMethod

        if arguments.dataset != 'bag' or arguments.variants:
            raise UserError('--live plays a bag through the node: it takes --dataset bag, and no --variants')
        return LiveMethod(arguments.config, arguments.rate, arguments.out / 'live', settings=arguments.set)
    from moving_object_detector.common.parameter_files import load_config
    from moving_object_detector.detection.config import DetectorConfig
    from moving_object_detector.evaluation.detector_method import DetectorMethod

    return DetectorMethod(load_config(DetectorConfig(), arguments.config, arguments.set), arguments.variants)


def _identity(arguments: argparse.Namespace, method: Method) -> dict[str, Any]:
    from moving_object_detector.evaluation.footage import PROTOCOLS

    names = ['dataset', 'split', 'still', 'topic', 'mask_topic', 'fps']
    names += ['scenes', 'scene_frames'] if arguments.dataset == 'rendered' else []
    values = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    for name in ('root', 'masks'):
        if getattr(arguments, name) is not None:
            values[name] = str(getattr(arguments, name))
    return {
        **values,
        'protocol': PROTOCOLS.get(arguments.dataset, 'annotated'),
        'method': method.name,
        'variants': list(method.variants),
        **method.identity,
    }


def _evaluate(arguments: argparse.Namespace, argv: Sequence[str]) -> RunResult:
    from moving_object_detector.evaluation.provenance import provenance
    from moving_object_detector.evaluation.run import claim_folder, evaluate_clips
    from moving_object_detector.evaluation.sequence_pass import Keeping
    from moving_object_detector.evaluation.signals import Signals

    information = None
    if arguments.inpainter != 'none':
        from moving_object_detector.common.files import default_inpainter
        from moving_object_detector.evaluation.information import Information

        chosen = default_inpainter() if arguments.inpainter == 'default' else Path(arguments.inpainter).expanduser()
        information = Information(chosen, INFORMATION_EVERY)
    clips, problems = _footage(arguments)
    method = _method(arguments)
    identity = {**_identity(arguments, method), **(information.identity if information is not None else {})}
    claim_folder(arguments.out, identity, overwrite=arguments.overwrite)
    return evaluate_clips(
        method,
        clips,
        identity,
        {**provenance('evaluate', argv), **method.details},
        Signals(information),
        Keeping(arguments.out, masks=arguments.save_masks, video=arguments.video),
        problems,
    )


def last_line(run: RunResult) -> str:
    """Return the run in one line: J, F, frames, frames per second."""
    from moving_object_detector.evaluation.summary import run_scores

    scores = run_scores(run, run.variants[-1])
    frames = sum(sequence.frame_count for sequence in run.sequences)
    seconds = sum(sequence.seconds for sequence in run.sequences)
    j, f = ('-' if value is None else f'{value:.3f}' for value in (scores.j_mean, scores.f_mean))
    return f'J {j} F {f} frames {frames} fps {frames / max(seconds, 1e-9):.2f}'


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``evaluate``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in {'compare', 'report'}:
        return _subcommand(argv[0], argv[1:])
    arguments = _parser().parse_args(argv)

    def body() -> int:
        from moving_object_detector.evaluation.report import write_report
        from moving_object_detector.evaluation.results import write_results
        from moving_object_detector.evaluation.summary import summarise
        from moving_object_detector.evaluation.table import table

        run = _evaluate(arguments, argv)
        write_results(arguments.out, run, summarise(run))
        report = write_report(arguments.out, run)
        sys.stdout.write(f'{table(run)}\nreport: {report}\n{last_line(run)}\n')
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
