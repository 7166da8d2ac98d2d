"""What an evaluation leaves behind: columns of numbers for each sequence, and what the run was."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import open_file, write_atomically

RESULTS_FORMAT: Final = 1
RESULTS: Final = 'results.json'

Column = tuple[float | None, ...]
"""A number for each frame of the sequence, in order; None where there is none."""
Stored = TypeVar('Stored')


@dataclass(frozen=True)
class VariantColumns:
    """What one variant of a method's masks scored, frame by frame.

    The mask's share of the image is None where the method said nothing, all else where the frame has no annotation:
    J, F, objects, those that the mask covers, regions of the mask on no object.
    """

    j: Column
    f: Column
    objects: Column
    found: Column
    false: Column
    area: Column


COLUMNS: Final = tuple(column.name for column in fields(VariantColumns))


@dataclass(frozen=True)
class KeptFrame:
    """A picture of one frame: its file in the run's folder, and whether it is ``best``, ``worst`` or ``spread``."""

    file: str
    frame: int
    kind: str


@dataclass(frozen=True)
class SequenceResult:
    """All that was measured on one sequence; raises ValueError where a column has not one cell for each frame.

    ``size`` is (height, width), pixels; ``fps`` the footage's rate; ``seconds`` what the masks took, 0 where that is
    not known; of ``variants`` the last one counts; ``latency`` is in milliseconds, of
    each frame that has one; ``dropped`` counts frames without a mask; ``video`` and pictures are relative to the run's
    folder; ``footage`` is a digest of the files of footage, truth and predictions; ``groups`` are kinds of footage to
    score apart.
    """

    name: str
    frame_count: int
    size: tuple[int, int]
    fps: float
    seconds: float
    variants: Mapping[str, VariantColumns]
    latency: tuple[float, ...] = ()
    dropped: int = 0
    problems: tuple[str, ...] = ()
    pictures: tuple[KeptFrame, ...] = ()
    video: str = ''
    masks: bool = False
    footage: str = ''
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = [getattr(variant, name) for variant in self.variants.values() for name in COLUMNS]
        wrong = [len(column) for column in columns if len(column) != self.frame_count]
        if wrong:
            raise ValueError(f'a column of {wrong[0]} cells for {self.frame_count} frames')


@dataclass(frozen=True)
class RunResult:
    """A whole evaluation; a run is resumed only if ``identity``, which decides the numbers, is unchanged.

    ``details`` are what else is worth knowing (command, versions, machine, engine), ``problems`` sentences about
    sequences that could not be evaluated. Raises ValueError where a sequence lacks a variant, or of another format.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    sequences: tuple[SequenceResult, ...]
    problems: tuple[str, ...] = ()
    format: int = RESULTS_FORMAT

    def __post_init__(self) -> None:
        if self.format != RESULTS_FORMAT:
            raise ValueError('it is of another version of evaluate')
        if not self.variants or any(set(self.variants) - set(item.variants) for item in self.sequences):
            raise ValueError('a sequence lacks a variant')

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, the one that counts last."""
        return tuple(self.identity['variants'])

    @property
    def counting(self) -> str:
        """The variant that counts."""
        return self.variants[-1]

    @property
    def protocol(self) -> str:
        """The name of the rule by which frames and sequences are averaged."""
        return str(self.identity['protocol'])


def masks_per_second(sequences: Iterable[SequenceResult]) -> float | None:
    """Return how fast masks came; None where that is not known."""
    timed = [item for item in sequences if item.seconds > 0]
    masks = sum(item.frame_count - item.dropped for item in timed)
    return masks / sum(item.seconds for item in timed) if timed else None


def _restored(kind: Any, value: Any) -> Any:
    """Return what :func:`dataclasses.asdict` and JSON made this of."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _restored(hint, value[name]) for name, hint in hints.items() if name in value})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ValueError(f'{len(value)} values where {len(inner)} are needed')
        return tuple(_restored(inner[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {str(name): _restored(inner[1], item) for name, item in value.items()}
    if kind is Any:
        return value
    if type(None) in inner:
        return None if value is None else float(value)
    return kind(value)


def read_stored(kind: type[Stored], path: Path, remedy: str) -> Stored:
    """Return what a JSON file holds; raises FileNotFoundError, or UserError with the remedy."""
    try:
        with open_file(path) as file:
            return cast('Stored', _restored(kind, json.load(file)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}; {remedy}') from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged or incomplete ({error}); {remedy}') from error


def write_results(folder: Path, run: RunResult, summary: Mapping[str, Any]) -> None:
    """Write ``results.json``: the run and its summary, which is for readers and not read back; raises UserError."""
    write_atomically(folder / RESULTS, json.dumps({'summary': summary, **asdict(run)}, indent=1).encode())


def read_results(folder: Path) -> RunResult:
    """Read what :func:`write_results` wrote; raises UserError where nothing is there or it is damaged."""
    path = folder / RESULTS if folder.is_dir() else folder
    try:
        return read_stored(RunResult, path, 'run the evaluation again')
    except FileNotFoundError as error:
        raise UserError(f'{path} is not there; give the folder that evaluate wrote') from error
