"""The report of a run, and the page of a comparison: one HTML file each that needs nothing besides itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moving_object_detector.common.errors import ImageError, foreign
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
from moving_object_detector.media.codecs import decode_pixels, encode_jpeg
from moving_object_detector.media.pixels import resize_image

REPORT: Final = 'report.html'
NOTHING: Final = '\N{EN DASH}'
SMALL: Final = 320
"""Width of the frames spread over a sequence, pixels."""
SHOWN: Final = 8
"""Sequences of which a comparison shows frames."""
LEAST_BARS: Final = 20
"""Places of a bar chart, so that two sequences do not make two walls."""
_INK, _MUTED, _LINE, _ACCENT, _SECOND = '#16202b', '#5a6775', '#c8d0d9', '#0b63b8', '#b45309'
"""Colours of the drawings, which the page inverts where it is dark."""
_DATASETS: Final = {'davis2016': 'DAVIS2016', 'segtrackv2': 'SegTrackV2', 'fbms59': 'FBMS59'}
_SIGNALS: Final = {
    'consistency': ('Consistency', 'Jaccard index of a mask carried along the flow and the mask of the next frame.'),
    'flip': ('Sign flips', 'Share of the frames after which inside and outside of the mask change places.'),
    'empty': ('Empty masks', 'Share of the masks in which there is nothing.'),
    'area_change': ('Change of area', 'By which share of the larger one the areas of two masks in a row differ.'),
    'information': ('Information', 'Share of the flow in the mask that the inpainter tells from the flow around it.'),
}
"""Name to heading and explanation."""

Section = Mapping[str, Any]
"""``heading``, and what stands under it: ``lead``, ``verdict``, ``legend`` (key and text), ``drawings``, ``table``,
``articles`` (one a sequence), ``items`` (name and text), ``facts`` (heading and lines of name and value)."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, the value by which rows are sorted, a bar of -1 to 1, an address."""

    text: str
    value: float | str | None = None
    bar: float | None = None
    link: str = ''


@dataclass(frozen=True)
class Image:
    """A picture or drawing: a data URI, its width in pixels, and what it shows."""

    source: str
    width: int
    caption: str


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


# Pictures and drawings -----------------------------------------------------------------------------------------------


def _shots(folder: Path, sequence: SequenceResult, kinds: Sequence[str], lead: str = '') -> list[Image]:
    """Return the pictures of some kinds that are still in the run's folder, with what frame they show and its J."""
    column = tuple(sequence.variants.values())[-1].j
    shots = []
    wanted = [picture for picture in sequence.pictures if picture.kind in kinds]
    for picture in sorted(wanted, key=lambda picture: kinds.index(picture.kind)):
        path = (folder / picture.file).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            continue
        data = path.read_bytes()
        try:
            image = decode_pixels(data)
        except ImageError:
            continue
        if picture.kind == 'spread' and image.shape[1] > SMALL:
            image = resize_image(image, (max(1, round(image.shape[0] * SMALL / image.shape[1])), SMALL))
            data = encode_jpeg(image, 78).tobytes()
        j = column[picture.frame] if picture.frame < len(column) else None
        words = (lead, f'{picture.kind.replace("spread", "")} frame {picture.frame}', '' if j is None else f'J {j:.3f}')
        source = f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'
        shots.append(Image(source, image.shape[1], ' · '.join(word.strip() for word in words if word)))
    return shots


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width / 72, height / 72), layout='constrained')
    axes = figure.subplots()
    axes.tick_params(colors=_MUTED, labelsize=8.5, length=0, pad=4)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis='y', color=_LINE, linewidth=0.7)
    for side, spine in axes.spines.items():
        spine.set(visible=side == 'bottom', color=_LINE)
    return figure, axes


def _drawn(figure: Figure, title: str) -> Image:
    file = io.BytesIO()
    # As an image it has names and style of its own; with these settings the same figure gives the same bytes.
    with mpl.rc_context({'svg.hashsalt': 'report', 'svg.fonttype': 'none', 'font.family': 'sans-serif'}):
        empty = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=empty)
    source = f'data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}'
    return Image(source, round(figure.get_figwidth() * 96), title)


