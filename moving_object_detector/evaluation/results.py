"""Results of an evaluation: per-frame columns for each sequence, and the scores by the rules of the data sets."""

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
"""A value for each frame of the sequence, in order; None if missing."""
Stored = TypeVar('Stored')


@dataclass(frozen=True)
class VariantColumns:
    """Per-frame results of one variant of the masks.

    J, F, the numbers of annotated objects, of found objects and of false regions, all None without an annotation; and
    the mask's share of the image, None without a mask.
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
    """A picture of one frame: its file relative to the run's folder, and ``best``, ``worst`` or ``spread``."""

    file: str
    frame: int
    kind: str


@dataclass(frozen=True)
class SequenceResult:
    """All measurements on one sequence; raises ValueError if a column does not have a cell per frame.

    ``size`` is (height, width), pixels; ``fps`` the footage's rate; ``seconds`` the time the masks took, 0 if unknown;
    the last of ``variants`` is the scored one; ``latency`` is in milliseconds, for frames that have one; ``dropped`` is
    the number of frames without a mask; ``masks`` says whether masks were saved; ``footage`` is a digest of the files
    of footage, truth and predictions; ``groups`` are kinds of footage with scores of their own; ``made_by`` is the
    revision and machine of the run.
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
    made_by: str = ''

    def __post_init__(self) -> None:
        columns = [getattr(variant, name) for variant in self.variants.values() for name in COLUMNS]
        wrong = [len(column) for column in columns if len(column) != self.frame_count]
        if wrong:
            raise ValueError(f'a column has {wrong[0]} cells for {self.frame_count} frames')


@dataclass(frozen=True)
class RunResult:
    """A whole evaluation.

    ``identity`` is everything that affects the scores; a run is resumed only if it is unchanged. ``details`` are other
    facts (command, versions, machine, engine), ``problems`` are about sequences that could not be evaluated. Raises
    ValueError for another format, an unknown protocol, or a sequence that lacks a variant.
    """

    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    sequences: tuple[SequenceResult, ...]
    problems: tuple[str, ...] = ()
    format: int = RESULTS_FORMAT

    def __post_init__(self) -> None:
        if self.format != RESULTS_FORMAT:
            raise ValueError('it was written by another version of evaluate')
        if self.protocol not in RULES:
            raise ValueError(f'there is no protocol {self.protocol}')
        if not self.variants or any(set(self.variants) - set(item.variants) for item in self.sequences):
            raise ValueError('a sequence lacks a variant')

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants; the last one is scored."""
        return tuple(self.identity['variants'])

    @property
    def counting(self) -> str:
        """The scored variant."""
        return self.variants[-1]

    @property
    def protocol(self) -> str:
        """The name of the scoring rule."""
        return str(self.identity['protocol'])


def masks_per_second(sequences: Iterable[SequenceResult]) -> float | None:
    """Return the rate of masks; None if unknown."""
    timed = [item for item in sequences if item.seconds > 0]
    masks = sum(item.frame_count - item.dropped for item in timed)
    return masks / sum(item.seconds for item in timed) if timed else None


def _restored(kind: Any, value: Any) -> Any:
    """Invert :func:`dataclasses.asdict` after a round trip through JSON."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _restored(hint, value[name]) for name, hint in hints.items() if name in value})
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        if inner[-1] is not Ellipsis and len(inner) != len(value):
            raise ValueError(f'{len(value)} values instead of {len(inner)}')
        return tuple(_restored(inner[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {str(name): _restored(inner[1], item) for name, item in value.items()}
    if kind is Any:
        return value
    if type(None) in inner:
        return None if value is None else float(value)
    return kind(value)


def read_stored(kind: type[Stored], path: Path, remedy: str) -> Stored:
    """Read a dataclass from a JSON file; raises UserError with the remedy."""
    try:
        with open_file(path) as file:
            return cast('Stored', _restored(kind, json.load(file)))
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}; {remedy}') from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged or incomplete ({error}); {remedy}') from error


def write_results(folder: Path, run: RunResult) -> None:
    """Write ``results.json``: the run, and its summary for readers, which is not read back; raises UserError."""
    write_atomically(folder / RESULTS, json.dumps({'summary': summarise(run), **asdict(run)}, indent=1).encode())


def read_results(folder: Path) -> RunResult:
    """Read the file of :func:`write_results`; raises UserError if it is missing or damaged."""
    path = folder / RESULTS if folder.is_dir() else folder
    if not path.exists():
        raise UserError(f'{path} is not there; give the folder that evaluate wrote')
    return read_stored(RunResult, path, 'run the evaluation again')


# Scores --------------------------------------------------------------------------------------------------------------


class ScoringRule(NamedTuple):
    """A scoring rule: a mean over the sequences' means or over all frames, with or without a sequence's end frames."""

    average: Literal['sequences', 'frames']
    ends: bool
    words: str

    def scored(self, index: int, frame_count: int, annotated: bool) -> bool:
        """Tell whether a frame is scored, from its number, the sequence's length, and whether it is annotated."""
        return annotated and (self.ends or 0 < index < frame_count - 1)


_SEQUENCES: Final = 'mean of the means of the sequences'
RULES: Final = {
    'davis2016': ScoringRule('sequences', False, f'all frames but the first and last of each sequence; {_SEQUENCES}'),
    'segtrackv2': ScoringRule('frames', True, 'mean over all annotated frames of all sequences'),
    'fbms59': ScoringRule('frames', True, 'mean over the annotated frames of all sequences'),
    'annotated': ScoringRule('sequences', True, f'all annotated frames; {_SEQUENCES}'),
}
"""Rules by name of the data set; ``annotated`` is that of all others."""


