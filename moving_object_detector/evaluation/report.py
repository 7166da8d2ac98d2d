"""The report of a run, and the page of a comparison: one HTML file each that needs nothing besides itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moving_object_detector.common.errors import ImageError, foreign
from moving_object_detector.common.files import write_atomically
from moving_object_detector.evaluation.compare import METHOD, Comparison, flat
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult, masks_per_second
from moving_object_detector.evaluation.summary import (
    Table,
    correlations,
    find_rule,
    grouped,
    known,
    run_scores,
    score_table,
    sequence_scores,
    sequence_signals,
    written,
)
from moving_object_detector.media.codecs import decode_pixels

REPORT: Final = 'report.html'
COMPARED_SEQUENCES: Final = 8
"""Sequences of which a comparison shows frames."""
LEAST_BARS: Final = 20
"""Places of a bar chart, so that two sequences do not make two walls."""
_INK, _MUTED, _LINE, _ACCENT, _SECOND = '#16202b', '#5a6775', '#c8d0d9', '#0b63b8', '#b45309'
"""Colours of the drawings, which the page inverts where it is dark."""
_STYLE: Final[dict[str, Any]] = {
    **dict.fromkeys(('axes.spines.left', 'axes.spines.right', 'axes.spines.top'), False),
    **dict.fromkeys(('xtick.major.size', 'ytick.major.size'), 0),
    **dict.fromkeys(('xtick.color', 'ytick.color', 'axes.labelcolor'), _MUTED),
    **dict.fromkeys(('grid.color', 'axes.edgecolor'), _LINE),
    'axes.grid': True,
    'axes.grid.axis': 'y',
    'axes.axisbelow': True,
    'figure.constrained_layout.use': True,
    'font.size': 8.5,
    'text.parse_math': False,
    # As an image it has names and style of its own; with these settings the same figure gives the same bytes.
    'svg.fonttype': 'none',
    'svg.hashsalt': 'report',
    'font.family': 'sans-serif',
}
_DATASETS: Final = {'davis2016': 'DAVIS2016', 'segtrackv2': 'SegTrackV2', 'fbms59': 'FBMS59'}
_SIGNALS: Final = {
    'consistency': 'Jaccard index of a mask carried along the flow and the mask of the next frame.',
    'flip': 'Share of the frames after which inside and outside of the mask change places.',
    'empty': 'Share of the masks in which there is nothing.',
    'area_change': 'By which share of the larger one the areas of two masks in a row differ.',
    'information': 'Share of the flow in the mask that the inpainter tells from the flow around it.',
}


class Embedded(NamedTuple):
    """A picture or drawing in the page: a data URI, and what it shows."""

    source: str
    caption: str


def _embedded(kind: str, data: bytes, caption: str) -> Embedded:
    return Embedded(f'data:image/{kind};base64,{base64.b64encode(data).decode()}', caption)


def _pictures(folder: Path, sequence: SequenceResult, kinds: Sequence[str], lead: str = '') -> list[Embedded]:
    """Return the pictures of some kinds that are still in the run's folder, with what frame they show and its J."""
    column = tuple(sequence.variants.values())[-1].j
    found = []
    for picture in sorted(sequence.pictures, key=lambda picture: picture.kind != kinds[0]):
        path = (folder / picture.file).resolve()
        if picture.kind not in kinds or not path.is_relative_to(folder.resolve()) or not path.is_file():
            continue
        data = path.read_bytes()
        try:
            decode_pixels(data)
        except ImageError:
            continue
        j = column[picture.frame] if picture.frame < len(column) else None
        frame = f'{picture.kind.replace("spread", "")} frame {picture.frame}'.strip()
        words = (lead, frame, '' if j is None else f'J {written(j)}')
        found.append(_embedded('jpeg', data, ' · '.join(filter(None, words))))
    return found


def _drawing(width: float, height: float, caption: str, paint: Callable[[Axes], None]) -> Embedded:
    file = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        paint(figure.subplots())
        empty = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=empty)
    return _embedded('svg+xml', file.getvalue(), caption)


