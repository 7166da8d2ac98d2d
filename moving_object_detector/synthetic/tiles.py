"""Procedural textures of ground and buildings that repeat seamlessly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]

PAD: Final = 2
"""Pixels by which each level of a tile is wrapped around itself, so that interpolation needs no wrapping."""


@dataclass(frozen=True)
class Tile:
    """A square repeating texture with its mipmap levels in one picture."""

    atlas: Picture
    """(h, w, 3 or 4) RGB or RGBA."""
    places: tuple[Floats, Floats, Floats]
    """Left, top and side of each level, pixels; (0, 0) is the centre of the atlas's first pixel."""
    metres: tuple[float, float]
    """Extent of one repetition along s and t; 1: it is stretched over the face."""
    bays: int = 0
    """Equal parts of a repetition that edges may not cut, such as windows; 0: no such parts."""

    def repeats(self, *lengths: float) -> tuple[float, float]:
        """Return the repetitions of the tile along edges of these lengths, metres."""
        whole = [1.0 if extent == 1.0 else length / extent for length, extent in zip(lengths, self.metres, strict=True)]
        if self.bays:
            whole = [max(round(value * self.bays), 1) / self.bays for value in whole]
        return whole[0], whole[1]


@dataclass(frozen=True)
class Card:
    """A texture that does not repeat: its mipmap levels, (h, w, 4) RGBA."""

    levels: tuple[Picture, ...]


Material = Tile | Card


def halved(picture: NDArray[Any]) -> list[Picture]:
    """Return the mipmap levels of a picture, down to a side of about four pixels."""
    levels: list[Picture] = [np.clip(picture, 0, 255).astype(np.uint8)]
    while min(levels[-1].shape[:2]) > 4:
        height, width = levels[-1].shape[:2]
        levels.append(np.asarray(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)))
    return levels


