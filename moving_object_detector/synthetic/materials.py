"""Materials of a flight's world by name: repeating tiles, and cards with a cut-out outline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic.tiles import GREENS, TILES, Card, Floats, Material, Picture, halved, noise


def _card(colour: NDArray[Any], alpha: Picture, margins: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Card:
    """Make a card, transparent within margins at its top, bottom, left and right."""
    for picture, width in zip((alpha, alpha[::-1], alpha.T, alpha.T[::-1]), margins, strict=True):
        picture[:width] = 0
    return Card(tuple(halved(np.dstack((colour, alpha)))))


def _blank(height: int, width: int, colour: Sequence[float] | Floats) -> tuple[Floats, Picture]:
    """Return a picture of one colour and a transparent alpha."""
    return np.full((height, width, 3), colour, np.float32), np.zeros((height, width), np.uint8)


def _both(draw: Callable[..., Any], sheet: tuple[Floats, Picture], tone: NDArray[Any], *shape: Any, **how: Any) -> None:
    """Draw an antialiased shape in a tone, opaque in alpha."""
    colour, alpha = sheet
    draw(colour, *shape, color=tone.tolist(), lineType=cv2.LINE_AA, **how)
    draw(alpha, *shape, color=255, lineType=cv2.LINE_AA, **how)


def _leaf_colours(rng: np.random.Generator) -> Floats:
    autumn = [(148, 104, 44), (170, 128, 58), (120, 92, 44)]
    family = autumn if rng.random() < 0.15 else GREENS[rng.integers(3)]
    return np.array(family, np.float32)


def _crown(rng: np.random.Generator) -> Card:
    """Return a bough full of leaves, lit from above."""
    side = 192
    sheet = _blank(side, side, (34, 44, 22))
    colours = _leaf_colours(rng)
    count = int(rng.integers(5, 12))
    centres = np.stack((rng.normal(0.5, 0.17, count), rng.normal(0.5, 0.15, count)), 1).clip(0.22, 0.78) * side
    places, sizes = [], []
    for centre, radius in zip(centres, rng.uniform(0.09, 0.2, count) * side, strict=True):
        leaves = int(rng.integers(90, 150))
        places.append(centre + rng.normal(0, 0.5, (leaves, 2)) * radius)
        sizes.append(rng.uniform(2.0, 6.5, leaves))
    spots, extents = np.concatenate(places), np.concatenate(sizes)
    # From the shaded bottom to the lit top.
    order = np.argsort(-spots[:, 1] + rng.normal(0, 25, len(spots)))
    for place, size in zip(spots[order], extents[order], strict=True):
        light = 1.2 - 0.75 * place[1] / side + rng.normal(0, 0.14)
        tone = colours[rng.integers(len(colours))] * light
        axes, middle = (int(size * 16), int(size * 10)), (place * 16).astype(int).tolist()
        _both(cv2.ellipse, sheet, tone, middle, axes, float(rng.uniform(0, 180)), 0, 360, thickness=-1, shift=4)
    return _card(*sheet, (3, 3, 3, 3))


def _conifer(rng: np.random.Generator) -> Card:
    height, width = 320, 160
    colour, alpha = _blank(height, width, (28, 40, 26))
    tones = np.array([(34, 52, 34), (50, 70, 42), (72, 92, 54)], np.float32)
    for y in np.sort(rng.uniform(8, height - 6, 900)):
        reach = (y / height) ** 0.9 * width * 0.46 * rng.uniform(0.25, 1.0)
        side = -1 if rng.random() < 0.5 else 1
        start = (int(width / 2 + side * reach * rng.uniform(0, 0.5)), int(y))
        end = (int(width / 2 + side * reach), int(y + reach * rng.uniform(0.1, 0.5)))
        tone = tones[rng.integers(3)] * rng.uniform(0.7, 1.25)
        _both(cv2.line, (colour, alpha), tone, start, end, thickness=int(rng.integers(2, 5)))
    return _card(colour, alpha, (2, 2, 2, 2))


def _branch(rng: np.random.Generator) -> Card:
    """Return a bough from the left edge to the right, with twigs and some leaves."""
    height, width = 160, 320
    colour, alpha = _blank(height, width, (70, 58, 46))
    leaves = _leaf_colours(rng)
    leafy = rng.random() < 0.75

    def grow(start: NDArray[np.float64], angle: float, length: float, thick: float) -> None:
        end = start + length * np.array((np.cos(angle), np.sin(angle)))
        tone = np.array((82, 68, 54), np.float64) * rng.uniform(0.7, 1.3)
        ends = start.astype(int).tolist(), end.astype(int).tolist()
        _both(cv2.line, (colour, alpha), tone, *ends, thickness=max(int(thick), 1))
        if leafy and thick < 4:
            for _ in range(int(rng.integers(2, 7))):
                spot = (start + (end - start) * rng.random() + rng.normal(0, 5, 2)).astype(int).tolist()
                axes, turn = (int(rng.integers(4, 9)), int(rng.integers(2, 5))), float(rng.uniform(0, 180))
                leaf = leaves[rng.integers(len(leaves))] * rng.uniform(0.7, 1.3)
                _both(cv2.ellipse, (colour, alpha), leaf, spot, axes, turn, 0, 360, thickness=-1)
        if length > 12:
            for _ in range(2):
                grow(end, angle + float(rng.normal(0, 0.45)), length * float(rng.uniform(0.6, 0.85)), thick * 0.7)

    grow(np.array((0.0, height / 2)), float(rng.normal(0, 0.15)), 75.0, 7.0)
    return _card(colour, alpha, (2, 2, 0, 2))


def _tuft(rng: np.random.Generator) -> Card:
    """Return tall grass or a shrub that stands on the card's lower edge."""
    height, width = 128, 160
    colours = _leaf_colours(rng)
    colour, alpha = _blank(height, width, colours[0] * 0.7)
    for _ in range(int(rng.integers(120, 320))):
        x = float(rng.normal(0.5, 0.14)) * width
        tip = (int(x + rng.normal(0, 22)), int(height * rng.uniform(0.05, 0.6)))
        tone = (colours[rng.integers(len(colours))] * rng.uniform(0.6, 1.3)).tolist()
        cv2.line(colour, (int(x), height), tip, tone, int(rng.integers(1, 4)), cv2.LINE_AA)
        cv2.line(alpha, (int(x), height), tip, 255, 2, cv2.LINE_AA)
    return _card(colour, alpha, (2, 0, 2, 2))


