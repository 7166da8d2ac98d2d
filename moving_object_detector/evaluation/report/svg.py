"""From matplotlib's figures to SVG that lives in a page: its colours follow the page's theme, its bytes do not vary."""

from __future__ import annotations

import io
import re
from typing import Any, Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK: Final = '#010101'
MUTED: Final = '#010102'
LINE: Final = '#010103'
ACCENT: Final = '#010104'
SECOND: Final = '#010105'
PAPER: Final = '#010106'
_VARIABLES: Final = {
    INK: '--ink', MUTED: '--muted', LINE: '--line', ACCENT: '--accent', SECOND: '--second', PAPER: '--paper',
}  # fmt: skip
"""Stand-ins for the variables of the page's style; matplotlib knows colours by number alone."""
_SETTINGS: Final[dict[Any, Any]] = {'svg.hashsalt': 'report', 'svg.fonttype': 'none'}


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure without pyplot's global state, and its plain axes.

    Args:
        width: Points; the page scales it.
        height: Points.

    """
    figure = Figure(figsize=(width / 72, height / 72), layout='constrained')
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0, pad=4)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=LINE, linewidth=0.7)
    for side, spine in axes.spines.items():
        spine.set_visible(side == 'bottom')
        spine.set_color(LINE)
    return figure, axes


def to_markup(figure: Figure, name: str, title: str) -> Markup:
    """Return the figure as an SVG element.

    Args:
        figure: What to draw.
        name: Unique in the page; what the drawing refers to inside itself is named by it.
        title: What it shows, for those who do not see it.

    """
    file = io.StringIO()
    with mpl.rc_context(_SETTINGS):
        empty = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=empty)
    text = file.getvalue()
    text = text[text.index('<svg') :]
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in referred else '', text)
    text = re.sub(r'(href="|url\()#', rf'\g<1>#{name}-', text)
    text = re.sub(r'<!--.*?-->|<metadata>.*?</metadata>|<style [^>]*>.*?</style>', '', text, flags=re.DOTALL)
    text = re.sub(r' font-family: [^;"]*;', '', text)
    text = re.sub(r'(?<= )(?:d|x|y|transform)="[^"]*"', lambda m: re.sub(r'(\.\d\d)\d+', r'\1', m[0]), text)
    text = re.sub(r'\s*\n\s*', '\n', text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f'var({variable})')
    head, body = text.split('>', 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None
    # matplotlib escapes what it draws.
    opening = Markup('<svg class="plot" role="img" aria-label="{}" {} xmlns:xlink="http://www.w3.org/1999/xlink">')
    return opening.format(title, Markup(box[0])) + Markup(body)
