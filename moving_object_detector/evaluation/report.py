"""The report of a run, a self-contained HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moving_object_detector.common.errors import foreign
from moving_object_detector.common.files import write_atomically
from moving_object_detector.evaluation.compare import flat
from moving_object_detector.evaluation.results import (
    RULES,
    SCORE_COLUMNS,
    Column,
    RunResult,
    SequenceResult,
    Table,
    grouped,
    known,
    masks_per_second,
    score_cells,
    score_table,
    scores_of,
    written,
)

REPORT: Final = 'report.html'
LEAST_BARS: Final = 20
"""Least number of places in a bar chart, so that a few bars are not too wide."""
_INK, _MUTED, _LINE, _ACCENT, _SECOND = '#16202b', '#5a6775', '#c8d0d9', '#0b63b8', '#b45309'
"""Colours of the plots, which the page inverts in dark mode."""
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
    # Text as text, and a fixed salt for identifiers, so that the same figure gives the same bytes.
    'svg.fonttype': 'none',
    'svg.hashsalt': 'report',
    'font.family': 'sans-serif',
}
_DATASETS: Final = {'davis2016': 'DAVIS2016', 'segtrackv2': 'SegTrackV2', 'fbms59': 'FBMS59'}


def _embedded(kind: str, data: bytes, caption: str) -> dict[str, str]:
    """Return an image for the page, as a data URI, with its caption."""
    return {'source': f'data:image/{kind};base64,{base64.b64encode(data).decode()}', 'caption': caption}


def _pictures(folder: Path, sequence: SequenceResult, *kinds: str) -> list[dict[str, str]]:
    """Return the pictures of given kinds that are still in the run's folder, captioned with frame and J."""
    column = tuple(sequence.variants.values())[-1].j
    found = []
    for picture in sequence.pictures:
        path = (folder / picture.file).resolve()
        if picture.kind not in kinds or not path.is_relative_to(folder.resolve()) or not path.is_file():
            continue
        j = column[picture.frame] if picture.frame < len(column) else None
        frame = f'{picture.kind.replace("spread", "")} frame {picture.frame}'.strip()
        caption = frame if j is None else f'{frame} · J {written(j)}'
        found.append(_embedded('jpeg', path.read_bytes(), caption))
    return found


def _drawing(width: float, height: float, caption: str, paint: Callable[[Axes], None]) -> dict[str, str]:
    file = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        paint(figure.subplots())
        empty = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=empty)
    return _embedded('svg+xml', file.getvalue(), caption)


def _bars(
    values: Mapping[str, float], others: Mapping[str, Sequence[float]], line: float, caption: str
) -> dict[str, str]:
    """Draw a bar for each name, the highest first, marks for other variants, and a line for the mean."""
    names = sorted(values, key=lambda name: (-values[name], name))
    places = max(LEAST_BARS, len(names))

    def paint(axes: Axes) -> None:
        heights = [values[name] for name in names]
        axes.bar(range(len(names)), heights, 0.72, color=_ACCENT, alpha=0.6)
        for place, name in enumerate(names):
            marks = others.get(name, ())
            axes.scatter([place] * len(marks), marks, s=50, marker='_', color=_SECOND, zorder=3)
        axes.set_xticks(range(len(names)), list(map(foreign, names)), rotation=48, ha='right', rotation_mode='anchor')
        axes.axhline(line, color=_INK, linewidth=0.9, linestyle='--')
        axes.annotate(f'mean\n{written(line)}', (places - 0.4, line), (4, 0), textcoords='offset points', va='center')
        axes.set_xlim(-0.6, places - 0.4)
        axes.set_ylim(0, 1)

    return _drawing(max(760, 13 * places + 60), 230, caption, paint)


def _curves(columns: Mapping[str, Column], caption: str, top: float | None = None) -> dict[str, str]:
    """Plot columns over the frames, the last one emphasised, with dots if its values are sparse."""

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


# The pages -----------------------------------------------------------------------------------------------------------


