"""The report of a run, and the page of a comparison: one HTML file each that needs nothing besides itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import cv2
import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moving_object_detector.common.errors import foreign
from moving_object_detector.common.files import write_atomically
from moving_object_detector.evaluation.compare import METHOD, Comparison, flat
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import Column, Picture, RunResult, SequenceResult
from moving_object_detector.evaluation.summary import (
    Scores,
    correlations,
    find_protocol,
    grouped,
    known,
    run_scores,
    sequence_scores,
    sequence_signals,
)

REPORT: Final = 'report.html'
NOTHING: Final = '\N{EN DASH}'
SMALL: Final = 320
"""Width of the frames spread over a sequence, pixels."""
SHOWN: Final = 8
"""Sequences of which a comparison shows frames."""
LEAST_BARS: Final = 20
"""Places of a bar chart, so that two sequences do not make two walls."""
_INK, _MUTED, _LINE, _ACCENT, _SECOND = '#16202b', '#5a6775', '#c8d0d9', '#0b63b8', '#b45309'
"""Colours of the drawings; the page inverts the drawings where it is dark."""
_DATASETS: Final = {'davis2016': 'DAVIS2016', 'segtrackv2': 'SegTrackV2', 'fbms59': 'FBMS59'}
_SIGNALS: Final = {
    'consistency': ('Consistency', 'Jaccard index of a mask carried along the flow and the mask of the next frame.'),
    'flip': ('Sign flips', 'Share of the frames after which inside and outside of the mask change places.'),
    'empty': ('Empty masks', 'Share of the masks in which there is nothing.'),
    'area_change': ('Change of area', 'By which share of the larger one the areas of two masks in a row differ.'),
    'information': ('Information', 'Share of the flow in the mask that the inpainter tells from the flow around it.'),
}
"""Name to heading and explanation."""


# What a page is made of ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | str | None = None
    """By which rows are sorted; None: nothing is known."""
    bar: float | None = None
    """Length of a bar before the number, of 1; below 0 from the right."""
    link: str = ''


@dataclass(frozen=True)
class Table:
    """Headings and rows; the row ``counts`` stands out, the row ``below`` is not sorted with the others."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sort: bool = False
    prose: bool = False
    counts: int = 0
    below: Sequence[Cell] = ()


@dataclass(frozen=True)
class Image:
    """A picture or drawing: a data URI, its width in pixels, and what it shows."""

    source: str
    width: int
    caption: str


@dataclass(frozen=True)
class Article:
    """What is shown of one sequence."""

    name: str
    anchor: str
    facts: str
    plot: Image | None = None
    pair: Sequence[Image] = ()
    strip: Sequence[Image] = ()
    video: str = ''


@dataclass(frozen=True)
class Section:
    """A part of a page, under a heading."""

    heading: str
    lead: str = ''
    verdict: str = ''
    legend: Sequence[tuple[str, str]] = ()
    """Kinds of keys, and what they stand for."""
    drawings: Sequence[Image] = ()
    table: Table | None = None
    articles: Sequence[Article] = ()
    items: Sequence[tuple[str, str]] = ()
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()


def number(value: float | None, digits: int = 3, sign: str = '') -> str:
    """Write a number; None is a dash."""
    return NOTHING if value is None else f'{value:{sign}.{digits}f}'.replace('-', '\N{MINUS SIGN}')


def percent(value: float | None) -> str:
    """Write a share."""
    return NOTHING if value is None else f'{100 * value:.1f} %'


def _cell(value: float | None, digits: int = 3, sign: str = '', bar: float | None = None) -> Cell:
    return Cell(number(value, digits, sign), value, bar)


def _count(value: int) -> Cell:
    return Cell(f'{value:,}', value)


def _share(value: float | None) -> Cell:
    return Cell(percent(value), value)


def _texts(*texts: str) -> list[Cell]:
    return [Cell(text, text) for text in texts]


# Pictures ------------------------------------------------------------------------------------------------------------


