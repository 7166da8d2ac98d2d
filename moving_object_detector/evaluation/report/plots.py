"""The drawings of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moving_object_detector.evaluation.report.svg import ACCENT, INK, MUTED, PAPER, SECOND, new_axes, to_markup
from moving_object_detector.evaluation.results import Column

_SPARK_POINTS: Final = 60
_OTHER_STYLES: Final = ((0, (4, 2)), (0, (1, 1.5)))
"""Dashes of the variants that do not count."""
_FEW: Final = 0.6
"""Share of frames with a value under which each of them gets a dot."""


def known(column: Column) -> list[tuple[int, float]]:
    """Return the frames that have a value, and it."""
    return [(index, value) for index, value in enumerate(column) if value is not None]


def _bar_axes(names: Sequence[str]) -> tuple[Figure, Axes]:
    """Return axes with a place for each name, from 0."""
    figure, axes = new_axes(max(760, 13 * len(names) + 60), 230)
    axes.grid(visible=False, axis='x')
    axes.set_xticks(range(len(names)), names, rotation=48, ha='right', rotation_mode='anchor')
    for label in axes.get_xticklabels():
        label.set(fontsize=8, color=INK, parse_math=False)
    axes.set_xlim(-0.6, len(names) - 0.4)
    return figure, axes


def _mark_mean(axes: Axes, mean: float, text: str) -> None:
    axes.axhline(mean, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    place = (axes.get_xlim()[1], mean)
    axes.annotate(f'mean\n{text}', place, (4, 0), textcoords='offset points', va='center', fontsize=8.5, color=INK)


def score_bars(scores: Mapping[str, float], others: Mapping[str, Sequence[float]], mean: float, title: str) -> Markup:
    """Draw a bar for each sequence, from the best to the worst.

    Args:
        scores: Name to J of the variant that counts.
        others: Name to J of the other variants, shown as marks on the bar.
        mean: Shown as a line.
        title: For those who do not see it.

    """
    names = sorted(scores, key=lambda name: (-scores[name], name))
    figure, axes = _bar_axes(names)
    axes.bar(range(len(names)), [scores[name] for name in names], width=0.72, color=ACCENT, alpha=0.85)
    marks = [(place, value) for place, name in enumerate(names) for value in others.get(name, ())]
    if marks:
        for colour, width in ((PAPER, 3.6), (SECOND, 1.8)):
            x, y = zip(*marks, strict=True)
            axes.scatter(x, y, marker='_', s=50, linewidths=width, color=colour, zorder=3)
    _mark_mean(axes, mean, f'{mean:.3f}')
    axes.set_ylim(0, 1)
    return to_markup(figure, 'bars', title)


def difference_bars(differences: Mapping[str, float], mean: float, title: str) -> Markup:
    """Draw a bar for each sequence, from where B is best against A to where it is worst.

    Args:
        differences: Name to J of B minus J of A.
        mean: Shown as a line.
        title: For those who do not see it.

    """
    names = sorted(differences, key=lambda name: (-differences[name], name))
    values = [differences[name] for name in names]
    figure, axes = _bar_axes(names)
    axes.bar(range(len(names)), values, width=0.72, color=[ACCENT if v > 0 else SECOND for v in values], alpha=0.85)
    axes.axhline(0, color=MUTED, linewidth=0.9)
    _mark_mean(axes, mean, f'{mean:+.3f}')
    reach = 1.15 * max(*map(abs, values), abs(mean), 0.01)
    axes.set_ylim(0 if min(values) >= 0 < max(values) else -reach, 0 if max(values) <= 0 > min(values) else reach)
    axes.yaxis.set_major_formatter(lambda value, _: f'{value:+.2f}' if value else '0')
    return to_markup(figure, 'differences', title)


def curves(
    columns: Mapping[str, Column], marked: Sequence[tuple[int, str]], name: str, title: str, *, share: bool = False
) -> Markup | None:
    """Draw values over the frames of a sequence.

    Args:
        columns: Variant to values of 0 to 1; the last one counts.
        marked: Frames to mark on the last one, with ``best`` or ``worst``.
        name: Unique in the page.
        title: For those who do not see it.
        share: Whether the values are shares of the image, drawn as high as they reach; otherwise 0 to 1 is drawn.

    Returns:
        None if the one that counts has no value.

    """
    *others, counting = columns.items()
    points = known(counting[1])
    if not points:
        return None
    figure, axes = new_axes(430, 118)
    for (_, column), style in zip(others, _OTHER_STYLES * (1 + len(others) // len(_OTHER_STYLES)), strict=False):
        if known(column):
            axes.plot(*zip(*known(column), strict=True), color=SECOND, linewidth=0.9, linestyle=style)
    x, y = zip(*points, strict=True)
    axes.fill_between(x, y, color=ACCENT, alpha=0.13, linewidth=0)
    axes.plot(x, y, color=ACCENT, linewidth=1.7, solid_joinstyle='round', clip_on=False)
    if len(points) < _FEW * len(counting[1]) or len(points) == 1:
        axes.scatter(x, y, s=9, color=ACCENT, zorder=3, clip_on=False)
    values = dict(points)
    for index, kind in marked:
        if index in values:
            face = ACCENT if kind == 'best' else PAPER
            axes.scatter(
                index, values[index], s=30, facecolor=face, edgecolor=ACCENT, linewidth=1.5, zorder=4, clip_on=False
            )
    axes.set_xlim(0, max(1, len(counting[1]) - 1))
    if share:
        axes.set_ylim(0, max(0.02, 1.1 * max(y)))
        axes.yaxis.set_major_formatter(lambda value, _: f'{100 * value:.3g} %')
    else:
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if share:
        axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.grid(visible=False, axis='x')
    return to_markup(figure, name, title)


def latency_histogram(latency: Sequence[float], marks: Mapping[str, float]) -> Markup:
    """Draw how often which latency occurred, up to where all but the last hundredth lie.

    Args:
        latency: Milliseconds, one or more.
        marks: Label to milliseconds, shown as lines.

    """
    limit = min(max(latency), 1.25 * float(np.percentile(latency, 99)))
    limit = max(limit, 1e-3)
    low = 0.9 * min(latency) if min(latency) > 0.5 * limit else 0.0
    counts, edges = np.histogram([value for value in latency if value <= limit], bins=48, range=(low, limit * 1.001))
    figure, axes = new_axes(430, 190)
    axes.grid(visible=False, axis='x')
    axes.bar(edges[:-1], counts, width=np.diff(edges), align='edge', color=ACCENT, alpha=0.85, linewidth=0)
    top = 1.5 * max(1, counts.max())
    for level, (label, value) in enumerate(sorted(marks.items(), key=lambda item: item[1])):
        if value > limit:
            continue
        axes.axvline(value, ymax=0.76 + 0.085 * level, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        left = value < low + 0.6 * (limit - low)
        height = top * (0.78 + 0.085 * level)
        text = f' {label} {value:.3g}' if left else f'{label} {value:.3g} '
        axes.text(value, height, text, fontsize=8.5, color=INK, ha='left' if left else 'right', va='center')
    axes.set_ylim(0, top)
    axes.set_xlim(low, limit)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlabel('milliseconds', fontsize=8.5, color=MUTED)
    axes.set_ylabel('frames', fontsize=8.5, color=MUTED)
    return to_markup(figure, 'latency', 'Histogram of the latency')


def scatter(points: Sequence[tuple[float, float]], name: str, title: str) -> Markup:
    """Draw a dot for each sequence: a signal to the right, J upwards."""
    figure, axes = new_axes(190, 150)
    x, y = zip(*points, strict=True)
    axes.scatter(x, y, s=20, color=ACCENT, alpha=0.7, linewidths=0)
    axes.set_ylim(-0.03, 1.03)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel('J', rotation=0, color=MUTED, labelpad=6)
    return to_markup(figure, name, title)


def sparkline(column: Column, top: float = 1.0) -> Markup | None:
    """Draw a small curve for a cell of a table.

    Args:
        column: Values of 0 to ``top``.
        top: Value at the upper edge.

    Returns:
        None if there are fewer than two values.

    """
    points = known(column)
    if len(points) < 2:
        return None
    groups = np.array_split(np.asarray(points), min(len(points), _SPARK_POINTS))
    last = max(1, len(column) - 1)
    dots = ((100 * group[:, 0].mean() / last, 22 - 20 * group[:, 1].mean() / top) for group in groups)
    line = ' '.join(f'{x:.1f},{y:.1f}' for x, y in dots)
    return Markup(
        '<svg class="spark" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">'
        '<polyline points="{}" vector-effect="non-scaling-stroke"/></svg>'
    ).format(line)