def _bars(
    values: Mapping[str, float],
    others: Mapping[str, Sequence[float]],
    line: float,
    caption: str,
    top: float | None = None,
) -> Embedded:
    """Draw a bar for each name from the highest to the lowest, marks for other values, and a line for the mean."""
    names = sorted(values, key=lambda name: (-values[name], name))
    places = max(LEAST_BARS, len(names))

    def paint(axes: Axes) -> None:
        heights = [values[name] for name in names]
        colours = [_ACCENT if height >= 0 else _SECOND for height in heights]
        axes.bar(range(len(names)), heights, 0.72, color=colours, alpha=0.6)
        for place, name in enumerate(names):
            marks = others.get(name, ())
            axes.scatter([place] * len(marks), marks, s=50, marker='_', color=_SECOND, zorder=3)
        axes.set_xticks(range(len(names)), list(map(foreign, names)), rotation=48, ha='right', rotation_mode='anchor')
        axes.axhline(line, color=_INK, linewidth=0.9, linestyle='--')
        axes.annotate(f'mean\n{written(line)}', (places - 0.4, line), (4, 0), textcoords='offset points', va='center')
        axes.set_xlim(-0.6, places - 0.4)
        if top is not None:
            axes.set_ylim(0, top)

    return _drawing(max(760, 13 * places + 60), 230, caption, paint)


def _curves(columns: Mapping[str, Column], caption: str, top: float | None = None) -> Embedded:
    """Draw values over the frames; the last column counts, and few values get a dot each."""

    def paint(axes: Axes) -> None:
        length = 1
        for place, column in enumerate(reversed(list(columns.values()))):
            points = [(index, value) for index, value in enumerate(column) if value is not None]
            length = len(column)
            dots = '.' if not place and len(points) < 0.6 * length else ''
            colour, width, style = (_SECOND, 0.9, ('--', ':')[place % 2]) if place else (_ACCENT, 1.7, '-')
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=width, linestyle=style, marker=dots)
        axes.set_xlim(0, max(1, length - 1))
        axes.set_ylim(0, top)
        axes.locator_params('x', integer=True)

    return _drawing(430, 118, caption, paint)


def _histogram(latency: Sequence[float], marks: Mapping[str, float]) -> Embedded:
    """Draw how often which latency (milliseconds) occurred, up to where all but the last hundredth lie."""
    words = ', '.join(f'{name} {value:.1f}' for name, value in marks.items())

    def paint(axes: Axes) -> None:
        axes.hist(latency, bins=48, range=(0, 1.25 * marks['p99']), color=_ACCENT)
        for value in marks.values():
            axes.axvline(value, color=_INK, linewidth=0.9, linestyle='--')
        axes.set_xlabel('milliseconds')
        axes.set_ylabel('frames')

    caption = f'Latency: {words}, longest {max(latency):.1f} ms; {len(latency):,} frames.'
    return _drawing(430, 170, caption, paint)


# The pages -----------------------------------------------------------------------------------------------------------


def title_of(run: RunResult) -> str:
    """Return data set and split, or the name of the footage."""
    dataset, root, split = (str(run.identity.get(name) or '') for name in ('dataset', 'root', 'split'))
    footage = '' if dataset in _DATASETS else foreign(Path(root).name) if root else ''
    return ' '.join(filter(None, (footage or _DATASETS.get(dataset, dataset.capitalize()), split))) or 'Evaluation'


def _render(path: Path, **context: Any) -> Path:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['written'] = written
    # Names of files need not be text.
    page = environment.get_template(REPORT).render(context)
    write_atomically(path, page.encode('utf-8', 'backslashreplace'))
    return path


def _sequences(run: RunResult) -> Table:
    heads = [('sequence', ''), ('frames', ','), ('J', '.3f'), ('F', '.3f'), ('objects', ','), ('found', ',')]
    heads += [('area', '.4f'), *((name.replace('_', ' '), '.3f') for name in _SIGNALS)]
    heads += [('masks/s', '.2f'), ('no mask', ','), ('problems', ',')]
    rows: list[list[float | str | None]] = []
    for item in run.sequences:
        s, signals = sequence_scores(item, run.counting, run.protocol), sequence_signals(item, run.counting)
        rows.append([item.name, item.frame_count, s.j_mean, s.f_mean])
        rows[-1] += [s.objects, s.found, s.area] if s.frames else [None, None, s.area]
        rows[-1] += [*map(signals.get, _SIGNALS), masks_per_second([item])]
        rows[-1] += [item.dropped or None, len(item.problems) or None]
    return Table(heads, rows).filled()


def _signals(run: RunResult) -> Table:
    related, rows = correlations(run), []
    means = [sequence_signals(item, run.counting) for item in run.sequences]
    for name, meaning in _SIGNALS.items():
        values = known(signals.get(name) for signals in means)
        if values:
            rows.append([name.replace('_', ' '), mean(values), *related.get(name, (None, None)), meaning])
    heads = [('signal', ''), ('mean', '.3f'), ('rank correlation with J', '.2f'), ('of sequences', ',')]
    return Table([*heads, ('meaning', '')], rows).filled()