def _shown(heading: str, form: str) -> Any:
    return field(metadata={'heading': heading, 'form': form})


@dataclass(frozen=True)
class Scores:
    """Scores of one variant on some sequences; None if undefined.

    Of J and F: mean, recall (share of frames over 0.5) and decay (mean of a sequence's first quarter minus that of its
    last). In scored frames: annotated objects, found objects, false regions. Of all masks: the share of empty ones, the
    mean area as a share of the image, and the mean change of area between consecutive masks, relative to the larger
    one, as a measure of steadiness. Of footage without moving objects: its seconds, and false alarms, which are
    uninterrupted runs of frames with a mask that is not empty.
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
    """Return the values that are not None."""
    return [value for value in values if value is not None]


def area_change(area: Column) -> float | None:
    """Return the mean change of the mask's area between consecutive frames, relative to the larger area.

    Frames without a mask and pairs of empty masks are skipped; None if nothing is left.
    """
    pairs = [(a, b) for a, b in pairwise(area) if a is not None and b is not None and max(a, b) > 0]
    return mean([abs(a - b) / max(a, b) for a, b in pairs])


def _shows(j: float | None, area: float | None, objects: float | None) -> bool:
    """Tell from a frame's values whether its annotation has an object, maybe too small to be counted.

    Where it is empty, J is 1 for an empty mask and 0 for any other.
    """
    return bool(objects) or (j is not None and area is not None and j != float(not area))


def scores_of(sequences: Sequence[SequenceResult], variant: str, protocol: str) -> Scores:
    """Return the scores of one or more sequences by a rule of :data:`RULES`.

    Means and recalls of J and F are over sequences or over all scored frames, depending on the rule; decay and
    ``change`` are means over sequences. Counts and seconds are summed; ``empty`` and ``area`` are means over all masks.
    Sequences without a scored frame do not enter J and F.
    """
    rule = RULES[protocol]
    each = [(item, item.variants[variant]) for item in sequences]
    # For each column, the values of scored frames by sequence.
    scored: dict[str, list[list[float]]] = {name: [] for name in COLUMNS}
    still_seconds, false_alarms = 0.0, 0
    for item, columns in each:
        frames = [index for index, j in enumerate(columns.j) if rule.scored(index, item.frame_count, j is not None)]
        for name, parts in scored.items():
            cells = getattr(columns, name)
            parts.append(known(cells[index] for index in frames))
        objects = known(columns.objects)
        if objects and not any(map(_shows, columns.j, columns.area, columns.objects)):
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
    """Return the sequences of a run by kind of footage, such as ``motion slow``."""
    parts: dict[str, list[SequenceResult]] = {}
    for item in run.sequences:
        for kind, value in item.groups.items():
            parts.setdefault(f'{kind} {value}', []).append(item)
    return parts


def summarise(run: RunResult) -> dict[str, Any]:
    """Return the scores of every variant for the run, each sequence and each kind of footage, ready for JSON."""

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
"""Shown fields of :class:`Scores`: heading, format, name."""


def written(value: float | str | None, form: str = '.3f') -> str:
    """Format a cell; None is a dash."""
    if value is None:
        return '-'
    return foreign(value) if isinstance(value, str) else format(value, form)


class Table(NamedTuple):
    """A table: headings with the format of their column, and rows; the first column holds names."""

    heads: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[float | str | None]]

    def filled(self) -> Table:
        """Return the table without empty columns."""
        kept = [place for place in range(len(self.heads)) if any(row[place] is not None for row in self.rows)]
        return Table([self.heads[place] for place in kept], [[row[place] for place in kept] for row in self.rows])

    def lines(self) -> list[str]:
        """Return the table as text, the first column aligned left, the others right."""
        texts = [[written(value, form) for value, (_, form) in zip(row, self.heads, strict=True)] for row in self.rows]
        texts.insert(0, [head for head, _ in self.heads])
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return ['  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in texts]


def score_cells(scores: Scores) -> list[float | None]:
    """Return the cells of :data:`SCORE_COLUMNS`; without truth only those that the masks alone define."""
    return [
        getattr(scores, name) if scores.frames or name in {'empty', 'area', 'change'} else None
        for *_, name in SCORE_COLUMNS
    ]


def score_table(run: RunResult) -> Table:
    """Return the scores of every variant of a run, the scored one last, then those of its kinds of footage."""
    rows = [[name, *score_cells(scores_of(run.sequences, name, run.protocol))] for name in run.variants]
    rows += [[name, *score_cells(scores_of(part, run.counting, run.protocol))] for name, part in grouped(run).items()]
    return Table([('variant', ''), *((head, form) for head, form, _ in SCORE_COLUMNS)], rows).filled()


def last_line(run: RunResult) -> str:
    """Return the run's summary line: J, F, frames, masks per second."""
    scores = scores_of(run.sequences, run.counting, run.protocol)
    frames = sum(item.frame_count for item in run.sequences)
    j, f, fps = written(scores.j_mean), written(scores.f_mean), written(masks_per_second(run.sequences), '.2f')
    return f'J {j} F {f} frames {frames} fps {fps}'
