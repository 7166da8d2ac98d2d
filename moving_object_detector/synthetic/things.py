"""Static and moving objects of a flight's world, built of planes."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moving_object_detector.synthetic.flight_path import Matrix, level, turn_about, turn_z
from moving_object_detector.synthetic.materials import OUTLINES, material, vehicle_side
from moving_object_detector.synthetic.planes import Face
from moving_object_detector.synthetic.tiles import Material

PartPose = tuple[Matrix, Matrix]
"""Rotation (3, 3) and translation (3,) to the world."""


def up(height: float) -> Matrix:
    """Return the vertical vector of a height."""
    return np.array((0.0, 0.0, height))


@dataclass(frozen=True)
class Joint:
    """A swing about a point of the body at rest, as of a leg or a wing; radians and Hz."""

    pivot: Matrix
    axis: Matrix
    swing: float
    frequency: float
    phase: float
    rest: float = 0.0
    """Angle about which it swings."""
    carrier: Joint | None = None
    """Joint that moves this one, as a hip moves a knee."""

    def pose(self, seconds: float) -> PartPose:
        """Return rotation (3, 3) and translation (3,) from the body at rest to the body."""
        angle = self.rest + self.swing * np.sin(2 * np.pi * self.frequency * seconds + self.phase)
        turn = turn_about(self.axis, float(angle))
        shift = self.pivot - turn @ self.pivot
        if self.carrier is None:
            return turn, shift
        rotation, place = self.carrier.pose(seconds)
        return rotation @ turn, rotation @ shift + place


@dataclass(frozen=True)
class Course:
    """Motion of an object: along a horizontal arc, perhaps climbing or bouncing."""

    place: Matrix
    """Position at second ``since``, metres."""
    velocity: tuple[float, float, float]
    heading: float
    """Heading of the object, radians; it turns with the arc."""
    since: float = 0.0
    curve: float = 0.0
    """Turn rate, radians per second."""
    bounce: tuple[float, float] = (0.0, 0.0)
    """Height in metres and bounces per second."""

    def pose(self, seconds: float) -> PartPose:
        """Return rotation (3, 3) and translation (3,) from object to world."""
        after = seconds - self.since
        turned = self.curve * after
        vx, vy, vz = self.velocity
        if abs(self.curve) > 1e-6:
            along, side = np.sin(turned) / self.curve, (1 - np.cos(turned)) / self.curve
        else:
            along, side = after, 0.0
        high, often = self.bounce
        rise = vz * after + high * abs(np.sin(np.pi * often * after))
        place = np.array((along * vx - side * vy, along * vy + side * vx, rise)) + self.place
        return turn_z(self.heading + turned), place

    def middle(self, seconds: float) -> Matrix:
        """Return the object's approximate centre in the world, (3,)."""
        return self.pose(seconds)[1] + up(0.7)


@dataclass(frozen=True)
class Part:
    """A rigid part of a mover."""

    instance: int
    """Number of the mover, from 1."""
    course: Course
    joint: Joint | None = None

    def pose(self, seconds: float) -> PartPose:
        """Return rotation and translation from part to world."""
        rotation, place = self.course.pose(seconds)
        if self.joint is None:
            return rotation, place
        turn, shift = self.joint.pose(seconds)
        return rotation @ turn, rotation @ shift + place