def _embed(folder: Path, picture: Picture, words: Sequence[str], width: int | None = None) -> Image | None:
    """Read a picture of a run, reduced to a width in pixels; None if it is no longer there."""
    path = (folder / picture.file).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        return None
    if width is not None and image.shape[1] > width:
        size = width, max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        data = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, 78))[1].tobytes()
    source = f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'
    return Image(source, image.shape[1], ' · '.join(filter(None, words)))


def _shots(folder: Path, sequence: SequenceResult, kinds: Sequence[str], lead: str = '') -> list[Image]:
    """Return the pictures of some kinds, with what frame they show and its J."""
    column = tuple(sequence.variants.values())[-1].j
    shots = []
    for kind in kinds:
        for picture in (picture for picture in sequence.pictures if picture.kind == kind):
            j = column[picture.frame] if picture.frame < len(column) else None
            word = '' if kind == 'spread' else kind
            words = (lead, f'{word} frame {picture.frame}'.strip(), '' if j is None else f'J {j:.3f}')
            shot = _embed(folder, picture, words, SMALL if kind == 'spread' else None)
            shots += [] if shot is None else [shot]
    return shots


# Drawings ------------------------------------------------------------------------------------------------------------


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / 72, height / 72), layout='constrained')
    axes = figure.subplots()
    axes.tick_params(colors=_MUTED, labelsize=8.5, length=0, pad=4)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis='y', color=_LINE, linewidth=0.7)
    for side, spine in axes.spines.items():
        spine.set_visible(side == 'bottom')
        spine.set_color(_LINE)
    return figure, axes


def _drawn(figure: Figure, title: str) -> Image:
    file = io.BytesIO()
    # As an image it has names and style of its own; with these settings the same figure gives the same bytes.
    with mpl.rc_context({'svg.hashsalt': 'report', 'svg.fonttype': 'none', 'font.family': 'sans-serif'}):
        figure.savefig(
            file, format='svg', transparent=True, metadata=dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        )
    source = f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'
    return Image(source, round(figure.get_figwidth() * 96), title)


