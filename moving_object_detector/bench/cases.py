"""The cases of the benchmark: settings of the detector, each with all engines to compare."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import share_folder
from moving_object_detector.common.options import options_of, with_values
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.config import DetectorConfig


class Variant(NamedTuple):
    """What runs the networks: an engine of the detector, or :data:`NAIVE`."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f'{self.engine} {self.precision}'


REFERENCE: Final = Variant('torch', 'float32')
NAIVE: Final = Variant('naive', 'float32')
"""The detector without its ring buffer, pair by pair; see ``tasks.py``."""


class Case(NamedTuple):
    """A setting of the detector with one variant; the cases of a group compute the same masks and take turns."""

    group: str
    variant: Variant
    config: DetectorConfig
    """The detector's options, with the variant's engine and precision."""
    seconds: float
    """Time after which the group starts no more rounds."""

    @property
    def name(self) -> str:
        """Return the name that ``--only`` matches, such as ``paper/openvino-float32``."""
        return f'{self.group}/{self.variant.engine}-{self.variant.precision}'


def all_variants() -> list[Variant]:
    """Return every engine with every precision of the detector's options, including unsupported combinations."""
    choices = {declared.name: declared.choices for declared in options_of(DetectorConfig)}
    pairs = [Variant(engine, precision) for engine in choices['engine'] for precision in choices['precision']]
    return [variant for variant in pairs if 'auto' not in variant]


def all_cases(config: Path | None, assignments: Sequence[str], *, gpu: bool, quick: bool) -> list[Case]:
    """Return the cases of the built-in settings, or those of a parameter file; raises UserError.

    ``assignments`` (``name=value``) apply to every setting; ``quick`` selects the smallest setting for a few seconds.
    """

    def group(name: str, seconds: float, path: Path | None, *values: str, naive: bool = False) -> list[Case]:
        setting = load_config(DetectorConfig(), path, [*values, *assignments])
        found = [Case(name, one, with_values(setting, one._asdict()), seconds) for one in all_variants()]
        return [Case(name, NAIVE, setting, seconds), *found] if naive else found

    if config:
        return group(config.stem, 60, config, naive=True)
    cpu, gpus = (share_folder() / 'config' / f'{name}.yaml' for name in ('cpu', 'gpu'))
    if quick:
        return group('cpu', 0, cpu, naive=True)
    five, one = (tuple(f'window.{side}={length}' for side in ('past', 'future')) for length in (5, 1))
    paper = ('height=192', 'width=384', 'refinement.method=crf')
    found = [
        *group('cpu', 20, cpu, naive=True),
        *group('cpu-window-5', 10, cpu, *five),
        *group('paper-window-1', 10, None, *paper, *one),
        *group('paper', 40, None, *paper, *five, naive=True),
    ]
    if gpu:
        found += group('gpu-window-1', 10, gpus, 'device=cuda', *paper, *one)
        found += group('gpu', 30, gpus, 'device=cuda', *paper, naive=True)
    return found


def chosen(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose name or group matches a shell pattern; raises UserError if a pattern matches nothing."""
    wanted = set() if patterns else set(cases)
    for pattern in patterns:
        found = {case for case in cases if fnmatchcase(case.name, pattern) or fnmatchcase(case.group, pattern)}
        if not found:
            raise UserError(f'--only {pattern} matches nothing; there are {", ".join(case.name for case in cases)}')
        wanted |= found
    return [case for case in cases if case in wanted]
