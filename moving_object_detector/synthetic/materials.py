"""Procedural materials of a flight's world: tiles that repeat without seam, and cards with a cut-out outline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Field = NDArray[np.float32]

PAD: Final = 2
"""Pixels that a level of a tile repeats around itself, so that interpolation needs no wrapping."""


@dataclass(frozen=True)
class Tile:
    """A square texture that repeats, with its halved levels side by side in one picture."""

    atlas: Pixels
    """(h, w, 3 or 4) RGB or RGBA."""
    places: tuple[Field, Field, Field]
    """Left, top (of the middle of the first pixel) and side of each level, pixels."""
    metres: tuple[float, float]
    """Extent of one repetition; 1: the tile is drawn out over the face."""
    bays: int = 0
    """Equal parts of a repetition that may not be cut, such as windows; 0: it may be cut anywhere."""

    def repeats(self, *lengths: float) -> tuple[float, float]:
        """Return how often the tile lies along edges of these lengths, metres."""
        whole = [1.0 if extent == 1.0 else length / extent for length, extent in zip(lengths, self.metres, strict=True)]
        if self.bays:
            whole = [max(round(value * self.bays), 1) / self.bays for value in whole]
        return whole[0], whole[1]

    @property
    def side(self) -> Field:
        """Of each level, pixels."""
        return self.places[2]

    @property
    def levels(self) -> int:
        """How many there are."""
        return len(self.side)


@dataclass(frozen=True)
class Card:
    """A texture that does not repeat, with its halved levels, (h, w, 4) RGBA."""

    levels: tuple[Pixels, ...]


def _tile(pixels: Pixels, metres: float | tuple[float, float], bays: int = 0) -> Tile:
    side = pixels.shape[0]
    levels: list[Pixels] = [pixels]
    while levels[-1].shape[0] > 4:
        half = levels[-1].shape[0] // 2
        levels.append(np.asarray(cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA), np.uint8))
    atlas: Pixels = np.zeros((side + 2 * PAD, side + side // 2 + 4 * PAD, pixels.shape[2]), np.uint8)
    left, top, y = [], [], 0
    for index, level in enumerate(levels):
        x = 0 if index == 0 else side + 2 * PAD
        n = level.shape[0] + 2 * PAD
        if y + n > atlas.shape[0]:
            atlas = np.pad(atlas, ((0, y + n - atlas.shape[0]), (0, 0), (0, 0)))
        atlas[y : y + n, x : x + n] = np.pad(level, ((PAD, PAD), (PAD, PAD), (0, 0)), mode='wrap')
        left.append(x + PAD - 0.5)
        top.append(y + PAD - 0.5)
        y = 0 if index == 0 else y + n
    size = (metres, metres) if isinstance(metres, (int, float)) else metres
    sides = [level.shape[0] for level in levels]
    places = np.array(left, np.float32), np.array(top, np.float32), np.array(sides, np.float32)
    return Tile(atlas, places, size, bays)


def _card(colour: Field, alpha: Pixels) -> Card:
    levels = [np.dstack((np.clip(colour, 0, 255).astype(np.uint8), alpha))]
    while min(levels[-1].shape[:2]) > 4:
        height, width = levels[-1].shape[:2]
        levels.append(np.asarray(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)))
    return Card(tuple(levels))


def _noise(
    rng: np.random.Generator, side: int, slope: float, stretch: tuple[float, float] = (1.0, 1.0), lowest: float = 0.5
) -> Field:
    """Return seamless noise whose amplitude falls with frequency^-slope; (side, side), deviation 1.

    What has fewer than ``lowest`` waves in the side is left out, since one sees it repeat.
    """
    fx = np.fft.rfftfreq(side) * stretch[0]
    fy = np.fft.fftfreq(side)[:, None] * stretch[1]
    radius = np.hypot(fx, fy)
    radius[radius * side < lowest] = np.inf
    shape = (side, side // 2 + 1)
    spectrum = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    noise = np.fft.irfft2(spectrum * radius**-slope, (side, side))
    return np.asarray(noise / noise.std(), np.float32)


def _ramp(values: Field, colours: list[tuple[int, int, int]]) -> Field:
    """Map values about [-2, 2] to a run of colours, (h, w, 3)."""
    places = np.linspace(-1.6, 1.6, len(colours))
    channels = [np.interp(values, places, [colour[k] for colour in colours]) for k in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def _strokes(
    rng: np.random.Generator, image: Field, count: int, length: float, colours: Field, angle: float, spread: float
) -> None:
    """Draw short lines, as of blades and straws, over a seamless picture; half of them across its seam."""
    side = image.shape[0]
    for _ in range(2):
        starts = rng.random((count // 2, 2)) * side
        angles = rng.normal(angle, spread, count // 2)
        ends = starts + (rng.uniform(0.4, 1, count // 2) * length)[:, None] * np.stack(
            (np.cos(angles), np.sin(angles)), 1
        )
        picks = colours[rng.integers(0, len(colours), count // 2)] * rng.uniform(0.75, 1.2, (count // 2, 1))
        for start, end, colour in zip((starts * 16).astype(int), (ends * 16).astype(int), picks.tolist(), strict=True):
            cv2.line(image, start.tolist(), end.tolist(), colour, 1, cv2.LINE_AA, 4)
        image[:] = np.roll(image, (side // 2, side // 2), (0, 1))


def _discs(rng: np.random.Generator, image: Field, count: int, radius: tuple[float, float], colours: Field) -> None:
    """Cover a seamless picture with elliptic stones or leaves."""
    side = image.shape[0]
    for _ in range(2):
        centres = (rng.random((count // 2, 2)) * side * 16).astype(int)
        radii = np.exp(rng.uniform(np.log(radius[0]), np.log(radius[1]), count // 2))
        picks = colours[rng.integers(0, len(colours), count // 2)] * rng.uniform(0.6, 1.25, (count // 2, 1))
        turns = rng.uniform(0, 180, count // 2)
        for centre, size, turn, colour in zip(centres.tolist(), radii, turns, picks.tolist(), strict=True):
            axes = (int(size * 16), int(size * rng.uniform(0.4, 0.9) * 16))
            cv2.ellipse(image, centre, axes, turn, 0, 360, colour, -1, cv2.LINE_AA, 4)
        image[:] = np.roll(image, (side // 2, side // 2), (0, 1))


def _clip(image: Field) -> Pixels:
    return np.clip(image, 0, 255).astype(np.uint8)


_GREENS: Final = [
    [(52, 66, 30), (82, 98, 44), (112, 124, 60)],
    [(66, 74, 36), (104, 108, 58), (142, 138, 84)],
    [(38, 60, 28), (62, 88, 38), (96, 118, 58)],
    [(84, 82, 48), (126, 118, 72), (164, 150, 104)],
]


def _grass(rng: np.random.Generator) -> Tile:
    side = 1024
    greens = _GREENS[int(rng.integers(4))]
    broad = _noise(rng, side, 1.1, lowest=5)
    image = _ramp(0.7 * broad + 0.5 * _noise(rng, side, 0.6, lowest=5), greens)
    _strokes(rng, image, 16000, float(rng.uniform(8, 22)), np.array(greens[1:] + greens, np.float32), -1.2, 1.0)
    if rng.random() < 0.4:
        _discs(rng, image, 500, (1.5, 4), np.array([(214, 204, 120), (220, 218, 210), (120, 100, 60)], np.float32))
    return _tile(_clip(image * (1 + 0.1 * broad[..., None])), float(rng.uniform(5, 9)))


def _soil(rng: np.random.Generator) -> Tile:
    side = 1024
    soil = [(84, 64, 46), (124, 98, 72), (156, 130, 100)]
    base = 0.6 * _noise(rng, side, 1.1, lowest=4) + 0.6 * _noise(rng, side, 0.5)
    rows = int(rng.choice((0, 8, 12, 20)))
    wave = np.sin(2 * np.pi * rows * np.arange(side) / side)[:, None] if rows else np.zeros((1, 1))
    image = _ramp(np.asarray(base + 0.9 * wave, np.float32), soil)
    if rows and rng.random() < 0.7:
        green = np.array(_GREENS[int(rng.integers(3))], np.float32)
        tall = np.clip(2.5 * (wave - 0.2) + 0.8 * _noise(rng, side, 0.7), 0, 1)[..., None]
        plants = _ramp(_noise(rng, side, 0.5), [tuple(c) for c in green.astype(int).tolist()])
        image = image * (1 - tall) + plants * tall
    return _tile(_clip(image), float(rng.uniform(6, 12)))


def _wheat(rng: np.random.Generator) -> Tile:
    straw = [(132, 104, 58), (184, 154, 92), (216, 190, 130)]
    image = _ramp(0.7 * _noise(rng, 1024, 1.0, lowest=5) + 0.6 * _noise(rng, 1024, 0.4), straw)
    _strokes(rng, image, 12000, 16, np.array(straw, np.float32), -1.5, 0.5)
    return _tile(_clip(image), 7.0)


def _gravel(rng: np.random.Generator) -> Tile:
    grey = float(rng.uniform(90, 150))
    warm = float(rng.uniform(0.86, 1.0))
    image = np.full((1024, 1024, 3), (grey * 0.7, grey * 0.66, grey * 0.6), np.float32)
    tones = np.array([(grey, grey * 0.96, grey * warm), (grey * 1.25, grey * 1.2, grey * 1.1 * warm)], np.float32)
    _discs(rng, image, 9000, (3, 14), tones)
    return _tile(_clip(image + 8 * _noise(rng, 1024, 0.2)[..., None]), float(rng.uniform(3, 5)))


def _litter(rng: np.random.Generator) -> Tile:
    image = _ramp(_noise(rng, 1024, 0.9), [(54, 44, 30), (88, 72, 48), (118, 98, 66)])
    leaves = [(142, 96, 48), (120, 80, 42), (96, 84, 44), (160, 126, 70), (74, 82, 38)]
    _discs(rng, image, 6000, (3, 10), np.array(leaves, np.float32))
    return _tile(_clip(image), 4.0)


def _asphalt_noise(rng: np.random.Generator, side: int) -> Field:
    grey = float(rng.uniform(72, 128))
    patches = np.asarray(np.clip(1.5 * _noise(rng, side, 1.4, lowest=3), -1, 1), np.float32)
    image = (grey + 7 * patches + 9 * _noise(rng, side, 0.15))[..., None] * np.array((1.0, 0.99, 0.97), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        steps = rng.normal(0, 9, (60, 2)) + rng.normal(0, 8, 2)
        crack = rng.random(2) * side + np.cumsum(steps, 0)
        cv2.polylines(image, [crack.astype(np.int32)], False, [grey * 0.62] * 3, int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.asarray(image, np.float32)


def _asphalt(rng: np.random.Generator) -> Tile:
    return _tile(_clip(_asphalt_noise(rng, 1024)), float(rng.uniform(7, 12)))


def _road(rng: np.random.Generator) -> Tile:
    """Return a road seen from above: across is one repetition, along it repeats."""
    side = 512
    image = _asphalt_noise(rng, side)
    worn = (0.7 + 0.3 * np.clip(_noise(rng, side, 0.8) + 0.9, 0, 1))[..., None]
    white = np.array((205, 203, 196), np.float32) * worn
    paint = np.zeros((side, side, 1), np.float32)
    lanes = int(rng.choice((1, 2, 2, 2, 4)))
    edge, line = 18, 9
    if rng.random() < 0.8:
        paint[:, edge : edge + line] = paint[:, side - edge - line : side - edge] = 1
    for lane in range(1, lanes):
        middle = side * lane // lanes
        solid = rng.random() < 0.25
        for start in range(0, side, side // 2):
            paint[start : start + (side // 2 if solid else side // 5), middle - line // 2 : middle + line // 2 + 1] = 1
    tracks = 1 - 0.07 * np.cos(np.linspace(0, 2 * np.pi * max(lanes, 2) * 2, side)) ** 2
    image = image * tracks[None, :, None].astype(np.float32)
    image = image + (white - image) * cv2.GaussianBlur(paint, (0, 0), 0.8)[..., None] * worn
    return _tile(_clip(image), (1.0, float(rng.uniform(10, 16))))


def _paving(rng: np.random.Generator) -> Tile:
    side, columns = 512, int(rng.choice((8, 16)))
    stone = side // columns
    rows = columns if rng.random() < 0.5 else columns * 2
    tone = rng.normal(0, 11, (rows, columns)).repeat(side // rows, 0).repeat(stone, 1)
    grey = float(rng.uniform(110, 165))
    image = (grey + tone + 8 * _noise(rng, side, 0.4) + 6 * _noise(rng, side, 1.4))[..., None]
    image = image * np.array((1.0, rng.uniform(0.9, 0.99), rng.uniform(0.8, 0.95)))
    image[:: side // rows] *= 0.66
    image[:, ::stone] *= 0.66
    return _tile(_clip(image.astype(np.float32)), columns * float(rng.uniform(0.25, 0.5)))


def _brick(rng: np.random.Generator) -> Tile:
    side, columns, rows = 512, 8, 32
    tone = rng.normal(0, 14, (rows, columns)).repeat(side // rows, 0).repeat(side // columns, 1)
    joint = np.zeros((side, side), bool)
    joint[:: side // rows] = joint[1 :: side // rows] = True
    joint[:, :: side // columns] = True
    for row in range(1, rows, 2):
        part = slice(row * side // rows, (row + 1) * side // rows)
        tone[part], joint[part] = (
            np.roll(tone[part], side // columns // 2, 1),
            np.roll(joint[part], side // columns // 2, 1),
        )
    colour = np.array(((150, 84, 66), (176, 150, 118), (120, 110, 104))[int(rng.integers(3))], np.float32)
    image = colour * (1 + (tone + 8 * _noise(rng, side, 0.5))[..., None] / 128)
    image[joint] = (168, 162, 152)
    return _tile(_clip(image.astype(np.float32)), 2.2)


def _concrete(rng: np.random.Generator) -> Tile:
    grey = float(rng.uniform(120, 190))
    streaks = _noise(rng, 512, 1.2, (4.0, 0.6))
    image = (grey + 9 * streaks + 7 * _noise(rng, 512, 0.7))[..., None] * np.array((1.0, 0.98, 0.93))
    image[:3] *= 0.75
    image[:, :3] *= 0.75
    return _tile(_clip(image.astype(np.float32)), 3.0)


def _wood(rng: np.random.Generator) -> Tile:
    side, planks = 512, 16
    tone = rng.normal(0, 14, planks).repeat(side // planks)[None]
    colour = np.array(((134, 106, 76), (110, 100, 90), (150, 124, 96))[int(rng.integers(3))], np.float32)
    image = colour * (1 + (tone + 12 * _noise(rng, side, 0.8, (8.0, 0.5)))[..., None] / 128)
    image[:, :: side // planks] *= 0.45
    return _tile(_clip(image.astype(np.float32)), 2.0)


def _roof(rng: np.random.Generator) -> Tile:
    side, rows = 512, 24
    y = np.arange(side) * rows / side
    x = np.arange(side) * rows / side
    shape = (1 - 0.45 * (y % 1) ** 3)[:, None] * (0.86 + 0.14 * np.cos(2 * np.pi * x))[None]
    tone = rng.normal(0, 0.08, (rows, rows)).repeat(side // rows + 1, 0)[:side].repeat(side // rows + 1, 1)[:, :side]
    choice = ((148, 78, 56), (122, 66, 52), (92, 88, 90), (110, 92, 78))
    colour = np.array(choice[int(rng.integers(4))], np.float32)
    image = colour * (shape + tone + 0.06 * _noise(rng, side, 1.0))[..., None]
    return _tile(_clip(image.astype(np.float32)), 5.0)


def _facade(rng: np.random.Generator) -> Tile:
    """Return four by four bays of windows in a plastered wall."""
    side, bay = 512, 128
    walls = ((206, 198, 180), (186, 176, 160), (214, 208, 200), (178, 152, 128), (160, 96, 78), (196, 180, 140))
    wall = np.array(walls[int(rng.integers(len(walls)))], np.float32)
    image = wall * (1 + 0.03 * _noise(rng, side, 0.4) + 0.05 * _noise(rng, side, 1.3, (2.0, 0.7)))[..., None]
    width, height = int(rng.integers(34, 84)), int(rng.integers(44, 84))
    frame = np.array((228, 226, 220) if rng.random() < 0.7 else (70, 62, 56), np.float32)
    shutters = rng.random() < 0.25
    for row in range(4):
        for column in range(4):
            x, y = column * bay + (bay - width) // 2, row * bay + (bay - height) // 2
            if shutters:
                image[y : y + height, x - 18 : x + width + 18] = (84, 100, 84)
            image[y - 3 : y + height + 5, x - 3 : x + width + 3] = frame
            dark = rng.uniform(0.5, 1.6)
            glass = np.linspace(1.3, 0.7, height)[:, None, None] * np.array((52, 62, 74)) * dark
            if rng.random() < 0.3:
                glass[: int(rng.integers(8, height))] = 176
            image[y : y + height, x : x + width] = glass
            image[y : y + height, x + width // 2 - 1 : x + width // 2 + 2] = frame
        if rng.random() < 0.3:
            image[row * bay : row * bay + 5] *= 0.85
    return _tile(_clip(image.astype(np.float32)), float(rng.uniform(10, 14)), bays=4)


def _leafage(rng: np.random.Generator) -> Tile:
    image = np.full((512, 512, 3), (26, 36, 16), np.float32)
    greens = np.array(_GREENS[int(rng.integers(3))] + [(44, 58, 28)], np.float32)
    _discs(rng, image, 5000, (3, 8), greens)
    return _tile(_clip(image * (1 + 0.2 * _noise(rng, 512, 1.4))[..., None]), 2.0)


def _bark(rng: np.random.Generator) -> Tile:
    values = _noise(rng, 256, 0.9, (3.0, 0.5))
    tones = [(52, 44, 36), (94, 82, 68), (140, 128, 110)]
    return _tile(_clip(_ramp(values, tones)), (0.8, 1.6))


def _plain(rng: np.random.Generator) -> Tile:
    return _tile(_clip((205 + 6 * _noise(rng, 128, 0.8))[..., None].repeat(3, 2)), 1.5)


def _metal(rng: np.random.Generator) -> Tile:
    values = 150 + 12 * _noise(rng, 128, 0.9, (2.0, 0.5))
    return _tile(_clip(values[..., None] * np.array((0.98, 1.0, 1.02))), 1.0)


def _end(rng: np.random.Generator) -> Tile:
    """Return the front or the back of a vehicle, white, with lamps, plate and bumper."""
    image = 205 + 4 * _noise(rng, 128, 0.9)[..., None].repeat(3, 2)
    lamp = (232, 224, 190) if rng.random() < 0.5 else (150, 24, 22)
    for x in (16, 112):
        cv2.rectangle(image, (x - 13, 34), (x + 13, 58), (60, 60, 62), -1)
        cv2.rectangle(image, (x - 11, 36), (x + 11, 56), lamp, -1)
    cv2.rectangle(image, (36, 38), (92, 60), (44, 44, 46), -1)
    cv2.rectangle(image, (46, 74), (82, 86), (225, 222, 205), -1)
    cv2.rectangle(image, (0, 92), (128, 112), (62, 62, 64), -1)
    return _tile(_clip(np.ascontiguousarray(image)), (1.0, 1.0))


def _fence(rng: np.random.Generator) -> Tile:
    """Return pickets, bars or wire with gaps; it repeats along and is one repetition high."""
    side = 256
    alpha = np.zeros((side, side), np.uint8)
    kind = int(rng.integers(4))
    if kind == 0:  # pickets
        for x in range(0, side, 32):
            alpha[10:, x + 4 : x + 24] = 255
        alpha[60:78] = alpha[180:198] = 255
    elif kind == 1:  # bars
        alpha[8:20] = alpha[230:242] = 255
        for x in range(0, side, 32):
            alpha[:, x : x + 7] = 255
    elif kind == 2:  # rails
        alpha[20:52] = alpha[110:142] = alpha[190:214] = 255
        alpha[:, :18] = 255
    else:  # wire
        for offset in range(-side, side, 32):
            for sign in (-1, 1):
                cv2.line(alpha, (offset, 0 if sign > 0 else side), (offset + side, side if sign > 0 else 0), 200, 3)
        alpha[:10] = 255
        alpha[:, :14] = 255
    tones = ((196, 192, 184), (120, 96, 70), (70, 72, 70), (150, 150, 150))
    base = np.array(tones[int(rng.integers(4))], np.float32)
    image = base * (1 + 0.12 * _noise(rng, side, 0.7, (4.0, 0.6)))[..., None]
    return _tile(np.dstack((_clip(image.astype(np.float32)), alpha)), (float(rng.uniform(1.2, 2.4)), 1.0))


def _macro(rng: np.random.Generator) -> Tile:
    """Return broad differences of tone, 128 for none."""
    tone = 15 * _noise(rng, 256, 1.5) + 5 * _noise(rng, 256, 0.7)
    warm = 6 * _noise(rng, 256, 1.6)
    image = 128 + tone[..., None] + np.stack((warm, 0 * warm, -warm), -1)
    return _tile(_clip(image.astype(np.float32)), float(rng.uniform(80, 160)))


def _sky(rng: np.random.Generator) -> Tile:
    clouds = np.clip(_noise(rng, 512, 1.7) * float(rng.uniform(0.4, 1.2)) + float(rng.uniform(-0.8, 1.0)), 0, 1.6)
    blue = np.array((116, 156, 206), np.float32) * float(rng.uniform(0.85, 1.15))
    grey = np.array((228, 230, 234), np.float32) - 26 * clouds[..., None]
    return _tile(_clip(blue + (grey - blue) * np.clip(clouds, 0, 1)[..., None]), float(rng.uniform(6, 12)))


def _leaf_colours(rng: np.random.Generator) -> Field:
    autumn = [(148, 104, 44), (170, 128, 58), (120, 92, 44)]
    family = autumn if rng.random() < 0.15 else _GREENS[int(rng.integers(3))]
    return np.array(family, np.float32)


def _crown(rng: np.random.Generator) -> Card:
    """Return a bough full of leaves, lit from above."""
    side = 192
    colour = np.full((side, side, 3), (34, 44, 22), np.float32)
    alpha = np.zeros((side, side), np.uint8)
    colours = _leaf_colours(rng)
    count = int(rng.integers(5, 12))
    centres = np.stack((rng.normal(0.5, 0.17, count), rng.normal(0.5, 0.15, count)), 1).clip(0.22, 0.78) * side
    radii = rng.uniform(0.09, 0.2, count) * side
    places, sizes = [], []
    for centre, radius in zip(centres, radii, strict=True):
        leaves = int(rng.integers(90, 150))
        places.append(centre + rng.normal(0, 0.5, (leaves, 2)) * radius)
        sizes.append(rng.uniform(2.0, 6.5, leaves))
    spots, extents = np.concatenate(places), np.concatenate(sizes)
    # From the shaded bottom to the lit top.
    order = np.argsort(-spots[:, 1] + rng.normal(0, 25, len(spots)))
    for place, size in zip(spots[order], extents[order], strict=True):
        light = 1.2 - 0.75 * place[1] / side + rng.normal(0, 0.14)
        tone = (colours[int(rng.integers(len(colours)))] * light).tolist()
        axes, turn = (int(size * 16), int(size * 10)), float(rng.uniform(0, 180))
        middle = (place * 16).astype(int).tolist()
        cv2.ellipse(colour, middle, axes, turn, 0, 360, tone, -1, cv2.LINE_AA, 4)
        cv2.ellipse(alpha, middle, axes, turn, 0, 360, 255, -1, cv2.LINE_AA, 4)
    alpha[:3], alpha[-3:], alpha[:, :3], alpha[:, -3:] = 0, 0, 0, 0
    return _card(colour, alpha)


def _conifer(rng: np.random.Generator) -> Card:
    height, width = 320, 160
    colour = np.full((height, width, 3), (28, 40, 26), np.float32)
    alpha = np.zeros((height, width), np.uint8)
    tones = np.array([(34, 52, 34), (50, 70, 42), (72, 92, 54)], np.float32)
    for y in np.sort(rng.uniform(8, height - 6, 900)):
        reach = (y / height) ** 0.9 * width * 0.46 * rng.uniform(0.25, 1.0)
        side = -1 if rng.random() < 0.5 else 1
        start = (int(width / 2 + side * reach * rng.uniform(0, 0.5)), int(y))
        end = (int(width / 2 + side * reach), int(y + reach * rng.uniform(0.1, 0.5)))
        tone = (tones[int(rng.integers(3))] * rng.uniform(0.7, 1.25)).tolist()
        thick = int(rng.integers(2, 5))
        cv2.line(colour, start, end, tone, thick, cv2.LINE_AA)
        cv2.line(alpha, start, end, 255, thick, cv2.LINE_AA)
    alpha[:2], alpha[-2:], alpha[:, :2], alpha[:, -2:] = 0, 0, 0, 0
    return _card(colour, alpha)


def _branch(rng: np.random.Generator) -> Card:
    """Return a bough from the left edge to the right, with twigs and some leaves."""
    height, width = 160, 320
    colour = np.full((height, width, 3), (70, 58, 46), np.float32)
    alpha = np.zeros((height, width), np.uint8)
    leaves = _leaf_colours(rng)
    leafy = rng.random() < 0.75

    def grow(start: NDArray[np.float64], angle: float, length: float, thick: float) -> None:
        end = start + length * np.array((np.cos(angle), np.sin(angle)))
        tone = (np.array((82, 68, 54)) * rng.uniform(0.7, 1.3)).tolist()
        for picture, value in ((colour, tone), (alpha, 255)):
            cv2.line(
                picture, start.astype(int).tolist(), end.astype(int).tolist(), value, max(int(thick), 1), cv2.LINE_AA
            )
        if leafy and thick < 4:
            for _ in range(int(rng.integers(2, 7))):
                spot = (start + (end - start) * rng.random() + rng.normal(0, 5, 2)).astype(int).tolist()
                axes, turn = (int(rng.integers(4, 9)), int(rng.integers(2, 5))), float(rng.uniform(0, 180))
                leaf = (leaves[int(rng.integers(len(leaves)))] * rng.uniform(0.7, 1.3)).tolist()
                cv2.ellipse(colour, spot, axes, turn, 0, 360, leaf, -1, cv2.LINE_AA)
                cv2.ellipse(alpha, spot, axes, turn, 0, 360, 255, -1, cv2.LINE_AA)
        if length > 12:
            for _ in range(2):
                grow(end, angle + float(rng.normal(0, 0.45)), length * float(rng.uniform(0.6, 0.85)), thick * 0.7)

    grow(np.array((0.0, height / 2)), float(rng.normal(0, 0.15)), 75.0, 7.0)
    alpha[:2], alpha[-2:], alpha[:, -2:] = 0, 0, 0
    return _card(colour, alpha)


def _tuft(rng: np.random.Generator) -> Card:
    """Return tall grass or a shrub that stands on the card's lower edge."""
    height, width = 128, 160
    colours = _leaf_colours(rng)
    colour = np.full((height, width, 3), colours[0] * 0.7, np.float32)
    alpha = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.integers(120, 320))):
        x = float(rng.normal(0.5, 0.14)) * width
        tip = (int(x + rng.normal(0, 22)), int(height * rng.uniform(0.05, 0.6)))
        tone = (colours[int(rng.integers(len(colours)))] * rng.uniform(0.6, 1.3)).tolist()
        for picture, value in ((colour, tone), (alpha, 255)):
            cv2.line(
                picture, (int(x), height), tip, value, int(rng.integers(1, 4)) if picture is colour else 2, cv2.LINE_AA
            )
    alpha[:2], alpha[:, :2], alpha[:, -2:] = 0, 0, 0
    return _card(colour, alpha)


