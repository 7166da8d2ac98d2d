"""What is measured: groups of cases that are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal, NamedTuple

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import share_folder
from moving_object_detector.common.options import options_of, with_values
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.detection.config import DetectorConfig


class Variant(NamedTuple):
    """How a network is run: an engine of the detector's, or a name below."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f'{self.engine} {self.precision}'


REFERENCE: Final = Variant('torch', 'float32')
EAGER: Final = Variant('eager', 'float32')
"""The network as it is written, called on a whole batch."""
NAIVE: Final = Variant('naive', 'float32')
"""The detector without its ring, pair by pair; see ``tasks.py``."""


@dataclass(frozen=True)
class Group:
    """One thing to do, which several variants do in turns."""

    name: str
    kind: Literal['generator', 'pwcnet', 'frame']
    config: DetectorConfig
    seconds: float
    """After how long no more rounds are begun."""
    naive: bool = False
    """Whether the naive pipeline takes part."""

    @property
    def pairs(self) -> int:
        """How many pairs each frame brings."""
        return self.config.window.past + self.config.window.future

    def variants(self, engines: Sequence[Variant]) -> list[Variant]:
        """Return what is compared, slowest first as far as is known."""
        if self.kind == 'frame':
            return [*([NAIVE] if self.naive else []), *engines]
        # In int8 it is the generator alone that is quantised.
        return [EAGER, *(one for one in engines if self.kind == 'generator' or one.precision != 'int8')]


@dataclass(frozen=True)
class Case:
    """A group's task, done in one way."""

    group: Group
    variant: Variant

    @property
    def name(self) -> str:
        """Return for example ``paper/openvino-float32``; what ``--only`` chooses by."""
        return f'{self.group.name}/{self.variant.engine}-{self.variant.precision}'

    @property
    def config(self) -> DetectorConfig:
        """The group's configuration with this engine and precision."""
        if self.variant in (EAGER, NAIVE):
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
        own = setting(config)
        network = [] if own.flow.backend != 'pwcnet' else [Group('pwcnet', 'pwcnet', own, 20)]
        return [Group('generator', 'generator', own, 30), *network, Group(config.stem, 'frame', own, 60, naive=True)]
    cpu, gpus = (share_folder() / 'config' / f'{name}.yaml' for name in ('cpu', 'gpu'))
    if quick:
        small = ('flow.backend=pwcnet', 'flow.height=64', 'flow.width=128')
        return [
            Group('generator', 'generator', setting(cpu), 0),
            Group('pwcnet', 'pwcnet', setting(cpu, *small), 0),
            Group('cpu', 'frame', setting(cpu), 0, naive=True),
        ]
    five, one = (tuple(f'window.{side}={length}' for side in ('past', 'future')) for length in (5, 1))
    paper = ('height=192', 'width=384', 'refinement.method=crf')
    pwcnet = ('flow.backend=pwcnet', 'flow.height=192', 'flow.width=384')
    found = [
        Group('generator', 'generator', setting(None, *paper, *five), 30),
        Group('pwcnet', 'pwcnet', setting(None, *pwcnet, *one), 10),
        Group('cpu', 'frame', setting(cpu), 20, naive=True),
        Group('cpu-window-5', 'frame', setting(cpu, *five), 10),
        Group('paper-window-1', 'frame', setting(None, *paper, *one), 10),
        Group('paper', 'frame', setting(None, *paper, *five), 40, naive=True),
    ]
    if gpu:
        there = ('device=cuda', 'flow.backend=pwcnet')
        found += [
            Group('gpu-generator', 'generator', setting(gpus, *there, *paper), 10),
            Group('gpu-pwcnet', 'pwcnet', setting(gpus, *there), 10),
            Group('gpu-window-1', 'frame', setting(gpus, *there, *paper, *one), 10),
            Group('gpu', 'frame', setting(gpus, *there, *paper), 30, naive=True),
        ]
    return found


def chosen(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose name or group's name matches one of some shell patterns, all without patterns.

    Raises UserError where a pattern matches nothing.
    """

    def matches(case: Case, pattern: str) -> bool:
        return fnmatchcase(case.name, pattern) or fnmatchcase(case.group.name, pattern)

    for pattern in patterns:
        if not any(matches(case, pattern) for case in cases):
            raise UserError(f'--only {pattern} matches nothing; there are {", ".join(case.name for case in cases)}')
    return [case for case in cases if not patterns or any(matches(case, pattern) for pattern in patterns)]
