"""What an evaluation leaves: columns of numbers for each sequence, what they come to by the data sets' rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import open_file, write_atomically
from moving_object_detector.evaluation.metrics import decay, mean, recall

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
    not known; of ``variants`` the last one counts; ``latency`` is in milliseconds, of each frame that has one;
    ``dropped`` counts frames without a mask; pictures are relative to the run's folder; ``footage`` is a digest of the
    files of footage, truth and predictions; ``groups`` are kinds of footage to score apart.
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
    sequences that could not be evaluated. Raises ValueError where a sequence lacks a variant, or of an
    unknown protocol or another format.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    sequences: tuple[SequenceResult, ...]
    problems: tuple[str, ...] = ()
    format: int = RESULTS_FORMAT

    def __post_init__(self) -> None:
        if self.format != RESULTS_FORMAT:
            raise ValueError('it is of another version of evaluate')
        if self.protocol not in RULES:
            raise ValueError(f'there is no protocol {self.protocol}')
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
    """Return what a JSON file holds; raises UserError with the remedy."""
    try:
        with open_file(path) as file:
            return cast('Stored', _restored(kind, json.load(file)))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}; {remedy}') from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged or incomplete ({error}); {remedy}') from error


def write_results(folder: Path, run: RunResult) -> None:
    """Write ``results.json``: the run and its summary, which is for readers and not read back; raises UserError."""
    write_atomically(folder / RESULTS, json.dumps({'summary': summarise(run), **asdict(run)}, indent=1).encode())


def read_results(folder: Path) -> RunResult:
    """Read what :func:`write_results` wrote; raises UserError where nothing is there or it is damaged."""
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.exists():
        raise UserError(f'{path} is not there; give the folder that evaluate wrote')
    return read_stored(RunResult, path, 'run the evaluation again')


# Scores --------------------------------------------------------------------------------------------------------------


class ScoringRule(NamedTuple):
    """How a data set is scored: a mean of the sequences' means, or of all frames; with or without a sequence's ends."""

    average: Literal['sequences', 'frames']
    ends: bool
    words: str

    def scored(self, index: int, frame_count: int, annotated: bool) -> bool:
        """Tell whether a frame is scored: its number in the sequence from 0, the sequence's length, and its truth."""
        return annotated and (self.ends or 0 < index < frame_count - 1)


_SEQUENCES: Final = 'mean of the means of the sequences'
RULES: Final = {
    'davis2016': ScoringRule('sequences', False, f'all frames but the first and last of each sequence; {_SEQUENCES}'),
    'segtrackv2': ScoringRule('frames', True, 'mean over all annotated frames of all sequences'),
    'fbms59': ScoringRule('frames', True, 'mean over the annotated frames of all sequences'),
    'annotated': ScoringRule('sequences', True, f'all annotated frames; {_SEQUENCES}'),
}
"""By the name of the data set; ``annotated`` is for all others."""


def _shown(heading: str, form: str) -> Any:
    return field(metadata={'heading': heading, 'form': form})


@dataclass(frozen=True)
class Scores:
    """Scores of one variant on some sequences; None where there is nothing to take them of.

    Of J and F: mean, recall (share of the frames over 0.5) and decay (by how much they fall from a sequence's first
    quarter to its last). In the frames scored: annotated objects, those that the mask covers, regions of the mask on no
    object. Of all masks: the share that is empty, the mean share of the image, and by which share of the larger one the
    areas of two masks in a row differ: the steadier, the better they mostly are. Of footage in which nothing moves: its
    seconds, and the uninterrupted runs of frames with something in the mask.
    """

    frames: int
    still_seconds: float
    false_alarms: int
    j_mean: float | None = _shown('J', '.3f')
    j_recall: float | None = _shown('recall', '.3f')
    j_decay: float | None = _shown('decay', '.3f')
    f_mean: float | None = _shown('F', '.3f')
    f_recall: float | None = _shown('recall', '.3f')
    f_decay: float | None = _shown('decay', '.3f')
    objects: int = _shown('objects', ',')
    found: int = _shown('found', ',')
    false_regions: int = _shown('false', ',')
    false_alarms_per_minute: float | None = _shown('alarms/min', '.1f')
    empty: float | None = _shown('empty', '.3f')
    area: float | None = _shown('area', '.4f')
    change: float | None = _shown('change', '.3f')


def known(values: Iterable[float | None]) -> list[float]:
    """Return the values that there are."""
    return [value for value in values if value is not None]


def area_change(area: Column) -> float | None:
    """Return by which share of the larger one the mask's areas of two frames in a row differ, on average.

    Frames without a mask, and pairs of empty ones, are passed over; None where nothing is left.
    """
    pairs = [(a, b) for a, b in pairwise(area) if a is not None and b is not None and max(a, b) > 0]
    return mean([abs(a - b) / max(a, b) for a, b in pairs])