def title_of(run: RunResult) -> str:
    """Return the report's title: data set and split, or the name of the footage."""
    dataset, root, split = (str(run.identity.get(name) or '') for name in ('dataset', 'root', 'split'))
    footage = '' if dataset in _DATASETS else foreign(Path(root).name) if root else ''
    return ' '.join(filter(None, (footage or _DATASETS.get(dataset, dataset.capitalize()), split))) or 'Evaluation'


def _sequences(run: RunResult) -> Table:
    heads = [('sequence', ''), ('frames', ','), *((head, form) for head, form, _ in SCORE_COLUMNS)]
    rows = []
    for item in run.sequences:
        cells = score_cells(scores_of([item], run.counting, run.protocol))
        others = masks_per_second([item]), item.dropped or None, len(item.problems) or None
        rows.append([item.name, item.frame_count, *cells, *others])
    return Table([*heads, ('masks/s', '.2f'), ('no mask', ','), ('problems', ',')], rows).filled()


def _article(folder: Path, run: RunResult, item: SequenceResult) -> dict[str, Any]:
    s, name = scores_of([item], run.counting, run.protocol), foreign(item.name)
    facts = [f'J {written(s.j_mean)}', f'F {written(s.f_mean)}'] if s.frames else []
    columns = {variant: item.variants[variant].j for variant in run.variants}
    if s.frames:
        plot = _curves(columns, f'J over the frames of {name}', 1)
    else:
        plot = _curves({run.counting: item.variants[run.counting].area}, f"The mask's area over the frames of {name}")
    return {
        'name': name,
        'facts': ' · '.join([*facts, f'{item.frame_count:,} frames', f'{item.size[1]}x{item.size[0]}']),
        'plot': plot,
        'pair': _pictures(folder, item, 'best', 'worst'),
        'strip': _pictures(folder, item, 'spread'),
    }


def write_report(folder: Path, run: RunResult) -> Path:
    """Write ``report.html`` with the pictures in the run's folder to that folder; raises UserError."""
    scores = scores_of(run.sequences, run.counting, run.protocol)
    latency = [value for item in run.sequences for value in item.latency]
    marks = dict(zip(('median', 'p95'), np.percentile(latency, (50, 95)).tolist(), strict=True)) if latency else None
    # Kinds of footage if there are any, else sequences.
    parts = grouped(run) or {item.name: [item] for item in run.sequences}
    j = {
        name: [scores_of(part, variant, run.protocol).j_mean for variant in run.variants]
        for name, part in parts.items()
    }
    counted = {name: values[-1] for name, values in j.items() if values[-1] is not None}
    chart = None
    if len(counted) > 1 and scores.j_mean is not None:
        caption = f'J of {run.counting} for each {"kind of footage" if grouped(run) else "sequence"}'
        chart = _bars(counted, {name: known(values[:-1]) for name, values in j.items()}, scores.j_mean, caption)
    made = [run.details.get(name) for name in ('flow', 'engine', 'machine')]
    facts = {name: value for name, value in run.identity.items() if name not in {'configuration', 'variants'} and value}
    templates = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['written'] = written
    page = environment.get_template(REPORT).render(
        title=title_of(run),
        under=' · '.join(str(part) for part in (run.identity.get('method'), *made) if part),
        footer=' · '.join(str(run.details[name]) for name in ('started', 'revision') if run.details.get(name)),
        run=run,
        rule=RULES[run.protocol],
        scores=scores,
        frames=sum(item.frame_count for item in run.sequences),
        speed=masks_per_second(run.sequences),
        marks=marks,
        chart=chart,
        variants=score_table(run),
        sequences=_sequences(run),
        articles=[_article(folder, run, item) for item in run.sequences],
        problems=[('', text) for text in run.problems]
        + [(foreign(item.name), text) for item in run.sequences for text in item.problems],
        about=[
            ('What was run', flat(facts)),
            ('Options of the detector', flat(run.identity.get('configuration') or {})),
            ('Command, versions, machine', flat(run.details)),
        ],
    )
    # File names may contain undecodable bytes.
    write_atomically(folder / REPORT, page.encode('utf-8', 'backslashreplace'))
    return folder / REPORT