def _skyline(rng: np.random.Generator) -> Card:
    """Return a distant wood, rows of crowns."""
    height, width = 64, 1024
    colour, alpha = _blank(height, width, (58, 66, 46))
    greens = np.array([(58, 70, 44), (78, 90, 58), (98, 104, 70)], np.float32)
    for row in range(3):
        for x in np.arange(8, width - 8, 9):
            middle = (int(x + rng.normal(0, 4)), int(24 + 9 * row + rng.normal(0, 5)))
            axes = (int(rng.uniform(7, 15)), int(rng.uniform(8, 18)))
            tone = greens[rng.integers(3)] * rng.uniform(0.8, 1.15) * (1.1 - 0.15 * row)
            _both(cv2.ellipse, (colour, alpha), tone, middle, axes, 0, 0, 360, thickness=-1)
    alpha[46:] = 255
    return _card(colour + 9 * np.resize(noise(rng, 256, 0.5)[:64], (64, 1024))[..., None], alpha, (2, 0, 2, 2))


def _limb(rng: np.random.Generator) -> Card:
    # A white capsule with folds of cloth; the face colours it.
    height, width = 96, 48
    alpha = np.zeros((height, width), np.uint8)
    cv2.ellipse(alpha, (24, 48), (20, 46), 0, 0, 360, 255, -1, cv2.LINE_AA)
    alpha[14:-14, 5:-5] = 255
    folds = noise(rng, 96, 1.1, (2.0, 0.7))[:, :48]
    round_off = 1 - 0.35 * np.linspace(-1, 1, width)[None] ** 2
    return _card(((195 + 22 * folds) * round_off)[..., None].repeat(3, 2), alpha)


def _cloth(rng: np.random.Generator) -> Card:
    """Return a capsule with a pattern of light and dark: stripes, checks, halves, patches or a print."""
    height, width = 96, 48
    plain = _limb(rng).levels[0]
    ys, xs = np.mgrid[0:height, 0:width]
    step, share = float(rng.uniform(6, 24)), float(rng.uniform(0.3, 0.7))
    kind, shift = int(rng.integers(5)), float(rng.uniform(0, 1))
    across, down = ((axis / step + shift) % 1 < share for axis in (xs, ys))
    dark = (
        down,
        across ^ down,
        ys > height * rng.uniform(0.3, 0.7),
        noise(rng, 96, 0.8)[:, :48] > 0.25,
        np.hypot(xs - width / 2, ys - height * rng.uniform(0.25, 0.6)) < rng.uniform(6, 14),
    )[kind]
    tint = rng.uniform(0.1, 1.0, 3) if rng.random() < 0.5 else np.full(3, rng.uniform(0.1, 0.5))
    colour = plain[..., :3] * np.where(dark[..., None], tint, 1.0)
    return _card(colour.astype(np.float32), plain[..., 3].astype(np.uint8))


