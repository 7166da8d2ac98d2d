"""What is measured: settings of the detector, each by several engines that are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import share_folder
from moving_object_detector.common.options import options_of, with_values
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.config import DetectorConfig


class Variant(NamedTuple):
    """What runs the networks: an engine of the detector's, or the pipeline below."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f'{self.engine} {self.precision}'


REFERENCE: Final = Variant('torch', 'float32')
NAIVE: Final = Variant('naive', 'float32')
"""The detector without its ring, pair by pair; see ``tasks.py``."""


@dataclass(frozen=True)
class Group:
    """A setting of the detector, in which several variants compute the same masks in turns."""

    name: str
    config: DetectorConfig
    seconds: float
    """After how long no more rounds are begun."""
    naive: bool = False
    """Whether the naive pipeline takes part."""

    def cases(self) -> list[Case]:
        """Return what is compared, the naive pipeline first."""
        return [Case(self, variant) for variant in (*([NAIVE] if self.naive else []), *all_variants())]


@dataclass(frozen=True)
class Case:
    """A group's setting, run in one way."""

    group: Group
    variant: Variant

    @property
    def name(self) -> str:
        """Return for example ``paper/openvino-float32``; what ``--only`` chooses by."""
        return f'{self.group.name}/{self.variant.engine}-{self.variant.precision}'

    @property
    def config(self) -> DetectorConfig:
        """The group's configuration with this engine and precision."""
        if self.variant == NAIVE:
            return self.group.config
        return with_values(self.group.config, self.variant._asdict())


def all_variants() -> list[Variant]:
    """Return every engine with every precision that the detector's options name; some run nowhere, some not here."""
    choices = {declared.name: declared.choices for declared in options_of(DetectorConfig)}
    pairs = [Variant(engine, precision) for engine in choices['engine'] for precision in choices['precision']]
    return [variant for variant in pairs if 'auto' not in variant]


def groups(config: Path | None, assignments: Sequence[str], *, gpu: bool, quick: bool) -> list[Group]:
    """Return what is measured: the built-in settings, or those of a parameter file; raises UserError.

    ``assignments`` (``name=value``) are put into every setting; ``quick`` is a few seconds of the smallest.
    """

    def setting(path: Path | None, *values: str) -> DetectorConfig:
        return load_config(DetectorConfig(), path, [*values, *assignments])

    if config:
        return [Group(config.stem, setting(config), 60, naive=True)]
    cpu, gpus = (share_folder() / 'config' / f'{name}.yaml' for name in ('cpu', 'gpu'))
    if quick:
        return [Group('cpu', setting(cpu), 0, naive=True)]
    five, one = (tuple(f'window.{side}={length}' for side in ('past', 'future')) for length in (5, 1))
    paper = ('height=192', 'width=384', 'refinement.method=crf')
    found = [
        Group('cpu', setting(cpu), 20, naive=True),
        Group('cpu-window-5', setting(cpu, *five), 10),
        Group('paper-window-1', setting(None, *paper, *one), 10),
        Group('paper', setting(None, *paper, *five), 40, naive=True),
    ]
    if gpu:
        found += [
            Group('gpu-window-1', setting(gpus, 'device=cuda', *paper, *one), 10),
            Group('gpu', setting(gpus, 'device=cuda', *paper), 30, naive=True),
        ]
    return found


def chosen(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose name or group's name matches a shell pattern; UserError where one matches nothing."""

    def matches(case: Case, pattern: str) -> bool:
        return fnmatchcase(case.name, pattern) or fnmatchcase(case.group.name, pattern)

    for pattern in patterns:
        if not any(matches(case, pattern) for case in cases):
            raise UserError(f'--only {pattern} matches nothing; there are {", ".join(case.name for case in cases)}')
    return [case for case in cases if not patterns or any(matches(case, pattern) for pattern in patterns)]