def _tile(image: NDArray[Any], metres: float | tuple[float, float], bays: int = 0) -> Tile:
    levels = halved(np.asarray(image, np.float32))
    side = image.shape[0]
    atlas: Picture = np.zeros((side + 2 * PAD, side + side // 2 + 4 * PAD, image.shape[2]), np.uint8)
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


def noise(
    rng: np.random.Generator, side: int, slope: float, stretch: tuple[float, float] = (1.0, 1.0), lowest: float = 0.5
) -> Floats:
    """Return seamless noise with amplitude frequency^-slope; (side, side), standard deviation 1.

    Frequencies below ``lowest`` waves per side are left out, since their repetition is visible.
    """
    fx = np.fft.rfftfreq(side) * stretch[0]
    fy = np.fft.fftfreq(side)[:, None] * stretch[1]
    radius = np.hypot(fx, fy)
    radius[radius * side < lowest] = np.inf
    shape = (side, side // 2 + 1)
    spectrum = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    waves = np.fft.irfft2(spectrum * radius**-slope, (side, side))
    return np.asarray(waves / waves.std(), np.float32)


def _ramp(values: Floats, colours: list[tuple[int, int, int]]) -> Floats:
    """Map values of about [-2, 2] to a colour gradient, (h, w, 3)."""
    places = np.linspace(-1.6, 1.6, len(colours))
    channels = [np.interp(values, places, channel) for channel in zip(*colours, strict=True)]
    return np.stack(channels, -1).astype(np.float32)


def _strokes(
    rng: np.random.Generator, image: Floats, count: int, length: float, colours: Floats, angle: float, spread: float
) -> None:
    """Draw short lines, such as blades and straws, over a seamless picture; half of them across its seam."""
    side = image.shape[0]
    for _ in range(2):
        starts = rng.random((count // 2, 2)) * side
        angles = rng.normal(angle, spread, count // 2)
        ways = np.stack((np.cos(angles), np.sin(angles)), 1)
        ends = starts + (rng.uniform(0.4, 1, count // 2) * length)[:, None] * ways
        picks = colours[rng.integers(0, len(colours), count // 2)] * rng.uniform(0.75, 1.2, (count // 2, 1))
        for start, end, colour in zip((starts * 16).astype(int), (ends * 16).astype(int), picks.tolist(), strict=True):
            cv2.line(image, start.tolist(), end.tolist(), colour, 1, cv2.LINE_AA, 4)
        image[:] = np.roll(image, (side // 2, side // 2), (0, 1))


def _discs(rng: np.random.Generator, image: Floats, count: int, radius: tuple[float, float], colours: Floats) -> None:
    """Cover a seamless picture with elliptical stones or leaves."""
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


GREENS: Final = [
    [(52, 66, 30), (82, 98, 44), (112, 124, 60)],
    [(66, 74, 36), (104, 108, 58), (142, 138, 84)],
    [(38, 60, 28), (62, 88, 38), (96, 118, 58)],
    [(84, 82, 48), (126, 118, 72), (164, 150, 104)],
]


BARK: Final = [(52, 44, 36), (94, 82, 68), (140, 128, 110)]
STRAW: Final = [(132, 104, 58), (184, 154, 92), (216, 190, 130)]
STEEL: Final = np.array((0.98, 1.0, 1.02))


def _grass(rng: np.random.Generator) -> Tile:
    side = 1024
    greens = GREENS[rng.integers(4)]
    broad = noise(rng, side, 1.1, lowest=5)
    image = _ramp(0.7 * broad + 0.5 * noise(rng, side, 0.6, lowest=5), greens)
    _strokes(rng, image, 16000, float(rng.uniform(8, 22)), np.array(greens[1:] + greens, np.float32), -1.2, 1.0)
    if rng.random() < 0.4:
        _discs(rng, image, 500, (1.5, 4), np.array([(214, 204, 120), (220, 218, 210), (120, 100, 60)], np.float32))
    return _tile((image * (1 + 0.1 * broad[..., None])), float(rng.uniform(5, 9)))


def _soil(rng: np.random.Generator) -> Tile:
    side = 1024
    soil = [(84, 64, 46), (124, 98, 72), (156, 130, 100)]
    base = 0.6 * noise(rng, side, 1.1, lowest=4) + 0.6 * noise(rng, side, 0.5)
    rows = int(rng.choice((0, 8, 12, 20)))
    wave = np.sin(2 * np.pi * rows * np.arange(side) / side)[:, None] if rows else np.zeros((1, 1))
    image = _ramp(np.asarray(base + 0.9 * wave, np.float32), soil)
    if rows and rng.random() < 0.7:
        green = GREENS[rng.integers(3)]
        tall = np.clip(2.5 * (wave - 0.2) + 0.8 * noise(rng, side, 0.7), 0, 1)[..., None]
        plants = _ramp(noise(rng, side, 0.5), green)
        image = image * (1 - tall) + plants * tall
    return _tile(image, float(rng.uniform(6, 12)))


def _wheat(rng: np.random.Generator) -> Tile:
    image = _ramp(0.7 * noise(rng, 1024, 1.0, lowest=5) + 0.6 * noise(rng, 1024, 0.4), STRAW)
    _strokes(rng, image, 12000, 16, np.array(STRAW, np.float32), -1.5, 0.5)
    return _tile(image, 7.0)


def _gravel(rng: np.random.Generator) -> Tile:
    grey = float(rng.uniform(90, 150))
    warm = float(rng.uniform(0.86, 1.0))
    image = np.full((1024, 1024, 3), (grey * 0.7, grey * 0.66, grey * 0.6), np.float32)
    tones = np.array([(grey, grey * 0.96, grey * warm), (grey * 1.25, grey * 1.2, grey * 1.1 * warm)], np.float32)
    _discs(rng, image, 9000, (3, 14), tones)
    return _tile((image + 8 * noise(rng, 1024, 0.2)[..., None]), float(rng.uniform(3, 5)))


def _litter(rng: np.random.Generator) -> Tile:
    image = _ramp(noise(rng, 1024, 0.9), [(54, 44, 30), (88, 72, 48), (118, 98, 66)])
    leaves = [(142, 96, 48), (120, 80, 42), (96, 84, 44), (160, 126, 70), (74, 82, 38)]
    _discs(rng, image, 6000, (3, 10), np.array(leaves, np.float32))
    return _tile(image, 4.0)


def _asphalt_noise(rng: np.random.Generator, side: int) -> Floats:
    grey = float(rng.uniform(72, 128))
    patches = np.asarray(np.clip(1.5 * noise(rng, side, 1.4, lowest=3), -1, 1), np.float32)
    image = (grey + 7 * patches + 9 * noise(rng, side, 0.15))[..., None] * np.array((1.0, 0.99, 0.97), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        steps = rng.normal(0, 9, (60, 2)) + rng.normal(0, 8, 2)
        crack = rng.random(2) * side + np.cumsum(steps, 0)
        cv2.polylines(image, [crack.astype(np.int32)], False, [grey * 0.62] * 3, int(rng.integers(1, 4)), cv2.LINE_AA)
    return np.asarray(image, np.float32)


def _road(rng: np.random.Generator) -> Tile:
    # One repetition across, many along.
    side = 512
    image = _asphalt_noise(rng, side)
    worn = (0.7 + 0.3 * np.clip(noise(rng, side, 0.8) + 0.9, 0, 1))[..., None]
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
    return _tile(image, (1.0, float(rng.uniform(10, 16))))


def _paving(rng: np.random.Generator) -> Tile:
    side, columns = 512, int(rng.choice((8, 16)))
    stone = side // columns
    rows = columns if rng.random() < 0.5 else columns * 2
    tone = rng.normal(0, 11, (rows, columns)).repeat(side // rows, 0).repeat(stone, 1)
    grey = float(rng.uniform(110, 165))
    image = (grey + tone + 8 * noise(rng, side, 0.4) + 6 * noise(rng, side, 1.4))[..., None]
    image = image * np.array((1.0, rng.uniform(0.9, 0.99), rng.uniform(0.8, 0.95)))
    image[:: side // rows] *= 0.66
    image[:, ::stone] *= 0.66
    return _tile(image, columns * float(rng.uniform(0.25, 0.5)))


def _brick(rng: np.random.Generator) -> Tile:
    side, columns, rows = 512, 8, 32
    tone = rng.normal(0, 14, (rows, columns)).repeat(side // rows, 0).repeat(side // columns, 1)
    joint = np.zeros((side, side), bool)
    joint[:: side // rows] = joint[1 :: side // rows] = True
    joint[:, :: side // columns] = True
    for row in range(1, rows, 2):
        part = slice(row * side // rows, (row + 1) * side // rows)
        for picture in (tone, joint):
            picture[part] = np.roll(picture[part], side // columns // 2, 1)
    colour = np.array(((150, 84, 66), (176, 150, 118), (120, 110, 104))[rng.integers(3)], np.float32)
    image = colour * (1 + (tone + 8 * noise(rng, side, 0.5))[..., None] / 128)
    image[joint] = (168, 162, 152)
    return _tile(image, 2.2)


def _concrete(rng: np.random.Generator) -> Tile:
    grey = float(rng.uniform(120, 190))
    streaks = noise(rng, 512, 1.2, (4.0, 0.6))
    image = (grey + 9 * streaks + 7 * noise(rng, 512, 0.7))[..., None] * np.array((1.0, 0.98, 0.93))
    image[:3] *= 0.75
    image[:, :3] *= 0.75
    return _tile(image, 3.0)


def _wood(rng: np.random.Generator) -> Tile:
    side, planks = 512, 16
    tone = rng.normal(0, 14, planks).repeat(side // planks)[None]
    colour = np.array(((134, 106, 76), (110, 100, 90), (150, 124, 96))[rng.integers(3)], np.float32)
    image = colour * (1 + (tone + 12 * noise(rng, side, 0.8, (8.0, 0.5)))[..., None] / 128)
    image[:, :: side // planks] *= 0.45
    return _tile(image, 2.0)


def _roof(rng: np.random.Generator) -> Tile:
    side, rows = 512, 24
    y = np.arange(side) * rows / side
    x = np.arange(side) * rows / side
    shape = (1 - 0.45 * (y % 1) ** 3)[:, None] * (0.86 + 0.14 * np.cos(2 * np.pi * x))[None]
    tone = rng.normal(0, 0.08, (rows, rows)).repeat(side // rows + 1, 0)[:side].repeat(side // rows + 1, 1)[:, :side]
    choice = ((148, 78, 56), (122, 66, 52), (92, 88, 90), (110, 92, 78))
    colour = np.array(choice[rng.integers(4)], np.float32)
    image = colour * (shape + tone + 0.06 * noise(rng, side, 1.0))[..., None]
    return _tile(image, 5.0)


def _facade(rng: np.random.Generator) -> Tile:
    side, bay = 512, 128
    walls = ((206, 198, 180), (186, 176, 160), (214, 208, 200), (178, 152, 128), (160, 96, 78), (196, 180, 140))
    wall = np.array(walls[rng.integers(len(walls))], np.float32)
    image = wall * (1 + 0.03 * noise(rng, side, 0.4) + 0.05 * noise(rng, side, 1.3, (2.0, 0.7)))[..., None]
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
    return _tile(image, float(rng.uniform(10, 14)), bays=4)


def _leafage(rng: np.random.Generator) -> Tile:
    image = np.full((512, 512, 3), (26, 36, 16), np.float32)
    greens = np.array(GREENS[rng.integers(3)] + [(44, 58, 28)], np.float32)
    _discs(rng, image, 5000, (3, 8), greens)
    return _tile((image * (1 + 0.2 * noise(rng, 512, 1.4))[..., None]), 2.0)


def _end(rng: np.random.Generator) -> Tile:
    # Front or back of a vehicle: white, with lamps, plate and bumper.
    image = 205 + 4 * noise(rng, 128, 0.9)[..., None].repeat(3, 2)
    lamp = (232, 224, 190) if rng.random() < 0.5 else (150, 24, 22)
    for x in (16, 112):
        cv2.rectangle(image, (x - 13, 34), (x + 13, 58), (60, 60, 62), -1)
        cv2.rectangle(image, (x - 11, 36), (x + 11, 56), lamp, -1)
    cv2.rectangle(image, (36, 38), (92, 60), (44, 44, 46), -1)
    cv2.rectangle(image, (46, 74), (82, 86), (225, 222, 205), -1)
    cv2.rectangle(image, (0, 92), (128, 112), (62, 62, 64), -1)
    return _tile(image, (1.0, 1.0))


def _fence(rng: np.random.Generator) -> Tile:
    """Return pickets, bars, rails or wire with gaps; one repetition high."""
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
    base = np.array(tones[rng.integers(4)], np.float32)
    image = base * (1 + 0.12 * noise(rng, side, 0.7, (4.0, 0.6)))[..., None]
    return _tile(np.dstack((image, alpha)), (float(rng.uniform(1.2, 2.4)), 1.0))


def _macro(rng: np.random.Generator) -> Tile:
    """Return a large-scale variation of tone, 128 for none."""
    tone = 15 * noise(rng, 256, 1.5) + 5 * noise(rng, 256, 0.7)
    warm = 6 * noise(rng, 256, 1.6)
    image = 128 + tone[..., None] + np.stack((warm, 0 * warm, -warm), -1)
    return _tile(image, float(rng.uniform(80, 160)))


def _sky(rng: np.random.Generator) -> Tile:
    clouds = np.clip(noise(rng, 512, 1.7) * float(rng.uniform(0.4, 1.2)) + float(rng.uniform(-0.8, 1.0)), 0, 1.6)
    blue = np.array((116, 156, 206), np.float32) * float(rng.uniform(0.85, 1.15))
    grey = np.array((228, 230, 234), np.float32) - 26 * clouds[..., None]
    return _tile((blue + (grey - blue) * np.clip(clouds, 0, 1)[..., None]), float(rng.uniform(6, 12)))


TILES: Final[dict[str, tuple[int, Callable[[np.random.Generator], Tile]]]] = {
    'grass': (6, _grass), 'soil': (5, _soil), 'wheat': (2, _wheat), 'gravel': (3, _gravel), 'litter': (2, _litter),
    'asphalt': (3, lambda rng: _tile(_asphalt_noise(rng, 1024), float(rng.uniform(7, 12)))),
    'road': (6, _road), 'paving': (4, _paving), 'brick': (3, _brick),
    'concrete': (3, _concrete), 'wood': (3, _wood), 'roof': (5, _roof), 'facade': (10, _facade),
    'leafage': (3, _leafage),
    'bark': (2, lambda rng: _tile(_ramp(noise(rng, 256, 0.9, (3.0, 0.5)), BARK), (0.8, 1.6))),
    'plain': (1, lambda rng: _tile((205 + 6 * noise(rng, 128, 0.8))[..., None].repeat(3, 2), 1.5)), 'end': (4, _end),
    'metal': (1, lambda rng: _tile((150 + 12 * noise(rng, 128, 0.9, (2.0, 0.5)))[..., None] * STEEL, 1.0)),
    'fence': (8, _fence), 'macro': (4, _macro), 'sky': (6, _sky),
}  # fmt: skip
"""Number of variants and maker of each kind."""
