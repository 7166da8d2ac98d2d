"""From times to figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from moving_object_detector.bench.cases import EAGER, NAIVE, REFERENCE, Case, Group, Variant

PERCENTILES: Final = (('median', 50), ('p95', 95), ('p99', 99))
QUARTILES: Final = (25, 75)
TIMES: Final = ('median ms', 'p95', 'p99')


class Turn(NamedTuple):
    """What a process measured in its turn; seconds."""

    calls: list[float]
    stages: dict[str, list[float]]


@dataclass
class Measured:
    """What was found of a case; times in seconds."""

    case: Case
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> list[list[float]]:
        """Of the calls of each round."""
        return [turn.calls for turn in self.turns]

    @property
    def calls(self) -> list[float]:
        """Of all calls."""
        return [seconds for turn in self.turns for seconds in turn.calls]

    @property
    def stages(self) -> dict[str, list[float]]:
        """Of all runs of each stage."""
        names = self.turns[0].stages if self.turns else {}
        return {name: [seconds for turn in self.turns for seconds in turn.stages.get(name, [])] for name in names}


# Figures -------------------------------------------------------------------------------------------------------------


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Return median, p95 and p99 of some times, in milliseconds."""
    return {name: round(1000 * float(np.percentile(seconds, share)), 2) for name, share in PERCENTILES}


def ratio(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return how many times longer one thing takes than another, from the seconds of rounds in which both took turns.

    ``ratio`` is that of the medians over all rounds; ``low`` and ``high`` are the quartiles of the rounds' own ratios:
    what disturbs the machine for longer than a round disturbs both alike.
    """
    whole = np.median(np.concatenate(slow)) / np.median(np.concatenate(fast))
    own = [np.median(a) / np.median(b) for a, b in zip(slow, fast, strict=True)]
    low, high = np.percentile(own, QUARTILES)
    return {'ratio': round(float(whole), 2), 'low': round(float(low), 2), 'high': round(float(high), 2)}


def group_report(group: Group, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the figures of a group, of which at least one case was measured, as JSON has them."""
    first = next((one.facts for one in measured if 'size' in one.facts), measured[0].facts)
    report = {'name': group.name, 'kind': group.kind, **{name: first.get(name) for name in ('pairs', 'size')}}
    report |= {name: first[name] for name in ('window', 'flow') if name in first}
    report['cases'] = [
        {
            'variant': str(one.case.variant),
            'engine': one.facts['engine'],
            'threads': one.facts['threads'],
            'rounds': len(one.turns),
            'calls': len(one.calls),
            'milliseconds': summary(one.calls),
            'per second': round(1.0 / float(np.median(one.calls)), 3),
            'stages': {name: summary(times) for name, times in one.stages.items()},
            'memory': one.memory,
        }
        for one in measured
    ]
    report['ratios'] = [
        {'slow': str(slow.case.variant), 'fast': str(fast.case.variant), **ratio(slow.rounds, fast.rounds)}
        for slow in measured
        if slow.case.variant in (NAIVE, EAGER, REFERENCE)
        for fast in measured
        if fast is not slow
    ]
    return report


def fastest(report: dict[str, Any]) -> dict[str, Any]:
    """Return the case of a group's report that has the least median."""
    return min(report['cases'], key=lambda case: case['milliseconds']['median'])


def find_ratio(report: dict[str, Any], slow: str, fast: str) -> dict[str, Any] | None:
    """Return how many times longer one variant takes than another, from a group's report."""
    return next((found for found in report['ratios'] if (found['slow'], found['fast']) == (slow, fast)), None)


# Tables --------------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """Return a whole report as Markdown."""
    frames = [group for group in report['groups'] if group['kind'] == 'frame']
    before, after = report['load average']
    versions = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    load = f'load average {before:.1f} before and {after:.1f} after'
    parts = [f'{report["machine"]}; {report["image"]} images; {load}; {report["seconds"]:.0f} s; {versions}']
    if frames:
        parts += ['**From image message to mask message**', frame_table(frames), *map(headline, frames)]
        parts += map(stage_table, frames)
    parts += [network_table(group) for group in report['groups'] if group['kind'] != 'frame']
    parts += [f'Note: {note}.' for note in report['notes']]
    if report['skipped']:
        parts.append('\n'.join(f'- {one["case"]} left out: {one["reason"]}' for one in report['skipped']))
    return '\n\n'.join(parts)


def frame_table(groups: Sequence[dict[str, Any]]) -> str:
    """Return end-to-end figures of several settings."""
    rows = []
    for group in groups:
        height, width = group['size'] or ('?', '?')
        flow = f', {group["flow"]}' if 'flow' in group else ''
        for case in group['cases']:
            rate, *ratios = f'{case["per second"]:.3g}', _ratio(group, NAIVE, case), _ratio(group, REFERENCE, case)
            setting = f'{group["name"]}: {width}x{height}, {group["window"]}{flow}'
            rows.append([setting, *_times(group, case), rate, _memory(case), *ratios])
    return _table(('setting', 'engine', *TIMES, 'frames/s', 'peak MB', 'vs naive', 'vs reference'), rows)


def headline(group: dict[str, Any]) -> str:
    """Return our fastest beside the reference and the naive pipeline, with the spread of the ratios."""
    best = fastest(group)
    said = [f'{group["name"]}: fastest is {best["engine"]}, {best["per second"]:.3g} frames/s']
    for slow, name in ((REFERENCE, 'our reference (PyTorch float32 through the ring)'), (NAIVE, 'the naive pipeline')):
        if found := find_ratio(group, str(slow), best['variant']):
            spread = f'quartiles of {best["rounds"]} rounds {found["low"]} to {found["high"]}'
            said.append(f'{found["ratio"]}x {name} ({spread})')
    return '; '.join(said)


def stage_table(group: dict[str, Any]) -> str:
    """Return the medians of a setting's stages, in milliseconds."""
    cases = [{**case['stages'], '**frame**': case['milliseconds']} for case in group['cases'] if case['stages']]
    names = [*dict.fromkeys(name for case in cases for name in case if name != '**frame**'), '**frame**']
    rows = [[name, *(f'{case[name]["median"]:.4g}' if name in case else '' for case in cases)] for name in names]
    engines = (case['engine'] for case in group['cases'] if case['stages'])
    return _table((f'{group["name"]}, median ms', *engines), rows)


def network_table(group: dict[str, Any]) -> str:
    """Return a network's figures."""
    height, width = group['size']
    titles = (f'{group["name"]}: {group["pairs"]} pairs of {width}x{height}', *TIMES, 'peak MB', 'vs eager')
    rows = [[*_times(group, case), _memory(case), _ratio(group, EAGER, case)] for case in group['cases']]
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (titles, ['---'] * len(titles), *rows))


def _times(group: dict[str, Any], case: dict[str, Any]) -> list[str]:
    engine = f'**{case["engine"]}**' if case is fastest(group) else case['engine']
    return [engine, *(f'{case["milliseconds"][name]:.4g}' for name, _ in PERCENTILES)]


def _memory(case: dict[str, Any]) -> str:
    memory = case['memory']
    return f'{memory["resident"]:.0f}' + (f', GPU {memory["gpu"]:.0f}' if 'gpu' in memory else '')


def _ratio(group: dict[str, Any], slow: Variant, case: dict[str, Any]) -> str:
    found = find_ratio(group, str(slow), case['variant'])
    return f'{found["ratio"]}x ({found["low"]} to {found["high"]})' if found else ''