@dataclass
class Builder:
    """Collects faces and parts."""

    rng: np.random.Generator
    sun: Matrix
    """Unit vector to the sun; nearly straight up if overcast."""
    light: tuple[Matrix, Matrix]
    """Ambient light of the sky, and direct light of the sun."""
    faces: list[Face] = field(default_factory=list)
    parts: list[Part | None] = field(default_factory=lambda: [None])
    instances: int = 0

    def pick(self, kind: str) -> Material:
        """Return a material of this kind."""
        return material(kind, int(self.rng.integers(1000)))

    def face(self, what: Material, origin: Matrix, s: Matrix, t: Matrix, colour: ArrayLike = (1, 1, 1), *,
             outside: int = 0, flat: bool = False, turn: float = 0.0, **more: Any) -> None:  # fmt: skip
        """Add a parallelogram; ``flat`` lights it as if it faced up.

        ``turn`` is the heading of its part; ``more`` are fields of :class:`Face`.
        """
        normal = np.cross(s, t)
        normal = turn_z(turn) @ (normal / max(float(np.linalg.norm(normal)), 1e-9))
        normal = up(1.0) if flat else normal * (outside or (1 if normal[2] >= 0 else -1))
        ambient, direct = self.light
        sky = 0.75 + 0.25 * normal[2]
        lit = (ambient * sky + direct * max(float(normal @ self.sun), 0.0)) * np.array(colour)
        self.faces.append(Face(what, origin, s, t, lit, outside=outside, **more))

    def upright(self, what: Material, foot: Matrix, width: float, height: float, angle: float, **more: Any) -> None:
        """Add an upright card or wall, the middle of its lower edge at ``foot``."""
        s = width * level(angle)
        self.face(what, foot - s / 2 + up(height), s, up(-height), **more)

    def box(self, foot: Matrix, size: ArrayLike, angle: float, walls: Material, top: Material, **more: Any) -> None:
        """Add a box without bottom that stands on ``foot``."""
        length, width, height = np.array(size)
        along = level(angle) * length
        side = level(angle + np.pi / 2) * width
        corner = foot - along / 2 - side / 2 + up(height)
        starts = (corner, corner + along, corner + along + side, corner + side)
        for start, s in zip(starts, (along, side, -along, -side), strict=True):
            # The texture hangs from the top; s x t points outwards.
            self.face(walls, start + s, -s, up(-height), outside=1, **more)
        self.face(top, corner, along, side, outside=1, **more)

    # Static objects.

    def tree(self, foot: Matrix, least: float = 3.0) -> None:
        """Add a leafy tree at least ``least`` metres high: a trunk with boughs all around."""
        rng = self.rng
        height = float(rng.uniform(least, max(11, 1.3 * least)))
        spread = height * float(rng.uniform(0.4, 0.6))
        thick = height * float(rng.uniform(0.025, 0.045))
        self.box(foot, (thick, thick, 0.6 * height), float(rng.uniform(0, 3)), self.pick('bark'), self.pick('bark'))
        card = int(rng.integers(10))
        tint = rng.uniform(0.8, 1.1) * rng.uniform(0.95, 1.05, 3)
        for number in range(int(rng.integers(8, 12))):
            what = material('crown', card + number % 2)
            offset = rng.normal(0, 1, 3) * (0.22 * spread, 0.22 * spread, 0.13 * height) + up(0.72 * height)
            size = spread * float(rng.uniform(0.6, 0.95))
            angle = float(rng.uniform(0, np.pi))
            lean = turn_about(level(angle), float(rng.normal(0, 0.5)))
            s = size * level(angle)
            t = lean @ np.array((0.0, 0.0, -size))
            self.face(what, foot + offset - s / 2 - t / 2, s, t, tint, flat=True)

    def conifer(self, foot: Matrix) -> None:
        """Add a conifer of crossed cards."""
        rng = self.rng
        height, what, turn = float(rng.uniform(3, 12)), self.pick('conifer'), float(rng.uniform(0, 3))
        for number in range(3):
            self.upright(what, foot, height * 0.45, height, turn + number * np.pi / 3, flat=True)

    def shrub(self, foot: Matrix) -> None:
        """Add tall grass or a bush."""
        rng = self.rng
        size, kind = float(rng.uniform(0.4, 1.6)), 'tuft' if rng.random() < 0.6 else 'crown'
        what, turn = self.pick(kind), float(rng.uniform(0, 3))
        drop = 0.0 if kind == 'tuft' else 0.16 * size
        for number in range(3):
            place = foot + np.array((*rng.normal(0, 0.12 * size, 2), -drop))
            self.upright(what, place, size * 1.2, size, turn + number * 1.05, flat=True, casts=number < 2)

    def post(self, foot: Matrix) -> None:
        """Add a post, a lamp or a sign."""
        rng = self.rng
        height, thick = float(rng.uniform(0.8, 6)), float(rng.uniform(0.06, 0.22))
        what, angle = self.pick(str(rng.choice(('metal', 'wood', 'concrete')))), float(rng.uniform(0, 3))
        tint = rng.uniform(0.5, 1.0) * np.ones(3)
        self.box(foot, (thick, thick, height), angle, what, what, colour=tint)
        if height > 3.5:
            arm = foot + level(angle) * 0.5 + up(height - 0.12)
            self.box(arm, (1.2, thick, 0.12), angle, what, what, colour=tint)
        elif height > 1.8 and rng.random() < 0.6:
            colour = ((0.9, 0.2, 0.15), (0.2, 0.35, 0.8), (0.95, 0.95, 0.9), (0.9, 0.75, 0.1))[int(rng.integers(4))]
            self.upright(self.pick('plain'), foot + up(height - 0.7), 0.7, 0.7, angle, colour=colour)

    def wires(self, foot: Matrix, angle: float, length: float) -> None:
        """Add two poles with wires between them."""
        height, what = float(self.rng.uniform(4, 9)), self.pick('wood')
        along = level(angle) * length
        for sign in (-0.5, 0.5):
            self.box(foot + sign * along, (0.22, 0.22, height), angle, what, what)
        for drop in self.rng.uniform(0.1, 1.2, int(self.rng.integers(1, 4))):
            top = foot + up(height - drop)
            self.upright(self.pick('metal'), top, length, 0.035, angle, colour=(0.2, 0.2, 0.2), casts=False)

    def run(self, foot: Matrix, angle: float, length: float) -> None:
        """Add a fence, a wall or a hedge along ``angle``."""
        rng = self.rng
        kind = str(rng.choice(('fence', 'fence', 'brick', 'concrete', 'leafage', 'wood')))
        height, what = float(rng.uniform(0.8, 2.2)), self.pick(kind)
        if kind == 'fence':
            self.upright(what, foot, length, height, angle)
            return
        thick = float(rng.uniform(0.6, 1.2)) if kind == 'leafage' else float(rng.uniform(0.1, 0.3))
        self.box(foot, (length, thick, height), angle, what, what)

    def house(self, foot: Matrix, angle: float) -> None:
        """Add a building with a flat or a gabled roof."""
        rng = self.rng
        length, width = float(rng.uniform(6, 16)), float(rng.uniform(5, 10))
        height = float(rng.choice((3, 3, 6, 9, 14)) + rng.uniform(0, 1))
        walls = self.pick('facade' if rng.random() < 0.8 else str(rng.choice(('brick', 'concrete', 'wood'))))
        tint = rng.uniform(0.8, 1.1, 3) * rng.uniform(0.8, 1.0)
        self.box(foot, (length, width, height), angle, walls, self.pick('concrete'), colour=tint)
        if height > 9 or rng.random() < 0.25:
            return
        roof, rise, over = self.pick('roof'), width * float(rng.uniform(0.25, 0.5)), 0.4
        along = level(angle) * (length + 2 * over)
        side = level(angle + np.pi / 2) * (width / 2)
        ridge = foot + up(height + rise)
        for sign in (1, -1):
            slope = (side * sign + up(-rise)) * (1 + over / width)
            self.face(roof, ridge - along / 2, along, slope)
        # The gable is the upper half of a rhombus, whose lower half the walls hide.
        plaster = self.pick('concrete')
        for sign in (1, -1):
            middle = ridge + sign * along / 2 * ((length - 0.04) / (length + 2 * over))
            self.face(plaster, middle, side + up(-rise), -side + up(-rise), tint)

    def bough(self, place: Matrix, angle: float) -> None:
        """Add an overhanging branch."""
        rng = self.rng
        size, what = float(rng.uniform(1.2, 3.5)), self.pick('branch')
        s = size * np.array((np.cos(angle), np.sin(angle), float(rng.normal(-0.1, 0.2))))
        t = turn_about(s / np.linalg.norm(s), float(rng.normal(0, 0.7))) @ np.array((0, 0, -size / 2))
        self.face(what, place, s, t, flat=True)

    def rock(self, foot: Matrix) -> None:
        """Add a heap of blocks, such as boulders, crates or bales."""
        rng = self.rng
        what = self.pick(str(rng.choice(('gravel', 'concrete', 'wood', 'leafage', 'wheat'))))
        for _ in range(int(rng.integers(1, 4))):
            size = rng.uniform(0.4, 1.6, 3) * (1, 1, 0.7)
            self.box(foot + np.array((*rng.normal(0, 0.5, 2), 0)), size, float(rng.uniform(0, 3)), what, what)

    # Objects that move, or might.

    def part(self, course: Course | None, joint: Joint | None = None) -> int:
        """Add a rigid part of the last instance; return its number, 0 without a course."""
        if course is None:
            return 0
        self.parts.append(Part(self.instances, course, joint))
        return len(self.parts) - 1

    def car(self, course: Course | None, foot: Matrix | None = None, angle: float = 0.0) -> None:
        """Add a car, van or lorry, its outline extruded over its width; parked without a course."""
        rng = self.rng
        part = self.part(course)
        colours = ((0.95, 0.95, 0.95), (0.12, 0.12, 0.13), (0.5, 0.52, 0.55), (0.65, 0.08, 0.07), (0.1, 0.2, 0.45),
                   (0.75, 0.76, 0.78), (0.85, 0.7, 0.15), (0.2, 0.32, 0.24))  # fmt: skip
        paint = colours[int(rng.integers(len(colours)))]
        kind = int(rng.choice((0, 0, 0, 1, 2)))
        outline, glass = OUTLINES[kind], ((2, 4), (2,), (1,))[kind]
        half = 0.88 if kind == 0 else 1.05
        rotation, base = turn_z(angle), np.zeros(3) if foot is None else foot
        turn = course.heading if course is not None else 0.0

        def place(x: float, y: float, z: float) -> Matrix:
            return np.asarray(rotation @ (x, y, z) + base, np.float64)

        plain, ends = self.pick('plain'), int(rng.integers(4))
        for number, (here, there) in enumerate(pairwise(outline)):
            start, end = place(here[0], -half, here[1]), place(there[0], -half, there[1])
            across = place(here[0], half, here[1]) - start
            colour = (0.16, 0.19, 0.23) if number in glass else paint
            if number in {0, len(outline) - 2}:
                # The texture hangs from the top.
                low, high = (start, end) if number == 0 else (end, start)
                what, sign = material('end', ends + number), 1 if number else -1
                self.face(what, high, across, low - high, colour, part=part, outside=sign, turn=turn)
            else:
                self.face(plain, start, across, end - start, colour, part=part, outside=1, turn=turn)
        side = vehicle_side(kind)
        xs, height = [p[0] for p in outline], max(p[1] for p in outline)
        for sign in (1, -1):
            top = place(min(xs), sign * half, height)
            s, t = place(max(xs), sign * half, height) - top, up(-height)
            self.face(side, top, s, t, paint, part=part, outside=sign, turn=turn)

    def bird(self, course: Course, span: float) -> None:
        """Add a bird with beating wings that flies along its x axis."""
        rng = self.rng
        colour = np.ones(3) * rng.choice((0.15, 0.3, 0.6, 1.0)) * rng.uniform(0.8, 1.1)
        beat, phase = float(rng.uniform(1.5, 4)), float(rng.uniform(0, 6))
        wing, body = self.pick('wing'), self.pick('limb')
        for sign in (1.0, -1.0):
            joint = Joint(np.zeros(3), np.array((1, 0, 0)), sign * float(rng.uniform(0.4, 0.8)), beat, phase)
            origin = np.array((0.2 * span, 0.0, 0.0))
            self.face(wing, origin, np.array((0, sign * span / 2, 0)), np.array((-0.35 * span, 0, 0)), colour,
                      part=self.part(course, joint), flat=True)  # fmt: skip
        part = self.part(course)
        for s in (np.array((0, 0.12 * span, 0)), np.array((0, 0, 0.12 * span))):
            self.face(body, -s / 2 + (0.3 * span, 0, 0), s, np.array((-0.7 * span, 0, 0)), colour, part=part, flat=True)

    def ball(self, course: Course, size: float, towards: Matrix) -> None:
        """Add a ball: a disc that faces ``towards``, a unit vector relative to the course."""
        beside = np.array((-towards[1], towards[0], 0.0))
        across: Matrix = size * beside / max(float(np.hypot(*beside[:2])), 1e-6)
        down = np.asarray(np.cross(across, towards), np.float64)
        down *= -1 if down[2] > 0 else 1
        bright = self.rng.uniform(0.2, 1.1, 3)
        colour = bright / bright.max() * self.rng.uniform(0.8, 1.1)
        self.face(self.pick('disc'), -(across + down) / 2, across, down, colour, part=self.part(course), flat=True)

    def drone(self, course: Course, size: float) -> None:
        """Add a small aircraft: a box with four arms."""
        part, what = self.part(course), self.pick('metal')
        grey = np.ones(3) * self.rng.uniform(0.15, 0.9)
        body, arm = (0.4 * size, 0.3 * size, 0.2 * size), (size, 0.06 * size, 0.05 * size)
        for foot, extent, angle in ((0.0, body, 0.0), (0.16 * size, arm, 0.8), (0.16 * size, arm, 2.4)):
            self.box(up(foot), extent, angle, what, what, colour=grey, part=part, turn=course.heading)
