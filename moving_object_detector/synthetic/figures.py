"""People and animals of a flight's world: cards with limbs of two segments that walk, run, play or ride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from moving_object_detector.synthetic.flight_path import Matrix, level
from moving_object_detector.synthetic.materials import material
from moving_object_detector.synthetic.things import Builder, Course, Joint, up
from moving_object_detector.synthetic.tiles import Material

Look = tuple[Material, Matrix]
"""Material and colour of a card."""
Angles = tuple[float, float]
"""Angle at rest, and swing about it, radians."""


@dataclass(frozen=True)
class Gait:
    """How a figure moves; angles are in radians, forwards positive."""

    pace: float
    """Hz."""
    lean: float
    """Of the trunk."""
    hip: Angles
    knee: Angles
    shoulder: Angles
    elbow: Angles
    unruly: float = 0.0
    """How much each limb has a rhythm and a rest of its own, in [0, 1]."""


def draw_gait(rng: np.random.Generator, speed: float) -> Gait:
    """Draw how a person moves at ``speed``, metres per second: walking, running, or dancing and playing."""

    def about(value: float) -> float:
        return value * float(rng.uniform(0.7, 1.3))

    kind = rng.random()
    if kind < 0.3:
        return Gait(about(1.0), float(rng.normal(0, 0.2)), (0.1, about(0.7)), (-0.5, about(0.5)), (0.3, about(0.9)),
                    (0.6, about(0.6)), 1.0)  # fmt: skip
    if speed > 1.8 or kind < 0.4:
        return Gait(about(1.4), about(0.15), (0.2, about(0.8)), (-0.9, about(0.7)), (0.0, about(0.7)),
                    (1.4, about(0.2)), 0.1)  # fmt: skip
    return Gait(about(0.9), about(0.04), (0.05, about(0.45)), (-0.35, about(0.35)), (0.0, about(0.4)),
                (0.25, about(0.15)), 0.1)  # fmt: skip


_SKIN: Final = np.array((0.85, 0.66, 0.52))
_COAT: Final = np.array((0.55, 0.42, 0.3))


def add_figure(builder: Builder, course: Course, facing: float, scale: float, *, animal: bool = False) -> None:
    """Add a person or animal of cards in an upright plane at ``facing``, relative to its course.

    ``scale`` is a person's height or the unit of an animal's size, metres. Some persons ride a cycle.
    """
    # A spawned generator leaves the rest of the world unchanged, however a figure is drawn.
    rng = builder.rng.spawn(1)[0]
    body = _Figure(builder, rng, course, facing, scale)
    if animal:
        body.animal()
    elif rng.random() < 0.15:
        body.cyclist()
    else:
        body.person(draw_gait(rng, float(np.hypot(*course.velocity[:2]))))


class _Figure:
    """Draws one figure; lengths are in units of its scale, angles are forwards positive."""

    def __init__(self, builder: Builder, rng: np.random.Generator, course: Course, facing: float, scale: float) -> None:
        self._builder, self._rng, self._scale = builder, rng, scale
        self._along = level(facing)
        self._axis = np.asarray(np.cross(self._along, (0, 0, 1)), np.float64)
        self._forward = 1.0 if np.cos(facing) >= 0 else -1.0
        self._course = course
        self._part = builder.part
        self._phase = float(rng.uniform(0, 2 * np.pi))

    def _cloth(self) -> Look:
        rng = self._rng
        kind = 'cloth' if rng.random() < 0.6 else 'limb'
        colour = rng.uniform(0.08, 1.0, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(0.06, 1.0))
        return material(kind, int(rng.integers(1000))), colour * rng.uniform(0.6, 1.1)

    def _at(self, x: float, z: float) -> Matrix:
        return self._along * (x * self._forward * self._scale) + up(z * self._scale)

    def _joint(self, x: float, z: float, rest: float, swing: float, pace: float, phase: float,
               carrier: Joint | None = None) -> Joint:  # fmt: skip
        sign, axis = self._forward, self._axis
        return Joint(self._at(x, z), axis, sign * swing, pace, self._phase + phase, sign * rest, carrier)

    def _piece(self, top: tuple[float, float], width: float, height: float, look: Look, layer: int,
               joint: Joint | None, *, lying: bool = False) -> None:  # fmt: skip
        """Hang a card by its upper middle; ``lying`` lays it backwards from there instead."""
        what, colour = look
        across, down = self._along * (width * self._scale), up(-height * self._scale)
        if lying:
            down = -self._along * (height * self._scale * self._forward)
            across = up(-width * self._scale)
        corner = self._at(*top) - across / 2 + self._axis * (0.004 * layer)
        part = self._part(self._course, joint)
        self._builder.face(what, corner, across, down, colour, part=part, flat=True)

    def _limb(self, top: tuple[float, float], lengths: tuple[float, float], widths: tuple[float, float],
              looks: tuple[Look, Look], layer: int,
              angles: tuple[Angles, Angles], pace: float, phase: float,
              carrier: Joint | None = None) -> Joint:  # fmt: skip
        """Add a limb of two segments that hangs from ``top``; return the joint in its middle."""
        (rest, swing), (bent, bend) = angles
        upper = self._joint(*top, rest, swing, pace, phase, carrier)
        middle = (top[0], top[1] - lengths[0])
        lower = self._joint(*middle, bent, bend, pace, phase + 1.2, upper)
        self._piece((top[0], top[1] + 0.4 * widths[0]), widths[0], lengths[0] + 0.8 * widths[0], looks[0], layer, upper)
        self._piece((middle[0], middle[1] + 0.4 * widths[1]), widths[1], lengths[1] + 0.4 * widths[1], looks[1], layer,
                    lower)  # fmt: skip
        return lower

    def person(self, gait: Gait, hips: float = 0.5) -> None:
        """Add a person, who stands on the ground if ``hips`` is half the height."""
        rng = self._rng
        shirt, trousers = self._cloth(), self._cloth()
        skin = material('limb', int(rng.integers(1000))), _SKIN * rng.uniform(0.3, 1.1)
        arms, legs = shirt if rng.random() < 0.5 else skin, trousers if rng.random() < 0.7 else skin
        stout = float(rng.uniform(0.85, 1.3))

        def own(angles: Angles) -> Angles:
            wild = gait.unruly
            return angles[0] + wild * float(rng.normal(0, 0.6)), angles[1] * (1 + wild * float(rng.uniform(-0.6, 0.4)))

        def rhythm(phase: float) -> tuple[float, float]:
            wild = gait.unruly
            return gait.pace * (1 + 0.4 * wild * float(rng.uniform(-1, 1))), phase + wild * float(rng.uniform(0, 6))

        trunk = self._joint(0, hips, -gait.lean, 0.04 + 0.25 * gait.unruly * rng.random(), gait.pace, 0.5)
        arm, leg = ((0.17, 0.2), (0.075 * stout, 0.06 * stout)), ((0.25, 0.25), (0.13 * stout, 0.09 * stout))
        shoulder, hip = (0.01, hips + 0.3), (0.0, hips)
        for layer, phase in ((-3, 0.0), (3, np.pi)):
            angles = own(gait.shoulder), own(gait.elbow)
            self._limb(shoulder, *arm, (shirt, arms), layer, angles, *rhythm(phase), trunk)
            angles = own(gait.hip), own(gait.knee)
            self._limb(hip, *leg, (trousers, legs), layer // 3, angles, *rhythm(phase + np.pi))
        self._piece((0, hips + 0.35), 0.22 * stout, 0.4, shirt, 0, trunk)
        self._piece((0.01, hips + 0.39), 0.06, 0.1, skin, -1, trunk)  # neck
        head = material('disc', 2), skin[1] * rng.uniform(0.5, 1.1)
        self._piece((0.02, hips + 0.49), 0.13, 0.16, head, 1, trunk)

    def cyclist(self) -> None:
        """Add a person on a bicycle or a motorcycle."""
        rng = self._rng
        frame, tyre = (material('limb', 0), rng.uniform(0.1, 0.9, 3)), (material('disc', 1), np.full(3, 0.2))
        thick = float(rng.uniform(0.03, 0.2))
        for x in (-0.3, 0.3):
            self._piece((x, 0.37), 0.37, 0.37, tyre, -1, None)
        self._piece((0.3, 0.4), thick, 0.6, frame, 0, None, lying=True)
        pedals = float(rng.choice((0.0, 0.4)))
        self.person(Gait(1.0, float(rng.uniform(0.2, 0.7)), (1.0, pedals), (-1.1, pedals), (0.9, 0.03), (0.3, 0.03)),
                    0.52)  # fmt: skip

    def animal(self) -> None:
        """Add an animal on four legs."""
        rng = self._rng
        colour = _COAT * rng.uniform(0.3, 1.7) if rng.random() < 0.7 else np.full(3, rng.uniform(0.08, 1.0))
        look = material('cloth' if rng.random() < 0.5 else 'limb', int(rng.integers(1000))), colour
        high, length, deep = (float(rng.uniform(*ends)) for ends in ((0.35, 0.7), (0.9, 1.5), (0.28, 0.5)))
        pace, swing = float(rng.uniform(0.8, 2.2)), float(rng.uniform(0.25, 0.8))
        gallop = float(rng.choice((0.3, np.pi)))
        half, thick = length / 2 - 0.08, float(rng.uniform(0.07, 0.14))
        joint = self._joint(0, high, 0, 0.04 if gallop > 1 else 0.12, pace, 0)
        for x, phase in ((half, 0.0), (half - 0.06, gallop), (-half, np.pi), (0.06 - half, np.pi + gallop)):
            bend = (-0.25 if x > 0 else 0.25, 0.5 * swing)
            self._limb((x, high + 0.05), (0.5 * high, 0.5 * high), (1.4 * thick, thick), (look, look), -1,
                       ((0.0, swing), bend), pace, phase, joint)  # fmt: skip
        self._piece((length / 2, high + 0.3 * deep), deep, length, look, 0, joint, lying=True)
        raised, neck = float(rng.uniform(0.3, 1.9)), float(rng.uniform(0.2, 0.5))
        base = (half, high + 0.35 * deep)
        throat = self._joint(*base, np.pi / 2 + raised - 0.3, float(rng.uniform(0.05, 0.3)), pace, 1.0, joint)
        self._piece((base[0], base[1] + 0.06), 0.5 * deep, neck + 0.1, look, 1, throat)
        tip = (base[0], base[1] - neck)
        face = self._joint(*tip, -raised, 0.1, pace, 2.0, throat)
        self._piece((tip[0], tip[1] + 0.08), 0.45 * deep, float(rng.uniform(0.3, 0.5)), look, 1, face)
        tail = self._joint(-length / 2, high + 0.4 * deep, -float(rng.uniform(0.2, 1.5)), 0.4, pace, 0, joint)
        self._piece((-length / 2, high + 0.4 * deep), 0.06, float(rng.uniform(0.2, 0.5)), look, 1, tail)
