"""What an evaluation leaves behind: columns of numbers for each sequence, and what the run was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically

FORMAT: Final = 1
RESULTS: Final = 'results.json'

Column = tuple[float | None, ...]
"""A number for each frame of the sequence, in order; None where there is none."""


@dataclass(frozen=True)
class VariantColumns:
    """What one variant of a method's masks scored, frame by frame; all columns have one length.

    The first five are None where the frame has no annotation, ``area`` where the method said nothing.
    """

    j: Column
    """Jaccard index."""
    f: Column
    """Boundary measure."""
    objects: Column
    """Annotated objects."""
    found: Column
    """Annotated objects that the mask covers."""
    false: Column
    """Regions of the mask on no object."""
    area: Column
    """Share of the image in the mask."""


@dataclass(frozen=True)
class Picture:
    """A picture of one frame, in the run's folder."""

    file: str
    """Relative to the run's folder."""
    frame: int
    kind: str
    """``best``, ``worst`` or ``spread``."""


@dataclass(frozen=True)
class SequenceResult:
    """All that was measured on one sequence."""

    name: str
    frame_count: int
    size: tuple[int, int]
    """(height, width) of its images, pixels."""
    fps: float
    """Of the footage, frames per second."""
    seconds: float
    """That its evaluation took."""
    variants: Mapping[str, VariantColumns]
    signals: Mapping[str, Column] = field(default_factory=dict)
    """Signals of quality that need no annotation."""
    latency: tuple[float, ...] = ()
    """Milliseconds of computing, of each frame; live: from the image's message to the mask's."""
    dropped: int = 0
    """Frames of which the variant that counts said nothing; live: those that came too fast."""
    problems: tuple[str, ...] = ()
    """Sentences about what was wrong with the data."""
    pictures: tuple[Picture, ...] = ()
    video: str = ''
    """Relative to the run's folder; empty: none was asked for."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SequenceResult:
        """Make a result of what :func:`dataclasses.asdict` made of it, through JSON."""
        fields = dict(values)
        fields['size'] = tuple(fields['size'])
        fields['variants'] = {
            name: VariantColumns(**{key: tuple(column) for key, column in columns.items()})
            for name, columns in fields['variants'].items()
        }
        fields['signals'] = {name: tuple(column) for name, column in fields['signals'].items()}
        fields['latency'], fields['problems'] = tuple(fields['latency']), tuple(fields['problems'])
        fields['pictures'] = tuple(Picture(**picture) for picture in fields['pictures'])
        return cls(**fields)


@dataclass(frozen=True)
class RunResult:
    """A whole evaluation."""

    identity: Mapping[str, Any]
    """What decides the numbers: ``dataset``, ``root``, ``split``, ``protocol``, ``method``, ``variants``,
    ``configuration``, ``model`` (hash of the weights) and so on. A run is only gone on with under the same."""
    details: Mapping[str, Any]
    """What else is worth knowing: ``command``, ``versions``, ``revision``, ``machine``, ``started``, ``engine``."""
    sequences: tuple[SequenceResult, ...]
    problems: tuple[str, ...] = ()
    """Sentences about sequences that could not be evaluated at all."""

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants, the one that counts last."""
        return tuple(self.identity['variants'])

    @property
    def protocol(self) -> str:
        """The name of the rule by which frames and sequences are averaged."""
        return str(self.identity['protocol'])


def write_results(folder: Path, run: RunResult, summary: Mapping[str, Any]) -> None:
    """Write ``results.json``: the run and its summary, which is for readers and not read back.

    Raises:
        UserError: The file cannot be written.

    """
    text = json.dumps({'format': FORMAT, 'summary': summary, **asdict(run)}, indent=1)
    write_atomically(folder / RESULTS, text.encode())


def read_results(folder: Path) -> RunResult:
    """Read what :func:`write_results` wrote.

    Raises:
        UserError: There are no results in the folder, or not such.

    """
    path = folder / RESULTS if folder.is_dir() else folder
    try:
        values = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}; give the folder that evaluate wrote') from error
    except ValueError as error:
        raise UserError(f'{path}: not results of evaluate ({error}); run the evaluation again') from error
    if not isinstance(values, dict) or values.get('format') != FORMAT:
        raise UserError(f'{path}: not results of this version of evaluate; run the evaluation again')
    return RunResult(
        identity=values['identity'],
        details=values['details'],
        sequences=tuple(SequenceResult.from_json(item) for item in values['sequences']),
        problems=tuple(values['problems']),
    )
