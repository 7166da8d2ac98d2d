"""What an evaluation leaves behind: columns of numbers for each sequence, and what the run was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import open_file, write_atomically

FORMAT: Final = 1
RESULTS: Final = 'results.json'

Column = tuple[float | None, ...]
"""A number for each frame of the sequence, in order; None where there is none."""


@dataclass(frozen=True)
class VariantColumns:
    """What one variant of a method's masks scored, frame by frame; all columns have one length.

    J, F, annotated objects, those that the mask covers, and regions of the mask on no object are None where the frame
    has no annotation; the mask's share of the image is None where the method said nothing.
    """

    j: Column
    f: Column
    objects: Column
    found: Column
    false: Column
    area: Column


COLUMNS: Final = tuple(column.name for column in fields(VariantColumns))


@dataclass(frozen=True)
class Picture:
    """A picture of one frame: its file in the run's folder, and whether it is ``best``, ``worst`` or ``spread``."""

    file: str
    frame: int
    kind: str


@dataclass(frozen=True)
class SequenceResult:
    """All that was measured on one sequence.

    ``size`` is (height, width), pixels; ``fps`` the footage's rate; ``seconds`` what the evaluation took; of
    ``variants`` the last one counts; ``signals`` need no annotation; ``latency`` is in milliseconds, of each frame that
    has one; ``dropped`` counts frames without a mask; ``video`` and pictures are relative to the run's folder;
    ``masks`` tells whether they were kept; ``footage`` is a digest of the files of footage, truth and predictions;
    ``groups`` are kinds of footage to score apart.
    """

    name: str
    frame_count: int
    size: tuple[int, int]
    fps: float
    seconds: float
    variants: Mapping[str, VariantColumns]
    signals: Mapping[str, Column] = field(default_factory=dict)
    latency: tuple[float, ...] = ()
    dropped: int = 0
    problems: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    video: str = ''
    masks: bool = False
    footage: str = ''
    groups: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SequenceResult:
        """Make a result of what :func:`dataclasses.asdict` made of it; raises ValueError where something is missing."""
        try:
            count = int(values['frame_count'])
            height, width = values['size']
            return cls(
                name=str(values['name']),
                frame_count=count,
                size=(int(height), int(width)),
                fps=float(values['fps']),
                seconds=float(values['seconds']),
                variants={
                    name: VariantColumns(**{column: _column(cells[column], count) for column in COLUMNS})
                    for name, cells in values['variants'].items()
                },
                signals={name: _column(cells, count) for name, cells in values['signals'].items()},
                latency=tuple(map(float, values['latency'])),
                dropped=int(values['dropped']),
                problems=tuple(map(str, values['problems'])),
                pictures=tuple(Picture(**picture) for picture in values['pictures']),
                video=str(values['video']),
                masks=bool(values.get('masks', False)),
                footage=str(values.get('footage', '')),
                groups=dict(values.get('groups', {})),
            )
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f'incomplete: {error}') from error


def _column(cells: Sequence[Any], count: int) -> Column:
    if len(cells) != count:
        raise ValueError(f'a column of {len(cells)} cells for {count} frames')
    return tuple(None if cell is None else float(cell) for cell in cells)


@dataclass(frozen=True)
class RunResult:
    """A whole evaluation; a run is resumed only if ``identity``, which decides the numbers, is unchanged.

    ``details`` are what else is worth knowing (command, versions, machine, engine), ``problems`` sentences about
    sequences that could not be evaluated.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    sequences: tuple[SequenceResult, ...]
    problems: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, the one that counts last."""
        return tuple(self.identity['variants'])

    @property
    def protocol(self) -> str:
        """The name of the rule by which frames and sequences are averaged."""
        return str(self.identity['protocol'])


def write_results(folder: Path, run: RunResult, summary: Mapping[str, Any]) -> None:
    """Write ``results.json``: the run and its summary, which is for readers and not read back; raises UserError."""
    text = json.dumps({'format': FORMAT, 'summary': summary, **asdict(run)}, indent=1)
    write_atomically(folder / RESULTS, text.encode())


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Return the object that a JSON file holds; raises FileNotFoundError, or UserError with the remedy."""
    try:
        with open_file(path) as file:
            values = json.loads(file.read())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}; {remedy}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged ({error}); {remedy}') from error
    if not isinstance(values, dict):
        raise UserError(f'{path} is damaged (it holds no object); {remedy}')
    return values


def read_results(folder: Path) -> RunResult:
    """Read what :func:`write_results` wrote; raises UserError where nothing is there or it is damaged."""
    path = folder / RESULTS if folder.is_dir() else folder
    remedy = 'run the evaluation again'
    try:
        values = read_json(path, remedy)
    except FileNotFoundError as error:
        raise UserError(f'{path} is not there; give the folder that evaluate wrote') from error
    if values.get('format') != FORMAT:
        raise UserError(f'{path}: not results of this version of evaluate; {remedy}')
    try:
        run = RunResult(
            identity=dict(values['identity']),
            details=dict(values['details']),
            sequences=tuple(SequenceResult.from_json(item) for item in values['sequences']),
            problems=tuple(map(str, values['problems'])),
        )
        if not run.variants or any(set(run.variants) - set(item.variants) for item in run.sequences):
            raise ValueError('a sequence lacks a variant')
        run.protocol  # noqa: B018
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f'{path} is damaged or incomplete ({error}); {remedy}') from error
    return run