def _skyline(rng: np.random.Generator) -> Card:
    """Return a distant wood: crowns behind crowns."""
    height, width = 64, 1024
    alpha = np.zeros((height, width), np.uint8)
    colour = np.full((height, width, 3), (58, 66, 46), np.float32)
    greens = np.array([(58, 70, 44), (78, 90, 58), (98, 104, 70)], np.float32)
    for row in range(3):
        for x in np.arange(8, width - 8, 9):
            middle = (int(x + rng.normal(0, 4)), int(24 + 9 * row + rng.normal(0, 5)))
            axes = (int(rng.uniform(7, 15)), int(rng.uniform(8, 18)))
            tone = (greens[int(rng.integers(3))] * rng.uniform(0.8, 1.15) * (1.1 - 0.15 * row)).tolist()
            cv2.ellipse(colour, middle, axes, 0, 0, 360, tone, -1, cv2.LINE_AA)
            cv2.ellipse(alpha, middle, axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    alpha[46:] = 255
    alpha[:, :2] = alpha[:, -2:] = alpha[:2] = 0
    return _card(colour + 9 * np.resize(_noise(rng, 256, 0.5)[:64], (64, 1024))[..., None], alpha)


def _limb(rng: np.random.Generator) -> Card:
    """Return a white capsule with folds of cloth; its colour comes with the face."""
    height, width = 96, 48
    alpha = np.zeros((height, width), np.uint8)
    cv2.ellipse(alpha, (24, 48), (20, 46), 0, 0, 360, 255, -1, cv2.LINE_AA)
    alpha[14:-14, 5:-5] = 255
    folds = _noise(rng, 96, 1.1, (2.0, 0.7))[:, :48]
    round_off = 1 - 0.35 * np.linspace(-1, 1, width)[None] ** 2
    return _card(((195 + 22 * folds) * round_off)[..., None].repeat(3, 2).astype(np.float32), alpha)


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
    return _card((image * light[..., None]).astype(np.float32), alpha)


def _wing(rng: np.random.Generator) -> Card:
    """Return a wing from the left edge (shoulder) to the right."""
    alpha = np.zeros((64, 128), np.uint8)
    outline = np.array(((0, 14), (60, 4), (126, 22), (96, 34), (40, 52), (0, 54)), np.int32)
    cv2.fillPoly(alpha, [outline], 255, cv2.LINE_AA)
    bands = 200 + 30 * np.sin(np.linspace(0, 14, 128))[None] + 15 * _noise(rng, 128, 0.8)[:64]
    return _card(bands[..., None].repeat(3, 2).astype(np.float32), alpha)


OUTLINES: Final = (
    ((2.1, 0.3), (2.1, 0.75), (0.95, 0.92), (0.25, 1.42), (-1.1, 1.45), (-1.75, 1.0), (-2.1, 0.95), (-2.1, 0.3)),
    ((2.4, 0.3), (2.4, 0.9), (1.8, 1.1), (1.2, 1.95), (-2.4, 2.0), (-2.4, 0.3)),
    ((3.6, 0.4), (3.6, 1.5), (3.3, 2.6), (2.0, 2.6), (2.0, 3.1), (-3.6, 3.1), (-3.6, 0.4)),
)
"""Of a car, a van and a lorry from the side: (x, z) in metres from the front below to the back below."""


def _side(number: int) -> Card:
    """Return the side of a vehicle, white with dark glass and wheels; front to the right."""
    outline = np.array(OUTLINES[number])
    scale = 40.0
    low, high, top = outline[:, 0].min(), outline[:, 0].max(), outline[:, 1].max()
    height, width = int(top * scale), int((high - low) * scale)

    def pixels(points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.round((points - (low, top)) * (scale, -scale) * 16), np.int32)

    colour = np.full((height, width, 3), 205, np.float32)
    colour[int((top - 0.6) * scale) :] *= 0.8
    alpha = np.zeros((height, width), np.uint8)
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


_MAKERS: Final[dict[str, tuple[int, Callable[[np.random.Generator], Tile | Card]]]] = {
    'grass': (6, _grass), 'soil': (5, _soil), 'wheat': (2, _wheat), 'gravel': (3, _gravel), 'litter': (2, _litter),
    'asphalt': (3, _asphalt), 'road': (6, _road), 'paving': (4, _paving), 'brick': (3, _brick),
    'concrete': (3, _concrete), 'wood': (3, _wood), 'roof': (5, _roof), 'facade': (10, _facade),
    'leafage': (3, _leafage), 'bark': (2, _bark), 'plain': (1, _plain), 'end': (4, _end),
    'metal': (1, _metal), 'fence': (8, _fence),
    'macro': (4, _macro), 'sky': (6, _sky), 'crown': (10, _crown), 'conifer': (4, _conifer), 'branch': (5, _branch),
    'tuft': (6, _tuft), 'skyline': (4, _skyline), 'limb': (3, _limb), 'disc': (3, _disc), 'wing': (2, _wing),
    'side': (3, lambda _: _side(0)),
}  # fmt: skip
"""Of each kind: how many different ones there are, and how one is made."""


def material(kind: str, index: int) -> Tile | Card:
    """Return a material of a kind, always the same for an index; made once in a process."""
    return _made(kind, index % _MAKERS[kind][0])


@cache
def _made(kind: str, index: int) -> Tile | Card:
    if kind == 'side':
        return _side(index)
    return _MAKERS[kind][1](np.random.default_rng((index, list(_MAKERS).index(kind), 20190616)))