def _bars(
    scores: Mapping[str, float], others: Mapping[str, Sequence[float]], line: float, title: str, *, signed: bool = False
) -> Image:
    """Draw a bar for each sequence from the highest to the lowest, marks for other values, and a line for the mean."""
    names = sorted(scores, key=lambda name: (-scores[name], name))
    values = [scores[name] for name in names]
    places = max(LEAST_BARS, len(names))
    figure, axes = _axes(max(760, 13 * places + 60), 230)
    axes.bar(range(len(names)), values, width=0.72, color=[_ACCENT if v >= 0 else _SECOND for v in values], alpha=0.85)
    marks = [(place, value) for place, name in enumerate(names) for value in others.get(name, ())]
    for colour, width in (('#ffffff', 3.6), (_SECOND, 1.8)) if marks else ():
        x, y = zip(*marks, strict=True)
        axes.scatter(x, y, marker='_', s=50, linewidths=width, color=colour, zorder=3)
    axes.set_xticks(range(len(names)), list(map(foreign, names)), rotation=48, ha='right', rotation_mode='anchor')
    for label in axes.get_xticklabels():
        label.set(fontsize=8, color=_INK, parse_math=False)
    axes.axhline(line, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
    place = places - 0.4, line
    text = f'mean\n{line:+.3f}' if signed else f'mean\n{line:.3f}'
    axes.annotate(text, place, (4, 0), textcoords='offset points', va='center', fontsize=8.5, color=_INK)
    axes.set_xlim(-0.6, place[0])
    reach = 1.15 * max(*map(abs, values), abs(line), 0.01) if signed else 1.0
    axes.set_ylim(-reach if min(values) < 0 else 0.0, reach if max(values) >= 0 else 0.0)
    axes.axhline(0, color=_MUTED, linewidth=0.9)
    return _drawn(figure, title)


def _curves(columns: Mapping[str, Column], marked: Sequence[Picture], title: str, *, share: bool) -> Image | None:
    """Draw values of 0 to 1 over the frames; the last column counts. None if it has no value."""
    *others, counting = columns.values()
    points = [(index, value) for index, value in enumerate(counting) if value is not None]
    if not points:
        return None
    figure, axes = _axes(430, 118)
    for column, style in zip(others, ((0, (4, 2)), (0, (1, 1.5))) * len(others), strict=False):
        there = [(index, value) for index, value in enumerate(column) if value is not None]
        if there:
            axes.plot(*zip(*there, strict=True), color=_SECOND, linewidth=0.9, linestyle=style)
    x, y = zip(*points, strict=True)
    axes.fill_between(x, y, color=_ACCENT, alpha=0.13, linewidth=0)
    axes.plot(x, y, color=_ACCENT, linewidth=1.7, solid_joinstyle='round', clip_on=False)
    if len(points) < 0.6 * len(counting) or len(points) == 1:
        axes.scatter(x, y, s=9, color=_ACCENT, zorder=3, clip_on=False)
    values = dict(points)
    for picture in (picture for picture in marked if picture.frame in values):
        face = _ACCENT if picture.kind == 'best' else '#ffffff'
        place = picture.frame, values[picture.frame]
        axes.scatter(
            [place[0]], [place[1]], s=30, facecolor=face, edgecolor=_ACCENT, linewidth=1.5, zorder=4, clip_on=False
        )
    axes.set_xlim(0, max(1, len(counting) - 1))
    axes.set_ylim(0, max(0.02, 1.1 * max(y)) if share else 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.3g} %')
    return _drawn(figure, title)


def _histogram(latency: Sequence[float], marks: Mapping[str, float], title: str) -> Image:
    """Draw how often which latency (milliseconds) occurred, up to where all but the last hundredth lie."""
    limit = max(min(max(latency), 1.25 * float(np.percentile(latency, 99))), 1e-3)
    figure, axes = _axes(430, 190)
    counts, _, _ = axes.hist([value for value in latency if value <= limit], bins=48, color=_ACCENT, alpha=0.85)
    top = 1.5 * max(1.0, float(np.max(counts)))
    for level, (label, value) in enumerate(marks.items()):
        if value <= limit:
            axes.axvline(value, ymax=0.76 + 0.085 * level, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.text(
                value, top * (0.78 + 0.085 * level), f' {label} {value:.3g} ', fontsize=8.5, color=_INK, va='center'
            )
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel('milliseconds', fontsize=8.5, color=_MUTED)
    axes.set_ylabel('frames', fontsize=8.5, color=_MUTED)
    return _drawn(figure, title)


# The pages -----------------------------------------------------------------------------------------------------------


def title_of(run: RunResult) -> str:
    """Return data set and split, as people write them."""
    dataset, root = str(run.identity.get('dataset', '')), str(run.identity.get('root') or '')
    name = _DATASETS.get(dataset, dataset.capitalize())
    if dataset not in _DATASETS and root:
        name = f'{name} {foreign(Path(root).name)}'
    return ' '.join(filter(None, (name, str(run.identity.get('split') or '')))) or 'Evaluation'


def _render(path: Path, sections: Sequence[Section | None], **words: Any) -> Path:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template('report.html').render(sections=list(filter(None, sections)), **words)
    # Names of files need not be text.
    write_atomically(path, page.encode('utf-8', 'backslashreplace'))
    return path


def _variant_table(run: RunResult, *, truth: bool) -> Table:
    counting = run.variants[-1]
    named = [(name, run_scores(run, name)) for name in run.variants]
    named += [(f'{counting}, {name}', run_scores(part, counting)) for name, part in grouped(run).items()]
    heads, rows = ['Variant', 'Empty masks', "Mask's share"], []
    if truth:
        heads[1:1] = ['J mean', 'recall', 'decay', 'F mean', 'recall', 'decay', 'Objects found', 'missed']
        heads[-2:-2] = ['False regions', 'False alarms / min']
    for name, s in named:
        means = (s.j_mean, s.j_recall, s.j_decay, s.f_mean, s.f_recall, s.f_decay)
        counts = (s.found, s.objects - s.found, s.false_regions)
        scores = [*map(_cell, means), *map(_count, counts), _cell(s.false_alarms_per_minute, 1)]
        rows.append([*_texts(name), *(scores if truth else ()), _share(s.empty), _share(s.area)])
    return Table(heads, rows, counts=len(run.variants) - 1)


def _sequence_table(run: RunResult, signals: Sequence[str], *, truth: bool) -> Table:
    counting, shown = run.variants[-1], [name for name in signals if name != 'empty']
    heads = ['Sequence', 'Frames', *(('J', 'F', 'Found') if truth else ("Mask's share",)), 'Empty']
    heads += [*(_SIGNALS.get(name, (name, ''))[0] for name in shown), 'fps', 'No mask', 'Problems']
    rows = []
    for place, item in enumerate(run.sequences):
        scores = sequence_scores(item, counting, run.protocol)
        own = sequence_signals(item, counting, run.protocol)
        found = _share(scores.found / scores.objects if scores.objects else None)
        area = _share(mean(known(item.variants[counting].area)))
        rows.append(
            [
                Cell(foreign(item.name), item.name, link=f'#sequence-{place}'),
                _count(item.frame_count),
                *((_cell(scores.j_mean, bar=scores.j_mean), _cell(scores.f_mean), found) if truth else (area,)),
                _share(scores.empty),
                *(_cell(own.get(name)) for name in shown),
                _cell(item.frame_count / item.seconds if item.seconds > 0 else None, 2),
                _count(item.dropped),
                Cell(str(len(item.problems) or ''), len(item.problems), link='#problems' if item.problems else ''),
            ]
        )
    return Table(heads, rows, sort=True)


def _signal_table(run: RunResult) -> tuple[list[str], Table]:
    """Return the signals that the run has, and a table of what they are and how they go with J."""
    related = correlations(run)
    found: dict[str, list[float]] = {}
    for item in run.sequences:
        for name, value in sequence_signals(item, run.variants[-1], run.protocol).items():
            found.setdefault(name, []).extend(known([value]))
    rows = []
    for name in (name for name, values in found.items() if values):
        label, what = _SIGNALS.get(name, (name, ''))
        rho = number(related[name].rho, 2) if name in related else NOTHING
        count = str(related[name].count) if name in related else NOTHING
        rows.append([*_texts(label), _cell(mean(found[name])), *_texts(rho, count, what)])
    heads = ['Signal', 'Mean', 'Rank correlation with J', 'of sequences', 'Meaning']
    return [name for name, values in found.items() if values], Table(heads, rows, prose=True)


def _article(folder: Path, run: RunResult, place: int) -> Article:
    item, variants = run.sequences[place], run.variants
    scores, name = sequence_scores(item, variants[-1], run.protocol), foreign(item.name)
    facts = [f'{item.frame_count:,} frames', f'{item.size[1]}x{item.size[0]}']
    if scores.j_mean is None:
        columns: dict[str, Column] = {variants[-1]: item.variants[variants[-1]].area}
        plot = _curves(columns, (), f"The mask's share over the frames of {name}", share=True)
    else:
        facts = [f'J {number(scores.j_mean)}', f'F {number(scores.f_mean)}', *facts]
        columns = {variant: item.variants[variant].j for variant in variants}
        marked = [picture for picture in item.pictures if picture.kind != 'spread']
        plot = _curves(columns, marked, f'J over the frames of {name}', share=False)
    pair, strip = _shots(folder, item, ('best', 'worst')), _shots(folder, item, ('spread',))
    video = quote(item.video, errors='surrogateescape')
    return Article(name, f'sequence-{place}', ' · '.join(facts), plot, pair, strip, video)


def _cards(run: RunResult, scores: Scores, marks: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return the numbers at the head of a report: label, value, what it is."""
    frames, seconds = (sum(getattr(item, name) for item in run.sequences) for name in ('frame_count', 'seconds'))
    cards = []
    if scores.j_mean is not None:
        cards.append(('J, region', number(scores.j_mean), f'{run.variants[-1]}, mean'))
        cards.append(('F, boundary', number(scores.f_mean), f'recall {number(scores.f_recall)}'))
        if scores.objects:
            share = percent(scores.found / scores.objects)
            cards.append(('Objects found', share, f'{scores.found:,} of {scores.objects:,}'))
    else:
        areas = [mean(known(item.variants[run.variants[-1]].area)) for item in run.sequences]
        cards.append(("Mask's share of the image", percent(mean(known(areas))), 'mean'))
        cards.append(('Empty masks', percent(scores.empty), 'of all masks'))
    cards.append(('Frames', f'{frames:,}', f'in {len(run.sequences)} sequence{"s" * (len(run.sequences) != 1)}'))
    if seconds > 0:
        cards.append(('Speed', f'{frames / seconds:.2f} fps', 'evaluating, all variants'))
    if marks:
        cards.append(('Latency, median', f'{marks["median"]:.0f} ms', f'p95 {marks["p95"]:.0f} ms'))
    return cards


def write_report(folder: Path, run: RunResult) -> Path:
    """Write ``report.html`` into the run's folder, from which the pictures are taken.

    Raises:
        UserError: It cannot be written, or the run names a protocol that there is not.

    """
    counting, scores = run.variants[-1], run_scores(run, run.variants[-1])
    truth, protocol = scores.j_mean is not None, find_protocol(run.protocol)
    latency = [value for item in run.sequences for value in item.latency]
    quantiles = np.percentile(latency or [0.0], (50, 95, 99)).tolist()
    marks = dict(zip(('median', 'p95', 'p99'), quantiles, strict=True)) if latency else {}
    # Kinds of footage where there are such, else each sequence.
    parts = grouped(run) or {item.name: replace(run, sequences=(item,)) for item in run.sequences}
    j = {name: [run_scores(part, variant).j_mean for variant in run.variants] for name, part in parts.items()}
    counted = {name: values[-1] for name, values in j.items() if values[-1] is not None}
    lead = 'There is no truth to score against: what follows is what the masks tell of themselves.'
    if truth:
        still = f'{scores.still_seconds:.1f} s here' if scores.still_seconds else 'no such footage here'
        lead = (
            f'Scored by the rule of {protocol.name}: {protocol.rule}. Recall is the share of frames over 0.5, decay '
            "the loss from a sequence's first quarter to its last. Objects are counted in every frame scored, false "
            f'alarms where nothing moves ({still}).'
        )
    legend = [('', f'J of {counting}'), *(('second', f'J of {name}') for name in run.variants[:-1])]
    drawings = []
    if len(counted) > 1 and scores.j_mean is not None:
        others = {name: known(values[:-1]) for name, values in j.items()}
        drawings.append(
            _bars(
                counted,
                others,
                scores.j_mean,
                f'J of {counting} for each {"kind of footage" if grouped(run) else "sequence"}',
            )
        )
    if latency:
        words = ', '.join(f'{name} {value:.1f}' for name, value in marks.items())
        note = f'Latency: {words}, longest {max(latency):.1f} ms; {len(latency):,} frames.'
        drawings.append(_histogram(latency, marks, note))
    signals, signal_table = _signal_table(run)
    facts = {name: value for name, value in run.identity.items() if name not in {'configuration', 'variants'} and value}
    made = [run.details.get(name) for name in ('flow', 'engine', 'machine')]
    problems = [('', text) for text in run.problems]
    problems += [(foreign(item.name), text) for item in run.sequences for text in item.problems]
    shown = [_article(folder, run, place) for place in range(len(run.sequences))]
    keys = [('mask', 'red: mask'), *([('truth', 'blue outline: truth')] if truth else [])]
    return _render(
        folder / REPORT,
        [
            Section('Overview', lead, legend=legend if counted else (), drawings=drawings),
            Section('Variants', table=_variant_table(run, truth=truth)),
            Section(
                'Sequences',
                f'{counting}. Click a heading to sort; a name leads to its frames.',
                table=_sequence_table(run, signals, truth=truth),
            ),
            Section('Frames', 'Click a picture to enlarge it.', legend=keys, articles=shown) if shown else None,
            Section('Signals', 'What the masks tell without any truth.', table=signal_table) if signals else None,
            Section('Problems', '' if problems else 'None.', items=problems),
            Section(
                'Configuration',
                'All that decides the numbers, and what they were made with.',
                facts=[
                    ('What was run', flat(facts)),
                    ('Options of the detector', flat(run.identity.get('configuration') or {})),
                    ('Command, versions, machine', flat(run.details)),
                ],
            ),
        ],
        title=title_of(run),
        eyebrow='Evaluation of moving object masks',
        under=' · '.join(str(part) for part in (run.identity.get('method'), *made) if part),
        footer=' · '.join(str(run.details[name]) for name in ('started', 'revision') if run.details.get(name)),
        cards=_cards(run, scores, marks),
    )


def write_comparison(path: Path, comparison: Comparison, folders: tuple[Path, Path]) -> Path:
    """Write two runs side by side, with pictures from their folders; raises UserError where it cannot be written."""
    (left, right), differences, paired = comparison.names, comparison.differences, comparison.paired
    largest = max(map(abs, differences.values())) or 1.0
    wins, losses = (sum(sign * value > 0 for value in differences.values()) for sign in (1, -1))

    def difference(value: float | None) -> Cell:
        return _cell(value, sign='+', bar=None if value is None else value / largest)

    rows = [
        [
            Cell(foreign(pair.name), pair.name),
            _count(pair.a.frames),
            *map(_cell, (pair.a.j_mean, pair.b.j_mean)),
            difference(pair.difference),
            *map(_cell, (pair.a.f_mean, pair.b.f_mean)),
            _cell(pair.f_difference, sign='+'),
        ]
        for pair in comparison.pairs
    ]
    heads = ['Sequence', 'Frames scored', f'J {left}', f'J {right}', 'Difference of J']
    heads += [f'F {left}', f'F {right}', 'Difference of F']
    below = [*_texts('Mean', ''), *map(_cell, comparison.means), difference(paired.mean)]
    apart = f'J of {right} minus J of {left}'
    interval = ' to '.join(number(bound, sign='+') for bound in paired.interval or ()) or NOTHING
    error = '' if paired.standard_error is None else f'standard error {number(paired.standard_error)}'
    cards = [
        (apart, number(paired.mean, sign='+'), error),
        ('95 % interval', interval, f'p {number(paired.p)}'),
        (f'{right} is better on', f'{wins} of {paired.count}', f'worse on {losses}'),
    ]
    for name, average, scores in zip(comparison.names, comparison.means, comparison.scores, strict=True):
        cards.append((f'J of {name}', number(average), f'F {number(scores.f_mean)}'))
    sequences = [{item.name: item for item in run.sequences} for run in comparison.runs]
    articles: list[Article] = []
    for name in sorted(differences, key=lambda name: (-abs(differences[name]), name))[:SHOWN]:
        # A sequence of one scored frame has a best frame alone.
        pair = [
            shot
            for place in (0, 1)
            for shot in _shots(folders[place], sequences[place][name], ('worst', 'best'), comparison.names[place])[:1]
        ]
        if pair:
            fact = f'J {number(differences[name], sign="+")}'
            articles.append(Article(foreign(name), f'frames-{len(articles)}', fact, pair=pair))
    only = zip(comparison.names, comparison.only, strict=True)
    problems = [(f'only in {name}', foreign(', '.join(alone), 1000)) for name, alone in only if alone]
    problems += [('', note) for note in comparison.notes]
    options = Table(['Option', left, right], [_texts(*option) for option in comparison.options], prose=True)
    same = '' if options.rows else 'None: both runs were made with the same options, weights and versions.'
    legend = [('', f'{right} has the higher J'), ('second', f'{left} has the higher J')]
    bars = [_bars(differences, {}, paired.mean, apart, signed=True)] if len(differences) > 1 else []
    return _render(
        path,
        [
            Section('Overview', METHOD, comparison.sentence, legend=legend if bars else (), drawings=bars),
            Section(
                'Sequences',
                f'A difference is {right} minus {left}. Click a heading to sort.',
                table=Table(heads, rows, sort=True, below=below),
            ),
            Section('Frames', 'The worst frame of each run, where they differ most.', articles=articles)
            if articles
            else None,
            Section('Problems', '' if problems else 'None.', items=problems),
            Section('Differences in configuration', same, table=options if options.rows else None),
        ],
        title=f'{left} and {right}',
        eyebrow=f'Comparison on {title_of(comparison.runs[0])}',
        under=' · '.join(map(': '.join, zip(comparison.names, comparison.variants, strict=True))),
        footer=METHOD,
        cards=cards,
    )