def _bars(
    scores: Mapping[str, float], others: Mapping[str, Sequence[float]], line: float, title: str, *, signed: bool = False
) -> Image:
    """Draw a bar for each name from the highest to the lowest, marks for other values, and a line for the mean."""
    names = sorted(scores, key=lambda name: (-scores[name], name))
    values, places = [scores[name] for name in names], max(LEAST_BARS, len(names))
    figure, axes = _axes(max(760, 13 * places + 60), 230)
    axes.bar(range(len(names)), values, width=0.72, color=[_ACCENT if v >= 0 else _SECOND for v in values], alpha=0.85)
    for place, name in enumerate(names):
        marks = others.get(name, ())
        for colour, width in (('#ffffff', 3.6), (_SECOND, 1.8)):
            there = [place] * len(marks)
            axes.scatter(there, marks, marker='_', s=50, linewidths=width, color=colour, zorder=3)
    axes.set_xticks(range(len(names)), list(map(foreign, names)), rotation=48, ha='right', rotation_mode='anchor')
    for label in axes.get_xticklabels():
        label.set(fontsize=8, color=_INK, parse_math=False)
    axes.axhline(line, color=_INK, linewidth=0.9, linestyle='--')
    text = f'mean\n{line:+.3f}' if signed else f'mean\n{line:.3f}'
    axes.annotate(text, (places - 0.4, line), (4, 0), textcoords='offset points', va='center', fontsize=8.5, color=_INK)
    axes.set_xlim(-0.6, places - 0.4)
    reach = 1.15 * max(*map(abs, values), abs(line), 0.01) if signed else 1.0
    axes.set_ylim(-reach if min(values) < 0 else 0.0, reach if max(values) >= 0 else 0.0)
    return _drawn(figure, title)


