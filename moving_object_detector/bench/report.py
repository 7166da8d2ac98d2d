"""Statistics of measured times, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from moving_object_detector.bench.cases import NAIVE, REFERENCE, Case, Variant

PERCENTILES: Final = {'median': 50, 'p95': 95, 'p99': 99}


@dataclass
class Measured:
    """The measurements of a case."""

    case: Case
    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)
    """Times of the calls of each round, seconds."""
    stages: dict[str, list[float]] = field(default_factory=dict)
    """Times of all runs of each stage, seconds."""
    memory: dict[str, float] = field(default_factory=dict)
    """Peak memory of its process, MB."""
    failure: str = ''
    """Why it could not be measured."""

    def add(self, turn: tuple[list[float], dict[str, list[float]]] | None) -> None:
        """Add the times of calls and stages of the next round."""
        if turn is not None:
            self.rounds.append(turn[0])
            for name, times in turn[1].items():
                self.stages.setdefault(name, []).extend(times)

    def figures(self, others: Sequence[Measured]) -> dict[str, Any]:
        """Return the figures for JSON, with the time ratios of the naive and the reference case in ``others``."""
        calls = [seconds for own in self.rounds for seconds in own]
        slow = [other for other in others if other.case.variant in (NAIVE, REFERENCE) and other is not self]
        return {
            'variant': str(self.case.variant),
            'engine': self.facts['engine'],
            'threads': self.facts['threads'],
            'rounds': len(self.rounds),
            'calls': len(calls),
            'milliseconds': summary(calls),
            'per second': round(1.0 / float(np.median(calls)), 3),
            'stages': {name: summary(times) for name, times in self.stages.items()},
            'memory': self.memory,
            'ratios': {str(other.case.variant): ratio(other.rounds, self.rounds) for other in slow},
        }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, p95 and p99 of times, milliseconds."""
    return {name: round(1000 * float(np.percentile(seconds, share)), 2) for name, share in PERCENTILES.items()}


def ratio(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the time ratio of a slow case to a fast one, from the seconds of rounds in which both took turns.

    ``ratio`` is that of the medians over all rounds; ``low`` and ``high`` are quartiles of the ratios within a round,
    where disturbances of the machine longer than a round cancel.
    """
    whole = np.median(np.concatenate(slow)) / np.median(np.concatenate(fast))
    per_round = [np.median(a) / np.median(b) for a, b in zip(slow, fast, strict=True)]
    low, high = np.percentile(per_round, (25, 75))
    return {'ratio': round(float(whole), 2), 'low': round(float(low), 2), 'high': round(float(high), 2)}


def group_report(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the figures for JSON of a group with at least one measured case."""
    about = {name: measured[0].facts[name] for name in ('size', 'window', 'flow')}
    return {'name': measured[0].case.group, **about, 'cases': [one.figures(measured) for one in measured]}


# Tables --------------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    groups = report['groups']
    before, after = report['load average']
    versions = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    load = f'load average {before:.1f} before and {after:.1f} after'
    parts = [f'{report["machine"]}; {report["image"]} images; {load}; {report["seconds"]:.0f} s; {versions}']
    parts += ['**From image message to mask message**', frame_table(groups), *map(stage_table, groups)]
    if report['skipped']:
        parts.append('\n'.join(f'- {name} left out: {reason}' for name, reason in report['skipped'].items()))
    return '\n\n'.join(parts)


def frame_table(groups: Sequence[dict[str, Any]]) -> str:
    """Return the table of end-to-end figures by setting and engine, the fastest engine of a setting in bold."""
    titles = ('setting', 'engine', 'median ms', 'p95', 'p99', 'frames/s', 'peak MB', 'vs naive', 'vs reference')
    rows = []
    for group in groups:
        height, width = group['size']
        setting = f'{group["name"]}: {width}x{height}, {group["window"]}, {group["flow"]}'
        fastest = min(group['cases'], key=lambda case: case['milliseconds']['median'])
        for case in group['cases']:
            engine = f'**{case["engine"]}**' if case is fastest else case['engine']
            times = (f'{case["milliseconds"][name]:.4g}' for name in PERCENTILES)
            memory = f'{case["memory"]["resident"]:.0f}'
            if 'gpu' in case['memory']:
                memory += f', GPU {case["memory"]["gpu"]:.0f}'
            ratios = (_ratio(case, NAIVE), _ratio(case, REFERENCE))
            rows.append([setting, engine, *times, f'{case["per second"]:.3g}', memory, *ratios])
    return _table(titles, rows)


def stage_table(group: dict[str, Any]) -> str:
    """Return the table of median times of a setting's stages, milliseconds."""
    staged = [case for case in group['cases'] if case['stages']]
    columns = [{**case['stages'], '**frame**': case['milliseconds']} for case in staged]
    names = [*dict.fromkeys(name for case in staged for name in case['stages']), '**frame**']
    rows = [[name, *(f'{one[name]["median"]:.4g}' if name in one else '' for one in columns)] for name in names]
    return _table((f'{group["name"]}, median ms', *(case['engine'] for case in staged)), rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (titles, ['---'] * len(titles), *rows))


def _ratio(case: dict[str, Any], slow: Variant) -> str:
    found = case['ratios'].get(str(slow))
    return f'{found["ratio"]}x ({found["low"]} to {found["high"]})' if found else ''