def scores_of(sequences: Sequence[SequenceResult], variant: str, protocol: str) -> Scores:
    """Return the scores of a sequence or of several by a rule of :data:`RULES`.

    Means and recalls of J and F are taken over sequences or over all frames scored, as the rule has it; decay and
    ``change`` are always the mean of the sequences'. Counts and seconds are summed; ``empty`` and ``area`` are of all
    masks. Sequences of which no frame is scored are left out.
    """
    rule = RULES[protocol]
    each = [(item, item.variants[variant]) for item in sequences]
    # By column, for each sequence, what the frames scored have.
    scored: dict[str, list[list[float]]] = {name: [] for name in COLUMNS}
    still_seconds, false_alarms = 0.0, 0
    for item, columns in each:
        frames = [index for index, j in enumerate(columns.j) if rule.scored(index, item.frame_count, j is not None)]
        for name, parts in scored.items():
            cells = getattr(columns, name)
            parts.append(known(cells[index] for index in frames))
        objects = known(columns.objects)
        if objects and not any(objects):
            still_seconds += item.frame_count / item.fps
            false_alarms += sum(something for something, _ in groupby(share > 0 for share in known(columns.area)))
    pooled = {name: [cell for part in parts for cell in part] for name, parts in scored.items()}

    def averaged(name: str, of: Callable[[Sequence[float]], float | None]) -> float | None:
        if rule.average == 'frames' and of is not decay:
            return of(pooled[name])
        return mean(known(map(of, scored[name])))

    area = [share for _, columns in each for share in known(columns.area)]
    means = {'mean': mean, 'recall': recall, 'decay': decay}
    return Scores(
        frames=len(pooled['j']),
        **{f'{name}_{what}': averaged(name, of) for name in 'jf' for what, of in means.items()},
        objects=round(sum(pooled['objects'])),
        found=round(sum(pooled['found'])),
        false_regions=round(sum(pooled['false'])),
        empty=mean([float(not share) for share in area]),
        area=mean(area),
        change=mean(known(area_change(columns.area) for _, columns in each)),
        still_seconds=still_seconds,
        false_alarms=false_alarms,
        false_alarms_per_minute=60 * false_alarms / still_seconds if still_seconds else None,
    )


def grouped(run: RunResult) -> dict[str, list[SequenceResult]]:
    """Return the sequences of a run by kinds of footage (``motion slow``)."""
    parts: dict[str, list[SequenceResult]] = {}
    for item in run.sequences:
        for kind, value in item.groups.items():
            parts.setdefault(f'{kind} {value}', []).append(item)
    return parts


def summarise(run: RunResult) -> dict[str, Any]:
    """Return the scores of every variant as JSON can hold them: of the run, each sequence, and each kind of footage."""

    def plain(sequences: Sequence[SequenceResult], variant: str) -> dict[str, Any]:
        return asdict(scores_of(sequences, variant, run.protocol))

    variants = {
        variant: {
            'run': plain(run.sequences, variant),
            'sequences': {item.name: plain([item], variant) for item in run.sequences},
            'groups': {name: plain(part, variant) for name, part in grouped(run).items()},
        }
        for variant in run.variants
    }
    return {'protocol': run.protocol, 'variants': variants}


# Tables, for the terminal and the report -----------------------------------------------------------------------------

SCORE_COLUMNS: Final = tuple((*one.metadata.values(), one.name) for one in fields(Scores) if one.metadata)
"""What is shown of :class:`Scores`: heading, format, name."""


def written(value: float | str | None, form: str = '.3f') -> str:
    """Write a cell by its column's format; None is a dash."""
    if value is None:
        return '-'
    return foreign(value) if isinstance(value, str) else format(value, form)


class Table(NamedTuple):
    """Headings with the format of what is below, and rows of as many values; the first column is names."""

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[float | str | None]]

    def filled(self) -> Table:
        """Leave out columns in which there is no value."""
        kept = [place for place in range(len(self.heads)) if any(row[place] is not None for row in self.rows)]
        return Table([self.heads[place] for place in kept], [[row[place] for place in kept] for row in self.rows])

    def lines(self) -> list[str]:
        """Return the table as text: the first column to the left, the others to the right."""
        texts = [[written(value, form) for value, (_, form) in zip(row, self.heads, strict=True)] for row in self.rows]
        texts.insert(0, [head for head, _ in self.heads])
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in texts]


def score_cells(scores: Scores) -> list[float | None]:
    """Return what :data:`SCORE_COLUMNS` names; of footage without truth, only what the masks tell."""
    return [
        getattr(scores, name) if scores.frames or name in {'empty', 'area', 'change'} else None
        for *_, name in SCORE_COLUMNS
    ]


def score_table(run: RunResult) -> Table:
    """Return the scores of every variant of a run, the one that counts last; then those of its kinds of footage."""
    rows = [[name, *score_cells(scores_of(run.sequences, name, run.protocol))] for name in run.variants]
    rows += [[name, *score_cells(scores_of(part, run.counting, run.protocol))] for name, part in grouped(run).items()]
    return Table([('variant', ''), *((head, form) for head, form, _ in SCORE_COLUMNS)], rows).filled()


def last_line(run: RunResult) -> str:
    """Return the run in one line: J, F, frames, masks per second."""
    scores = scores_of(run.sequences, run.counting, run.protocol)
    frames = sum(item.frame_count for item in run.sequences)
    j, f, fps = written(scores.j_mean), written(scores.f_mean), written(masks_per_second(run.sequences), '.2f')
    return f'J {j} F {f} frames {frames} fps {fps}'
