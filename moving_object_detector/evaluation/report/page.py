"""The report of an evaluation: one HTML file that needs nothing besides itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from moving_object_detector.common.files import write_atomically
from moving_object_detector.evaluation.correlation import correlations
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.protocols import find_protocol
from moving_object_detector.evaluation.report.plots import latency_histogram, scatter, score_bars
from moving_object_detector.evaluation.report.rows import Row, sequence_rows
from moving_object_detector.evaluation.report.template import count, flat, number, percent, render
from moving_object_detector.evaluation.results import RunResult
from moving_object_detector.evaluation.summary import Scores, run_scores

REPORT: Final = 'report.html'
_DATASETS: Final = {'davis2016': 'DAVIS2016', 'segtrackv2': 'SegTrackV2', 'fbms59': 'FBMS59'}
_SIGNALS: Final = {
    'consistency': (
        'Consistency',
        'How well the mask, carried along the flow, fits that of the next frame: their Jaccard index.',
    ),
    'flip': ('Sign flips', 'Share of the frames after which inside and outside of the mask change places.'),
    'empty': ('Empty masks', 'Share of the masks in which there is nothing.'),
    'area_change': ('Change of area', 'By which share of the larger one the areas of two masks in a row differ.'),
    'information': (
        'Information',
        'How much worse the inpainter predicts the flow in the mask from the flow around it than from itself.',
    ),
}
"""Name to heading and explanation."""


@dataclass(frozen=True)
class Card:
    """A number at the head of the report."""

    label: str
    value: str
    unit: str = ''
    what: str = ''
    main: bool = False


@dataclass(frozen=True)
class Signal:
    """A signal of quality that needs no annotation."""

    name: str
    label: str
    what: str
    mean: float | None
    """Over the sequences."""
    rho: float | None
    """Rank correlation with J."""
    count: int
    """Sequences that it was taken of."""
    plot: Markup | None


def title_of(run: RunResult) -> str:
    """Return data set and split, as people write them."""
    dataset, root = str(run.identity.get('dataset', '')), str(run.identity.get('root') or '')
    name = _DATASETS.get(dataset, dataset.capitalize())
    if dataset not in _DATASETS and root:
        name = f'{name} {Path(root).name}'
    return ' '.join(filter(None, (name, str(run.identity.get('split') or '')))) or 'Evaluation'


def write_report(folder: Path, run: RunResult) -> Path:
    """Write ``report.html`` into the run's folder.

    Args:
        folder: With the run's pictures, which become part of the page.
        run: What was evaluated.

    Returns:
        The file.

    Raises:
        UserError: It cannot be written, or the run names a protocol that there is not.

    """
    path = folder / REPORT
    write_atomically(path, render('report.html', _context(folder, run)))
    return path


def _context(folder: Path, run: RunResult) -> dict[str, Any]:
    variants = [{'name': name, 'scores': run_scores(run, name)} for name in run.variants]
    counting, scores = run.variants[-1], run_scores(run, run.variants[-1])
    truth = scores.j_mean is not None
    rows = sequence_rows(folder, run, truth=truth)
    latency = [value for sequence in run.sequences for value in sequence.latency]
    quantiles = _quantiles(latency)
    made_with = [run.details.get(name) for name in ('flow', 'engine', 'machine')]
    made = (str(run.details.get('started') or ''), str(run.details.get('revision') or ''))
    apart = ('configuration', 'variants')
    return {
        'eyebrow': 'Evaluation of moving object masks',
        'title': title_of(run),
        'under': [str(part) for part in (run.identity.get('method'), *made_with) if part],
        'footer': ' · '.join(filter(None, made)),
        'cards': _cards(run, scores, rows, quantiles),
        'protocol': find_protocol(run.protocol),
        'truth': truth,
        'variants': variants,
        'counting': counting,
        'others': run.variants[:-1],
        'still': scores.still_seconds,
        'bars': _bars(rows, scores, counting),
        'latency': _latency(latency, quantiles),
        'rows': rows,
        'dropped': any(row.dropped for row in rows),
        'signals': _signals(run, rows),
        'problems': [('', text) for text in run.problems] + [(row.name, text) for row in rows for text in row.problems],
        'run_facts': flat({name: value for name, value in run.identity.items() if name not in apart and value}),
        'configuration': flat(_mapping(run.identity.get('configuration'))),
        'details': flat(run.details),
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _quantiles(latency: Sequence[float]) -> dict[str, float]:
    if not latency:
        return {}
    median, late, latest = np.percentile(latency, (50, 95, 99)).tolist()
    return {'median': median, 'p95': late, 'p99': latest}


def _cards(run: RunResult, scores: Scores, rows: Sequence[Row], quantiles: Mapping[str, float]) -> list[Card]:
    frames, seconds = sum(row.frames for row in rows), sum(sequence.seconds for sequence in run.sequences)
    plural = 's' if len(rows) != 1 else ''
    cards = []
    if scores.j_mean is not None:
        cards.append(Card('J, region', number(scores.j_mean), what=f'{run.variants[-1]}, mean', main=True))
        cards.append(Card('F, boundary', number(scores.f_mean), what=f'recall {number(scores.f_recall)}'))
        if scores.objects:
            share = f'{100 * scores.found / scores.objects:.1f}'
            cards.append(Card('Objects found', share, '%', f'{count(scores.found)} of {count(scores.objects)}'))
    else:
        area = mean([row.area for row in rows if row.area is not None])
        cards.append(Card('Share of the image in the mask', percent(area).removesuffix(' %'), '%', main=True))
        cards.append(Card('Empty masks', percent(scores.empty).removesuffix(' %'), '%', 'of all masks'))
    cards.append(Card('Frames', count(frames), what=f'in {len(rows)} sequence{plural}'))
    if seconds > 0:
        cards.append(Card('Speed', f'{frames / seconds:.2f}', 'fps', 'evaluating, all variants'))
    if quantiles:
        latest = f'p95 {quantiles["p95"]:.0f} ms'
        cards.append(Card('Latency, median', f'{quantiles["median"]:.0f}', 'ms', latest))
    return cards


def _bars(rows: Sequence[Row], scores: Scores, counting: str) -> Markup | None:
    known = {row.name: row.scores.j_mean for row in rows if row.scores.j_mean is not None}
    if len(known) < 2 or scores.j_mean is None:
        return None
    others = {row.name: row.others for row in rows}
    return score_bars(known, others, scores.j_mean, f'J of {counting} for each sequence')


def _latency(latency: Sequence[float], quantiles: Mapping[str, float]) -> dict[str, Any] | None:
    if not latency:
        return None
    words = ', '.join(f'{name} {value:.1f}' for name, value in quantiles.items())
    note = f'{words}, longest {max(latency):.1f} ms; {count(len(latency))} frames.'
    return {'plot': latency_histogram(latency, quantiles), 'note': note}


def _signals(run: RunResult, rows: Sequence[Row]) -> list[Signal]:
    related = correlations(run)
    signals: list[Signal] = []
    for name in dict.fromkeys(name for row in rows for name in row.signals):
        label, what = _SIGNALS.get(name, (name.replace('_', ' ').capitalize(), ''))
        values = [(value, row.scores.j_mean) for row in rows if (value := row.signals.get(name)) is not None]
        points = [(value, j) for value, j in values if j is not None]
        correlation = related.get(name)
        if values:
            signals.append(
                Signal(
                    name=name,
                    label=label,
                    what=what,
                    mean=mean([value for value, _ in values]),
                    rho=None if correlation is None else correlation.rho,
                    count=0 if correlation is None else correlation.count,
                    plot=scatter(points, f'signal-{len(signals)}', f'{label} and J') if len(points) > 1 else None,
                )
            )
    return signals