def _article(folder: Path, run: RunResult, item: SequenceResult) -> dict[str, Any]:
    """Return what is shown of one sequence."""
    s, name = sequence_scores(item, run.counting, run.protocol), foreign(item.name)
    facts = [f'J {written(s.j_mean)}', f'F {written(s.f_mean)}'] if s.frames else []
    columns = {variant: item.variants[variant].j for variant in run.variants}
    if s.frames:
        plot = _curves(columns, f'J over the frames of {name}', 1)
    else:
        plot = _curves({run.counting: item.variants[run.counting].area}, f"The mask's share over the frames of {name}")
    return {
        'name': name,
        'facts': ' · '.join([*facts, f'{item.frame_count:,} frames', f'{item.size[1]}x{item.size[0]}']),
        'plot': plot,
        'pair': _pictures(folder, item, ('best', 'worst')),
        'strip': _pictures(folder, item, ('spread',)),
        'video': quote(item.video, errors='surrogateescape'),
    }


def write_report(folder: Path, run: RunResult) -> Path:
    """Write ``report.html`` into the run's folder, from which the pictures are taken; raises UserError."""
    rule, scores = find_rule(run.protocol), run_scores(run, run.counting)
    latency = [value for item in run.sequences for value in item.latency]
    quantiles = np.percentile(latency, (50, 95, 99)).tolist() if latency else ()
    marks = dict(zip(('median', 'p95', 'p99'), quantiles, strict=False))
    # Kinds of footage where there are such, else each sequence.
    parts = grouped(run) or {item.name: replace(run, sequences=(item,)) for item in run.sequences}
    j = {name: [run_scores(part, variant).j_mean for variant in run.variants] for name, part in parts.items()}
    counted = {name: values[-1] for name, values in j.items() if values[-1] is not None}
    chart = None
    if len(counted) > 1 and scores.j_mean is not None:
        caption = f'J of {run.counting} for each {"kind of footage" if grouped(run) else "sequence"}'
        chart = _bars(counted, {name: known(values[:-1]) for name, values in j.items()}, scores.j_mean, caption, 1)
    made = [run.details.get(name) for name in ('flow', 'engine', 'machine')]
    facts = {name: value for name, value in run.identity.items() if name not in {'configuration', 'variants'} and value}
    return _render(
        folder / REPORT,
        title=title_of(run),
        eyebrow='Evaluation of moving object masks',
        under=' · '.join(str(part) for part in (run.identity.get('method'), *made) if part),
        footer=' · '.join(str(run.details[name]) for name in ('started', 'revision') if run.details.get(name)),
        run=run,
        rule=rule,
        scores=scores,
        frames=sum(item.frame_count for item in run.sequences),
        speed=masks_per_second(run.sequences),
        marks=marks,
        chart=chart,
        histogram=_histogram(latency, marks) if latency else None,
        variants=score_table(run),
        sequences=_sequences(run),
        articles=[_article(folder, run, item) for item in run.sequences],
        signals=_signals(run),
        problems=[('', text) for text in run.problems]
        + [(foreign(item.name), text) for item in run.sequences for text in item.problems],
        about=[
            ('What was run', flat(facts)),
            ('Options of the detector', flat(run.identity.get('configuration') or {})),
            ('Command, versions, machine', flat(run.details)),
        ],
    )


def write_comparison(path: Path, comparison: Comparison, folders: tuple[Path, Path]) -> Path:
    """Write two runs side by side, with pictures from their folders; raises UserError where it cannot be written."""
    (left, right), differences = comparison.names, comparison.differences
    apart = f'J of {right} minus J of {left}'
    sequences = [{item.name: item for item in run.sequences} for run in comparison.runs]
    articles = []
    for name in sorted(differences, key=lambda name: (-abs(differences[name]), name))[:COMPARED_SEQUENCES]:
        # A sequence of one scored frame has a best frame alone.
        found = [
            picture
            for folder, there, lead in zip(folders, sequences, comparison.names, strict=True)
            for picture in _pictures(folder, there[name], ('worst', 'best'), lead)[:1]
        ]
        articles.append({'name': foreign(name), 'facts': f'J {written(differences[name], "+.3f")}', 'pair': found})
    return _render(
        path,
        title=f'{left} and {right}',
        eyebrow=f'Comparison on {title_of(comparison.runs[0])}',
        under=' · '.join(
            f'{name}: {run.counting}' for name, run in zip(comparison.names, comparison.runs, strict=True)
        ),
        footer=METHOD,
        comparison=comparison,
        chart=_bars(differences, {}, comparison.paired.mean, apart) if len(differences) > 1 else None,
        articles=articles,
        problems=[('', note) for note in comparison.notes],
        options=Table([('option', ''), (left, ''), (right, '')], comparison.options),
    )