def _disc(rng: np.random.Generator) -> Card:
    """Return a white ball with a pattern."""
    side = 96
    alpha = np.zeros((side, side), np.uint8)
    cv2.circle(alpha, (48, 48), 45, 255, -1, cv2.LINE_AA)
    image = np.full((side, side, 3), 225, np.float32)
    kind = int(rng.integers(3))
    if kind == 0:
        for angle in np.arange(0, 2 * np.pi, 2 * np.pi / 5):
            cv2.circle(image, (int(48 + 30 * np.cos(angle)), int(48 + 30 * np.sin(angle))), 10, (50, 50, 50), -1)
    elif kind == 1:
        image[:, 36:60] *= 0.5
    ys, xs = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = 0.55 + 0.45 * np.sqrt(np.clip(1.05 - (xs + 0.35) ** 2 - (ys + 0.35) ** 2, 0, 1))
    return _card(image * light[..., None], alpha)


def _wing(rng: np.random.Generator) -> Card:
    """Return a wing from the left edge (shoulder) to the right."""
    alpha = np.zeros((64, 128), np.uint8)
    outline = np.array(((0, 14), (60, 4), (126, 22), (96, 34), (40, 52), (0, 54)), np.int32)
    cv2.fillPoly(alpha, [outline], 255, cv2.LINE_AA)
    bands = 200 + 30 * np.sin(np.linspace(0, 14, 128))[None] + 15 * noise(rng, 128, 0.8)[:64]
    return _card(bands[..., None].repeat(3, 2), alpha)


OUTLINES: Final = (
    ((2.1, 0.3), (2.1, 0.75), (0.95, 0.92), (0.25, 1.42), (-1.1, 1.45), (-1.75, 1.0), (-2.1, 0.95), (-2.1, 0.3)),
    ((2.4, 0.3), (2.4, 0.9), (1.8, 1.1), (1.2, 1.95), (-2.4, 2.0), (-2.4, 0.3)),
    ((3.6, 0.4), (3.6, 1.5), (3.3, 2.6), (2.0, 2.6), (2.0, 3.1), (-3.6, 3.1), (-3.6, 0.4)),
)
"""Side views of a car, a van and a lorry: (x, z) in metres from bottom front to bottom back."""


@cache
def vehicle_side(number: int) -> Card:
    """Return the side view of an outline's vehicle, white with dark glass and wheels; front to the right."""
    outline = np.array(OUTLINES[number])
    scale = 40.0
    low, high, top = outline[:, 0].min(), outline[:, 0].max(), outline[:, 1].max()
    height, width = int(top * scale), int((high - low) * scale)

    def pixels(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.round((points - (low, top)) * (scale, -scale) * 16), np.int32)

    colour, alpha = _blank(height, width, (205, 205, 205))
    colour[int((top - 0.6) * scale) :] *= 0.8
    cv2.fillPoly(alpha, [pixels(outline)], 255, cv2.LINE_AA, 4)
    panes = (
        [((0.75, 0.95), (0.15, 1.36), (-0.35, 1.38), (-0.35, 0.95)),
         ((-0.45, 0.95), (-0.45, 1.38), (-1.05, 1.38), (-1.5, 0.98))],
        [((1.65, 1.15), (1.15, 1.8), (0.3, 1.82), (0.3, 1.15))],
        [((3.4, 1.7), (3.2, 2.4), (2.4, 2.4), (2.4, 1.7))],
    )[number]  # fmt: skip
    for pane in panes:
        cv2.fillPoly(colour, [pixels(np.array(pane))], (38, 44, 52), cv2.LINE_AA, 4)
    radius = 0.32 if number < 2 else 0.48
    for x in (low * 0.62, high * 0.62):
        centre = pixels(np.array(((x, radius),)))[0].tolist()
        for size, tone in ((1.15, (22, 22, 22)), (1.0, (34, 34, 36)), (0.58, (140, 142, 146))):
            cv2.circle(colour, centre, int(radius * size * scale * 16), tone, -1, cv2.LINE_AA, 4)
        cv2.circle(alpha, centre, int(radius * scale * 16), 255, -1, cv2.LINE_AA, 4)
    return _card(colour, alpha)


_MAKERS: Final[dict[str, tuple[int, Callable[[np.random.Generator], Material]]]] = {
    **TILES,
    'crown': (10, _crown), 'conifer': (4, _conifer), 'branch': (5, _branch), 'tuft': (6, _tuft),
    'skyline': (4, _skyline), 'limb': (3, _limb), 'disc': (3, _disc), 'wing': (2, _wing), 'cloth': (24, _cloth),
}  # fmt: skip
"""Number of variants and maker of each kind; append new kinds, since the position seeds the looks."""


@cache
def material(kind: str, index: int) -> Material:
    """Return a material of a kind, always the same for an index; cached per process."""
    count, make = _MAKERS[kind]
    if index >= count:
        return material(kind, index % count)
    return make(np.random.default_rng((index, list(_MAKERS).index(kind), 20190616)))
