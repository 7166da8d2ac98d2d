"""Score the detector, or a classical baseline, on an annotated data set, by its official rule."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moving_object_detector.errors import UserError
from moving_object_detector.tools.program import run_program

if TYPE_CHECKING:
    from moving_object_detector.datasets.sequence import Sequence as Clip
    from moving_object_detector.detection.result import Result
    from moving_object_detector.evaluation.baselines import Finding
    from moving_object_detector.evaluation.run import SequenceScore

SHEET_FRAMES = 8
"""Overlays of a sequence on its contact sheet."""


def _write_sheet(path: Path, pictures: Sequence[Result | Finding]) -> None:
    """Write evenly spread overlays of a sequence as one PNG, two rows of four."""
    import cv2
    import numpy as np

    from moving_object_detector.detection.overlay import draw_overlay

    tiles = []
    for number in np.linspace(0, len(pictures) - 1, SHEET_FRAMES).round().astype(int):
        result = pictures[number]
        picture = draw_overlay(result.image, result.mask, result.regions)
        width = 480
        tiles.append(cv2.resize(picture, (width, round(width * picture.shape[0] / picture.shape[1]))))
    half = SHEET_FRAMES // 2
    sheet = np.vstack([np.hstack(tiles[:half]), np.hstack(tiles[half:])])
    path.write_bytes(cv2.imencode('.png', cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _only(names: Sequence[str], sequences: list[Clip]) -> list[Clip]:
    """Return the sequences with these names, in their order; all where there are no names."""
    there = {sequence.name: sequence for sequence in sequences}
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(f'no sequence {", ".join(missing)} in the split; there are {", ".join(there)}')
    return [there[name] for name in names] or sequences


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='evaluate', description=__doc__)
    parser.add_argument('--dataset', choices=('davis2016',), default='davis2016', help='layout of the data')
    parser.add_argument('--root', type=Path, required=True, help='folder of the data set')
    parser.add_argument('--split', default='val', help='train, val or trainval, default %(default)s')
    parser.add_argument('--sequences', nargs='+', default=[], metavar='NAME', help='only these')
    parser.add_argument('--config', type=Path, help="the node's parameter file, such as config/cpu.yaml")
    parser.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE', help='options, such as window.past=3')
    parser.add_argument('--estimate', choices=('refined', 'zero_lag'), default='refined')
    parser.add_argument(
        '--baseline',
        choices=('homography',),
        help='in place of the detector; homography: the residual of DIS flow to a homography, above a threshold',
    )
    parser.add_argument('--out', type=Path, help='folder for results.json and a contact sheet of each sequence')
    return parser


def _method(arguments: argparse.Namespace) -> tuple[Callable[[Clip], Iterator[Result | Finding]], dict[str, Any]]:
    """Return what is to be scored, and what to say of it in the report."""
    if arguments.baseline:
        from moving_object_detector.evaluation.baselines import BASELINES

        if arguments.config or arguments.set or arguments.estimate != 'refined':
            raise UserError(f'the baseline {arguments.baseline} takes no --config, --set or --estimate; leave them out')
        return BASELINES[arguments.baseline], {'baseline': arguments.baseline}

    import dataclasses
    from functools import partial

    from moving_object_detector.config_file import load_config
    from moving_object_detector.detection.build import build_detector
    from moving_object_detector.detection.config import DetectorConfig
    from moving_object_detector.evaluation.run import detect_sequence

    config = load_config(DetectorConfig(), arguments.config, arguments.set)
    detector = build_detector(config)
    details = {
        'estimate': arguments.estimate,
        'engine': detector.engine.name,
        'flow': detector.flow.name,
        'configuration': dataclasses.asdict(config),
    }
    return partial(detect_sequence, detector, estimate=arguments.estimate), details


def _score(
    method: Callable[[Clip], Iterator[Result | Finding]], sequences: list[Clip], out: Path | None
) -> list[SequenceScore]:
    """Score a method on sequences, with a progress bar, and draw a contact sheet of each where there is a folder."""
    from tqdm import tqdm

    from moving_object_detector.evaluation.run import score_sequence

    scores = []
    with tqdm(total=sum(len(sequence.images) for sequence in sequences), unit='frame') as bar:
        for sequence in sequences:
            bar.set_description(sequence.name)
            pictures: list[Result | Finding] = []

            def seen(result: Result | Finding, kept: list[Result | Finding] = pictures) -> None:
                bar.update()
                if out:
                    kept.append(result)

            score = score_sequence(method, sequence, seen)
            scores.append(score)
            bar.write(f'{score.name:20s} J {score.mean:.3f}')
            if out and pictures:
                _write_sheet(out / f'{sequence.name}.png', pictures)
    return scores


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``evaluate``."""
    arguments = _parser().parse_args(argv)

    def body() -> int:
        from moving_object_detector.datasets.davis import read_davis

        sequences = _only(arguments.sequences, read_davis(arguments.root, arguments.split))
        method, details = _method(arguments)
        if arguments.out:
            try:
                arguments.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f'{arguments.out} cannot be made a folder: {error.strerror}') from error
        started = time.monotonic()
        scores = _score(method, sequences, arguments.out)
        seconds = time.monotonic() - started
        mean = sum(score.mean for score in scores) / len(scores)
        if arguments.out:
            found = {score.name: {'mean J': score.mean, 'frames': score.frames} for score in scores}
            report = {'mean J': mean, **details, 'sequences': found}
            (arguments.out / 'results.json').write_text(json.dumps(report, indent=1), encoding='utf-8')
        frames = sum(len(sequence.images) for sequence in sequences)
        sys.stdout.write(f'J {mean:.3f} frames {frames} fps {frames / seconds:.2f}\n')
        return 0

    return run_program(body)


if __name__ == '__main__':
    sys.exit(main())
