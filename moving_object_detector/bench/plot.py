"""A report as a picture: where the milliseconds of a frame go."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.errors import UserError

SUFFIXES: Final = ('.png', '.svg', '.pdf')
REST: Final = 'rest'
GREY: Final = 7
"""Of matplotlib's ten colours; kept for the rest."""


def check_plot(path: Path) -> None:
    """Say before anything is measured that a plot cannot be drawn.

    Raises:
        UserError: matplotlib is missing, or it is no file name of a picture.

    """
    if path.suffix not in SUFFIXES:
        raise UserError(f'--plot {path}: the name must end in {", ".join(SUFFIXES)}')
    if find_spec('matplotlib') is None:
        raise UserError('--plot needs matplotlib: pip install -r requirements/report.txt')


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw each setting's cases as bars of their stages' medians.

    Args:
        report: With at least one group of frames.
        path: The picture.

    Raises:
        UserError: There is nothing to draw, or the file cannot be written.

    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    groups = [group for group in report['groups'] if group['kind'] == 'frame']
    if not groups:
        raise UserError('--plot shows frames, but --only has chosen none')
    stages = [*dict.fromkeys(name for group in groups for case in group['cases'] for name in case['stages']), REST]
    palette = [colormaps['tab10'](index) for index in range(10) if index != GREY]
    colours: dict[str, Any] = dict(zip(stages, cycle(palette), strict=False)) | {REST: '0.85'}
    heights = [len(group['cases']) + 1.2 for group in groups]
    figure = Figure(figsize=(9, 0.38 * sum(heights) + 0.9), layout='constrained')
    panels = figure.subplots(len(groups), squeeze=False, height_ratios=heights)[:, 0]
    for group, axes in zip(groups, panels, strict=True):
        for row, case in enumerate(group['cases']):
            left = 0.0
            for name, length in _parts(case):
                axes.barh(row, length, left=left, color=colours[name], height=0.7)
                left += length
            axes.text(left, row, f'  {case["per second"]:.3g}/s', va='center', fontsize=9)
        axes.set_yticks(range(len(group['cases'])), [case['engine'] for case in group['cases']], fontsize=9)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        height, width = group['size'] or ('?', '?')
        axes.set_title(f'{group["name"]}: {width}x{height}, window {group["window"]}', fontsize=10, loc='left')
        axes.spines[['top', 'right']].set_visible(False)
    panels[-1].set_xlabel('median milliseconds from image message to mask message')
    handles = [axes.barh(0, 0, color=colours[name], label=name) for name in stages]
    figure.legend(handles=handles, loc='outside lower center', ncols=5, fontsize=8, frameon=False)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error


def _parts(case: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the medians of the stages, and what they leave of the frame's."""
    parts = [(name, times['median']) for name, times in case['stages'].items()]
    rest = case['milliseconds']['median'] - sum(length for _, length in parts)
    return [*parts, (REST, max(rest, 0.0))]
