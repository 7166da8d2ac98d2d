"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from moving_object_detector.bench.cases import EAGER, NAIVE, REFERENCE
from moving_object_detector.bench.report import fastest, find_ratio

WINOGRAD: Final = (
    'More than 100 % is possible: Winograd convolutions take fewer multiplications than the direct ones whose '
    'operations are counted.'
)


def markdown(report: dict[str, Any]) -> str:
    """Return a whole report as Markdown."""
    frames = [group for group in report['groups'] if group['kind'] == 'frame']
    networks = [group for group in report['groups'] if group['kind'] != 'frame']
    parts = [about(report)]
    if frames:
        parts += ['**From image message to mask message**', frame_table(frames), *map(headline, frames)]
        parts += [stage_table(group) for group in frames]
    parts += [network_table(group) for group in networks]
    if networks:
        parts.append(WINOGRAD)
    parts += [f'Note: {note}.' for note in report['notes']]
    if report['skipped']:
        parts.append('\n'.join(f'- {one["case"]} left out: {one["reason"]}' for one in report['skipped']))
    return '\n\n'.join(parts)


def about(report: dict[str, Any]) -> str:
    """Return where and on what it was measured."""
    before, after = report['load average']
    versions = ', '.join(f'{name} {version}' for name, version in report['versions'].items())
    return (
        f'{report["machine"]}; {report["image"]} images; load average {before:.1f} before and {after:.1f} after; '
        f'{report["seconds"]:.0f} s; {versions}'
    )


def frame_table(groups: Sequence[dict[str, Any]]) -> str:
    """Return end-to-end figures of several settings."""
    rows = [
        [
            setting(group),
            _bold_if(case['engine'], case is fastest(group)),
            *_times(case),
            f'{case["per second"]:.3g}',
            _memory(case),
            _speedup(group, str(NAIVE), case),
            _speedup(group, str(REFERENCE), case),
        ]
        for group in groups
        for case in group['cases']
    ]
    titles = ('setting', 'engine', 'median ms', 'p95', 'p99', 'frames/s', 'peak MB', 'vs naive', 'vs reference')
    return _table(titles, rows)


def setting(group: dict[str, Any]) -> str:
    """Return name, size, window and flow of a setting."""
    height, width = group['size'] or ('?', '?')
    return f'{group["name"]}: {width}x{height}, {group["window"]}' + (f', {group["flow"]}' if 'flow' in group else '')


def headline(group: dict[str, Any]) -> str:
    """Return our fastest beside the reference and the naive pipeline, with the spread of the ratios."""
    best = fastest(group)
    said = []
    for slow, name in ((REFERENCE, 'our reference (PyTorch float32 through the ring)'), (NAIVE, 'the naive pipeline')):
        found = find_ratio(group, str(slow), best['variant'])
        if found:
            said.append(
                f'{found["ratio"]}x {name} (quartiles of {best["rounds"]} rounds {found["low"]} to {found["high"]})'
            )
    speed = f'{group["name"]}: fastest is {best["engine"]}, {best["per second"]:.3g} frames/s'
    return '; '.join([speed, *said])


def stage_table(group: dict[str, Any]) -> str:
    """Return the medians of a setting's stages, in milliseconds."""
    cases = [case for case in group['cases'] if case['stages']]
    names = dict.fromkeys(name for case in cases for name in case['stages'])
    rows = [[name, *(_median(case['stages'].get(name)) for case in cases)] for name in names]
    rows.append(['**frame**', *(_median(case['milliseconds']) for case in cases)])
    return _table((f'{group["name"]}, median ms', *(case['engine'] for case in cases)), rows)


def network_table(group: dict[str, Any]) -> str:
    """Return a network's figures with the rates it reaches, beside those of matrix products: the roofline."""
    height, width = group['size']
    what = f'{group["name"]}: {group["pairs"]} pairs of {width}x{height}, {group["gflop"]} GFLOP'
    titles = (
        *(what, 'median ms', 'p95', 'p99', 'peak MB', 'vs eager', 'GFLOP/s', 'matrix product GFLOP/s'),
        *('share of it', 'share of float32'),
    )
    rows = [
        [
            _bold_if(case['engine'], case is fastest(group)),
            *_times(case),
            _memory(case),
            _speedup(group, str(EAGER), case),
            f'{case["gflop per second"]}',
            f'{case["product gflop per second"] or ""}',
            _percent(case['share of product']),
            _percent(case['share of float32 product']),
        ]
        for case in group['cases']
    ]
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ['---'] * len(titles), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _times(case: dict[str, Any]) -> list[str]:
    return [f'{case["milliseconds"][name]:.4g}' for name in ('median', 'p95', 'p99')]


def _median(times: dict[str, float] | None) -> str:
    return f'{times["median"]:.4g}' if times else ''


def _memory(case: dict[str, Any]) -> str:
    memory = case['memory']
    return f'{memory["resident"]:.0f}' + (f', GPU {memory["gpu"]:.0f}' if 'gpu' in memory else '')


def _speedup(group: dict[str, Any], slow: str, case: dict[str, Any]) -> str:
    found = find_ratio(group, slow, case['variant'])
    return f'{found["ratio"]}x ({found["low"]} to {found["high"]})' if found else ''


def _percent(value: float | None) -> str:
    return '' if value is None else f'{value:.0%}'


def _bold_if(text: str, condition: bool) -> str:
    return f'**{text}**' if condition else text