def _curves(columns: Mapping[str, Column], marked: Sequence[Picture], title: str, *, share: bool) -> Image | None:
    """Draw values of 0 to 1 over the frames; the last column counts. None if it has no value."""
    *others, counting = (
        {index: value for index, value in enumerate(column) if value is not None} for column in columns.values()
    )
    if not counting:
        return None
    figure, axes = _axes(430, 118)
    for values, style in zip(others, ('--', ':') * len(others), strict=False):
        axes.plot(list(values), list(values.values()), color=_SECOND, linewidth=0.9, linestyle=style)
    x, y, length = list(counting), list(counting.values()), len(next(iter(columns.values())))
    axes.fill_between(x, y, color=_ACCENT, alpha=0.13, linewidth=0)
    # Few annotations get a dot each.
    dot = '.' if len(x) < 0.6 * length else ''
    axes.plot(x, y, color=_ACCENT, linewidth=1.7, marker=dot, clip_on=False)
    for picture in (picture for picture in marked if picture.frame in counting):
        face = _ACCENT if picture.kind == 'best' else '#ffffff'
        axes.plot(picture.frame, counting[picture.frame], 'o', color=_ACCENT, markerfacecolor=face, clip_on=False)
    axes.set_xlim(0, max(1, length - 1))
    axes.set_ylim(0, max(0.02, 1.1 * max(y)) if share else 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    return _drawn(figure, title)


def _histogram(latency: Sequence[float], marks: Mapping[str, float], title: str) -> Image:
    """Draw how often which latency (milliseconds) occurred, up to where all but the last hundredth lie."""
    figure, axes = _axes(430, 170)
    axes.hist(latency, bins=48, range=(0, 1.25 * marks['p99']), color=_ACCENT, alpha=0.85)
    for value in marks.values():
        axes.axvline(value, color=_INK, linewidth=0.9, linestyle='--')
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


def _render(path: Path, sections: Sequence[Section], **words: Any) -> Path:
    folder = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(REPORT)
    # Names of files need not be text.
    write_atomically(path, template.render(sections=sections, **words).encode('utf-8', 'backslashreplace'))
    return path


def _variants(run: RunResult, *, truth: bool) -> Section:
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
    return {'heading': 'Variants', 'table': {'heads': heads, 'rows': rows, 'counts': len(run.variants) - 1}}


def _sequences(run: RunResult, *, truth: bool) -> Section:
    counting = run.variants[-1]
    signals = {item.name: sequence_signals(item, counting, run.protocol) for item in run.sequences}
    shown = [name for name in dict.fromkeys(name for own in signals.values() for name in own) if name != 'empty']
    heads = ['Sequence', 'Frames', *(('J', 'F', 'Found') if truth else ("Mask's share",)), 'Empty']
    heads += [*(_SIGNALS.get(name, (name, ''))[0] for name in shown), 'fps', 'No mask', 'Problems']
    rows = []
    for place, item in enumerate(run.sequences):
        scores = sequence_scores(item, counting, run.protocol)
        found = _share(scores.found / scores.objects if scores.objects else None)
        judged = (_cell(scores.j_mean, bar=scores.j_mean), _cell(scores.f_mean), found)
        problems = Cell(str(len(item.problems) or ''), len(item.problems), link='#problems' if item.problems else '')
        name = Cell(foreign(item.name), item.name, link=f'#sequence-{place}')
        rate = _cell(item.frame_count / item.seconds if item.seconds > 0 else None, 2)
        rows.append(
            [name, _count(item.frame_count), *(judged if truth else [_share(scores.area)]), _share(scores.empty)]
        )
        rows[-1] += [*(_cell(signals[item.name].get(one)) for one in shown), rate, _count(item.dropped), problems]
    lead = f'{counting}. Click a heading to sort; a name leads to its frames.'
    return {'heading': 'Sequences', 'lead': lead, 'table': {'heads': heads, 'rows': rows, 'sort': True}}


def _signals(run: RunResult) -> Section:
    related = correlations(run)
    found: dict[str, list[float]] = {}
    for item in run.sequences:
        for name, value in sequence_signals(item, run.variants[-1], run.protocol).items():
            found.setdefault(name, []).extend(known([value]))
    rows = []
    for name in (name for name, values in found.items() if values):
        label, what = _SIGNALS.get(name, (name, ''))
        rho, count = related.get(name, (None, 0))
        rows.append([*_texts(label), _cell(mean(found[name])), _cell(rho, 2), _count(count), *_texts(what)])
    heads = ['Signal', 'Mean', 'Rank correlation with J', 'of sequences', 'Meaning']
    lead = 'What the masks tell without any truth.'
    return {'heading': 'Signals', 'lead': lead, 'table': {'heads': heads, 'rows': rows, 'prose': True}}


def _article(folder: Path, run: RunResult, place: int) -> dict[str, Any]:
    """Return what is shown of one sequence."""
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
    return {
        'name': name,
        'anchor': f'sequence-{place}',
        'facts': ' · '.join(facts),
        'plot': plot,
        'pair': _shots(folder, item, ('best', 'worst')),
        'strip': _shots(folder, item, ('spread',)),
        'video': quote(item.video, errors='surrogateescape'),
    }


def _cards(run: RunResult, scores: Scores, marks: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Return the numbers at the head of a report: label, value, what it is."""
    frames, seconds = (sum(getattr(item, name) for item in run.sequences) for name in ('frame_count', 'seconds'))
    if scores.j_mean is not None:
        cards = [('J, region', number(scores.j_mean), f'{run.variants[-1]}, mean')]
        cards.append(('F, boundary', number(scores.f_mean), f'recall {number(scores.f_recall)}'))
        share = percent(scores.found / scores.objects if scores.objects else None)
        cards.append(('Objects found', share, f'{scores.found:,} of {scores.objects:,}'))
    else:
        cards = [("Mask's share of the image", percent(scores.area), 'mean')]
        cards.append(('Empty masks', percent(scores.empty), 'of all masks'))
    cards.append(('Frames', f'{frames:,}', f'in {len(run.sequences)} sequence{"s" * (len(run.sequences) != 1)}'))
    cards.append(('Speed', f'{frames / seconds:.2f} fps' if seconds > 0 else NOTHING, 'evaluating, all variants'))
    if marks:
        cards.append(('Latency, median', f'{marks["median"]:.0f} ms', f'p95 {marks["p95"]:.0f} ms'))
    return cards


def _overview(run: RunResult, scores: Scores, latency: Sequence[float], marks: Mapping[str, float]) -> Section:
    counting, protocol = run.variants[-1], find_protocol(run.protocol)
    # Kinds of footage where there are such, else each sequence.
    parts = grouped(run) or {item.name: replace(run, sequences=(item,)) for item in run.sequences}
    j = {name: [run_scores(part, variant).j_mean for variant in run.variants] for name, part in parts.items()}
    counted = {name: values[-1] for name, values in j.items() if values[-1] is not None}
    lead = 'There is no truth to score against: what follows is what the masks tell of themselves.'
    if scores.j_mean is not None:
        source = '' if protocol.name == 'annotated' else f' by the rule of {protocol.name}'
        still = f'{scores.still_seconds:.1f} s here' if scores.still_seconds else 'no such footage here'
        lead = (
            f'Scored{source}: {protocol.rule}. Recall is the share of frames over 0.5, decay '
            "the loss from a sequence's first quarter to its last. Objects are counted in every frame scored, false "
            f'alarms where nothing moves ({still}).'
        )
    drawings, legend = [], []
    if len(counted) > 1 and scores.j_mean is not None:
        title = f'J of {counting} for each {"kind of footage" if grouped(run) else "sequence"}'
        drawings.append(_bars(counted, {name: known(values[:-1]) for name, values in j.items()}, scores.j_mean, title))
        legend = [('', f'J of {counting}'), *(('second', f'J of {name}') for name in run.variants[:-1])]
    if latency:
        words = ', '.join(f'{name} {value:.1f}' for name, value in marks.items())
        note = f'Latency: {words}, longest {max(latency):.1f} ms; {len(latency):,} frames.'
        drawings.append(_histogram(latency, marks, note))
    return {'heading': 'Overview', 'lead': lead, 'legend': legend, 'drawings': drawings}


def write_report(folder: Path, run: RunResult) -> Path:
    """Write ``report.html`` into the run's folder, from which the pictures are taken; raises UserError."""
    scores = run_scores(run, run.variants[-1])
    truth = scores.j_mean is not None
    latency = [value for item in run.sequences for value in item.latency]
    quantiles = np.percentile(latency, (50, 95, 99)).tolist() if latency else ()
    marks = dict(zip(('median', 'p95', 'p99'), quantiles, strict=False))
    made = [run.details.get(name) for name in ('flow', 'engine', 'machine')]
    problems = [('', text) for text in run.problems]
    problems += [(foreign(item.name), text) for item in run.sequences for text in item.problems]
    keys = [('mask', 'red: mask'), *([('truth', 'blue outline: truth')] if truth else [])]
    shown = [_article(folder, run, place) for place in range(len(run.sequences))]
    facts = {name: value for name, value in run.identity.items() if name not in {'configuration', 'variants'} and value}
    about = [('What was run', flat(facts)), ('Options of the detector', flat(run.identity.get('configuration') or {}))]
    about.append(('Command, versions, machine', flat(run.details)))
    lead = 'All that decides the numbers, and what they were made with.'
    sections: list[Section] = [
        _overview(run, scores, latency, marks),
        _variants(run, truth=truth),
        _sequences(run, truth=truth),
        {'heading': 'Frames', 'lead': 'Click a picture to enlarge it.', 'legend': keys, 'articles': shown},
        _signals(run),
        {'heading': 'Problems', 'lead': '' if problems else 'None.', 'notes': problems},
        {'heading': 'Configuration', 'lead': lead, 'facts': about},
    ]
    return _render(
        folder / REPORT,
        sections,
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

    def difference(value: float | None) -> Cell:
        return _cell(value, sign='+', bar=None if value is None else value / largest)

    rows = []
    for pair in comparison.pairs:
        rows.append([*_texts(foreign(pair.name)), _count(pair.a.frames), _cell(pair.a.j_mean), _cell(pair.b.j_mean)])
        rows[-1] += [difference(pair.difference), _cell(pair.a.f_mean), _cell(pair.b.f_mean)]
        rows[-1].append(_cell(pair.f_difference, sign='+'))
    heads = ['Sequence', 'Frames scored', f'J {left}', f'J {right}', 'Difference of J']
    heads += [f'F {left}', f'F {right}', 'Difference of F']
    below = [*_texts('Mean', ''), *map(_cell, comparison.means), difference(paired.mean)]
    apart = f'J of {right} minus J of {left}'
    interval = ' to '.join(number(bound, sign='+') for bound in paired.interval or ()) or NOTHING
    error = '' if paired.standard_error is None else f'standard error {number(paired.standard_error)}'
    wins, losses = (sum(sign * value > 0 for value in differences.values()) for sign in (1, -1))
    cards = [(apart, number(paired.mean, sign='+'), error), ('95 % interval', interval, f'p {number(paired.p)}')]
    cards.append((f'{right} is better on', f'{wins} of {paired.pairs}', f'worse on {losses}'))
    for name, average, scores in zip(comparison.names, comparison.means, comparison.scores, strict=True):
        cards.append((f'J of {name}', number(average), f'F {number(scores.f_mean)}'))
    sequences = [{item.name: item for item in run.sequences} for run in comparison.runs]
    articles = []
    for place, name in enumerate(sorted(differences, key=lambda name: (-abs(differences[name]), name))[:SHOWN]):
        # A sequence of one scored frame has a best frame alone.
        shots = [
            shot
            for folder, there, lead in zip(folders, sequences, comparison.names, strict=True)
            for shot in _shots(folder, there[name], ('worst', 'best'), lead)[:1]
        ]
        fact = f'J {number(differences[name], sign="+")}'
        articles.append({'name': foreign(name), 'anchor': f'frames-{place}', 'facts': fact, 'pair': shots})
    only = zip(comparison.names, comparison.only, strict=True)
    problems = [(f'only in {name}', foreign(', '.join(alone), 1000)) for name, alone in only if alone]
    problems += [('', note) for note in comparison.notes]
    options = [_texts(*option) for option in comparison.options]
    same = '' if options else 'None: both runs were made with the same options, weights and versions.'
    legend = [('', f'{right} has the higher J'), ('second', f'{left} has the higher J')]
    bars = [_bars(differences, {}, paired.mean, apart, signed=True)] if len(differences) > 1 else []
    lead = f'A difference is {right} minus {left}. Click a heading to sort.'
    made = {'heads': ['Option', left, right], 'rows': options, 'prose': True} if options else None
    sections: list[Section] = [
        {'heading': 'Overview', 'lead': METHOD, 'verdict': comparison.sentence, 'legend': legend, 'drawings': bars},
        {'heading': 'Sequences', 'lead': lead, 'table': {'heads': heads, 'rows': rows, 'sort': True, 'below': below}},
        {'heading': 'Frames', 'lead': 'The worst frame of each run, where they differ most.', 'articles': articles},
        {'heading': 'Problems', 'lead': '' if problems else 'None.', 'notes': problems},
        {'heading': 'Differences in configuration', 'lead': same, 'table': made},
    ]
    return _render(
        path,
        sections,
        title=f'{left} and {right}',
        eyebrow=f'Comparison on {title_of(comparison.runs[0])}',
        under=' · '.join(map(': '.join, zip(comparison.names, comparison.variants, strict=True))),
        footer=METHOD,
        cards=cards,
    )
