"""Placing static and moving objects of a flight's world along the camera's path, in its view."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from moving_object_detector.synthetic.figures import add_figure
from moving_object_detector.synthetic.flight_path import FlightPath, Matrix, level, turn_z
from moving_object_detector.synthetic.things import Builder, Course, up
from moving_object_detector.synthetic.tiles import Tile

_STYLES: Final = {
    # Ground, patches of other ground, weights of objects: tree conifer shrub post run house car rock bough.
    'meadow': ('grass', ('grass', 'soil', 'wheat', 'litter'), (5, 3, 5, 1, 1, 0.3, 0.2, 1.5, 1.5)),
    'fields': ('soil', ('grass', 'wheat', 'soil', 'soil'), (4, 1, 3, 1, 1.5, 0.5, 0.3, 1, 0.7)),
    'suburb': ('grass', ('paving', 'asphalt', 'gravel', 'grass'), (4, 1, 3, 2, 3, 3, 3, 0.7, 1)),
    'town': ('paving', ('asphalt', 'paving', 'grass', 'concrete'), (3, 0.3, 1, 4, 2, 4, 4, 0.7, 0.7)),
    'wood': ('litter', ('grass', 'litter', 'gravel'), (7, 5, 5, 0.7, 0.3, 0.1, 0.1, 1.5, 3)),
    'yard': ('gravel', ('asphalt', 'concrete', 'grass'), (2, 1, 2, 2, 2, 1.5, 2, 2, 0.5)),
}
_SIZES: Final = {
    'tree': (3.0, 2.0, 11.5), 'conifer': (3.0, 1.5, 12.0), 'shrub': (1.2, 0.7, 1.6), 'post': (1.5, 0.5, 6.0),
    'run': (2.5, 1.2, 2.2), 'house': (12.0, 9.0, 17.0), 'car': (5.0, 2.6, 2.0), 'rock': (2.0, 1.6, 1.2),
    'bough': (1.2, 0.6, 9.0),
}  # fmt: skip
"""Of static objects: least distance from the camera, radius, height; metres."""
_MOVERS: Final = {
    'car': (0.32, 1.5, 12.0), 'person': (0.28, 0.5, 3.5), 'animal': (0.08, 0.5, 4.0),
    'bird': (0.14, 2.0, 11.0), 'ball': (0.12, 1.0, 9.0), 'drone': (0.06, 0.5, 8.0),
}  # fmt: skip
"""Of movers: probability, least and greatest speed in metres per second."""


class _Road(NamedTuple):
    """A straight road."""

    middle: Matrix
    angle: float
    width: float

    def aside(self, place: Matrix) -> float:
        """Return how far a place is to the left of the road's middle."""
        return float((place - self.middle) @ level(self.angle + np.pi / 2))


class World:
    """Fills a builder with the objects that the camera meets on its path within ``seconds``."""

    def __init__(
        self, builder: Builder, path: FlightPath, intrinsics: Matrix, size: tuple[int, int], seconds: float
    ) -> None:
        self._builder = builder
        self._rng = builder.rng
        self._path = path
        self._intrinsics = intrinsics
        self._inverse = np.linalg.inv(intrinsics)
        self._size = size
        self._seconds = seconds
        self._times = np.linspace(-0.5, seconds + 0.5, 80)
        self._course = np.array([path.position(second) for second in self._times])
        self._taken: list[tuple[Matrix, float]] = []
        self._road: _Road | None = None
        self._slope: tuple[Matrix, Matrix] | None = None
        """A point at the foot of a slope, and its uphill horizontal direction times its gradient."""

    def populate(self, parallax: float, *, still: bool, follow: bool = False) -> None:
        """Lay the ground and place objects; ``parallax`` as in ``FlightOptions``."""
        base, patches, weights = _STYLES[str(self._rng.choice(list(_STYLES)))]
        self._lay_ground(base, patches)
        self._lay_road()
        if parallax > 0:
            self._lay_slope()
            self._ring_horizon()
            self._stand_things(np.array(weights), parallax)
        if not still:
            self._set_moving(follow=follow)

    # Places.

    def _ray(self, when: float, margin: float = 0.0) -> tuple[Matrix, Matrix]:
        """Return the camera's position and a random line of sight, a unit vector."""
        pose = self._path.pose(when)
        height, width = self._size
        x, y = (self._rng.uniform(margin, 1 - margin) * side for side in (width, height))
        ray = pose[:3, :3] @ self._inverse @ (x, y, 1.0)
        return pose[:3, 3], ray / np.linalg.norm(ray)

    def _ground(self, when: float, least: float, most: float, margin: float = 0.0) -> Matrix | None:
        """Return a ground point in view at ``when``, at a horizontal distance between two bounds; None if not found."""
        for _ in range(8):
            eye, ray = self._ray(when, margin)
            if ray[2] < -1e-3:
                distance = eye[2] / -ray[2] * np.hypot(ray[0], ray[1])
                if least <= distance <= most:
                    return np.array((*(eye + ray * eye[2] / -ray[2])[:2], 0.0))
        return None

    def _when(self) -> float:
        return float(self._rng.uniform(0, self._seconds))

    def _clear(self, place: Matrix, radius: float, top: float) -> bool:
        """Tell whether the camera never passes through an object."""
        near = np.hypot(*(self._course[:, :2] - place[:2]).T) < radius + 0.7
        return not (near & (self._course[:, 2] < top + 0.5)).any()

    def _height(self, place: Matrix) -> float:
        """Return the slope's height at a place; 0 beside it."""
        return max(float((place - self._slope[0]) @ self._slope[1]), 0.0) if self._slope is not None else 0.0

    def _neighbours(self, place: Matrix) -> list[tuple[float, float]]:
        """Return the distances and radii of the static objects."""
        return [(float(np.hypot(*(place - other)[:2])), radius) for other, radius in self._taken]

    def _free(self, course: Course, radius: float, *, aloft: bool) -> bool:
        """Tell whether a mover avoids the camera and, on the ground near its time, static objects."""
        for second, eye in zip(self._times, self._course, strict=True):
            _, place = course.pose(float(second))
            if float(np.linalg.norm(place + up(0.0 if aloft else 0.8) - eye)) < radius + 1.0:
                return False
            if aloft or abs(second - course.since) > 1.0:
                continue
            if self._height(place) > 0.1:
                return False
            if any(distance < radius + 0.6 * other for distance, other in self._neighbours(place)):
                return False
        return True

    def _in_view(self, course: Course) -> float:
        """Return the share of the flight in which a mover is in view; a third of it beyond 25 m."""
        height, width = self._size
        share = 0.0
        for second in np.linspace(0, self._seconds, 7):
            pose = self._path.pose(float(second))
            _, place = course.pose(float(second))
            x, y, depth = pose[:3, :3].T @ (place - pose[:3, 3])
            at = self._intrinsics @ (x, y, depth) / max(depth, 1e-6)
            if depth > 0.5 and 0 < at[0] < width and 0 < at[1] < height:
                share += 1 / 7 if depth < 25 else 1 / 21
        return share

    # Surroundings.

    def _lay(self, kind: str, middle: Matrix, angle: float, length: float, width: float) -> None:
        s, t = width * level(angle + np.pi / 2), length * level(angle)
        what, tint = self._builder.pick(kind), self._rng.uniform(0.85, 1.1) * np.ones(3)
        self._builder.face(what, middle - s / 2 - t / 2, s, t, tint, ground=True)

    def _lay_ground(self, base: str, patches: tuple[str, ...]) -> None:
        rng = self._rng
        turn = float(rng.uniform(0, np.pi))
        s, t = 200.0 * level(turn), 200.0 * level(turn + np.pi / 2)
        tone = self._builder.pick('macro')
        assert isinstance(tone, Tile)
        self._builder.face(self._builder.pick(base), -(s + t) / 2, s, t, ground=True, endless=True, tone=tone)
        for _ in range(int(rng.integers(2, 8))):
            middle = self._ground(self._when(), 1.0, 120.0)
            if middle is not None:
                length, width = map(float, np.exp(rng.uniform(np.log(3), np.log(50), 2)))
                self._lay(str(rng.choice(patches)), middle, turn + 0.1 * float(rng.normal()), length, width)

    def _lay_road(self) -> None:
        rng, path = self._rng, self._path
        drives = path.motion == 'drive'
        if not drives and rng.random() < 0.35:
            return
        middle = self._ground(self._when(), 1.0, 60.0)
        middle = np.zeros(3) if middle is None else middle
        angle, width = float(rng.uniform(0, np.pi)), float(rng.uniform(3, 9))
        if drives:
            angle = float(np.arctan2(path.velocity[1], path.velocity[0]))
            middle = path.start * (1, 1, 0) + 0.22 * width * level(angle + np.pi / 2)
            width = max(width, 5.5)
        if rng.random() < 0.5:
            kind = str(rng.choice(('paving', 'gravel', 'grass')))
            self._lay(kind, middle, angle, 800.0, width + float(rng.uniform(2, 5)))
        self._lay('road', middle, angle, 800.0, width)
        if rng.random() < 0.3:
            self._lay('road', middle + 20 * rng.normal(0, 1, 3) * (1, 1, 0), angle + np.pi / 2, 800.0, width)
        self._road = _Road(middle, angle, width)

    def _lay_slope(self) -> None:
        """Perhaps raise a bank or a hill beside the camera's path."""
        rng, face = self._rng, self._builder.face
        if rng.random() < 0.55:
            return
        for _ in range(6):
            foot = self._ground(self._when(), 8.0, 80.0)
            if foot is None:
                continue
            angle, rise = float(rng.uniform(0, 2 * np.pi)), float(np.radians(rng.uniform(8, 35)))
            depth = float(rng.uniform(5, 60))
            along, inland = level(angle), level(angle + np.pi / 2)
            if ((self._course - foot) @ inland > -3).any():
                continue
            edge = inland * np.cos(rise) + (0, 0, np.sin(rise))
            kind = str(rng.choice(('grass', 'grass', 'gravel', 'litter', 'concrete')))
            self._slope = foot, inland * np.tan(rise)
            what, start = self._builder.pick(kind), foot - 200 * along - 0.02 * edge
            face(what, start, 400 * along, depth * edge, casts=False)
            crest = foot + depth * edge - 200 * along
            face(self._builder.pick('grass'), crest, 400 * along, 200 * inland, casts=False)
            return

    def _ring_horizon(self) -> None:
        """Place distant woods and ridges."""
        rng, count = self._rng, 9
        middle = self._course.mean(0) * (1, 1, 0)
        for number in range(count):
            if rng.random() < 0.25:
                continue
            angle, distance = 2 * np.pi * number / count + float(rng.normal(0, 0.1)), float(rng.uniform(130, 320))
            width = 2.2 * distance * np.tan(np.pi / count)
            what, height = self._builder.pick('skyline'), float(rng.uniform(8, 26))
            foot = middle + distance * level(angle)
            self._builder.upright(what, foot, width, height, angle + np.pi / 2, flat=True, casts=False)

    # Static objects.

    def _stand_things(self, weights: Matrix, parallax: float) -> None:
        rng, road = self._rng, self._road
        count = round(float(rng.uniform(10, 34)) * min(parallax, 2.0) ** 0.7)
        near = 1.0 if parallax <= 1 else 1 / parallax
        for kind in map(str, rng.choice(list(_SIZES), count, p=weights / weights.sum())):
            least, radius, top = _SIZES[kind]
            when = self._when()
            place = self._ground(when, least * near, 90.0)
            if place is None or not self._clear(place, radius, top):
                continue
            if road is not None and kind == 'car':
                place = self._beside(road, place)
            elif road is not None and abs(road.aside(place)) < road.width / 2 + 0.6 * radius:
                continue
            rise = self._height(place)
            # Slopes carry only trees and the like, and nothing above 15 m.
            if (rise > 0.1 and kind in {'house', 'car', 'run'}) or rise > 15:
                continue
            if any(distance < 0.8 * (radius + other) for distance, other in self._neighbours(place)):
                continue
            self._taken.append((place, radius))
            if kind == 'bough':
                self._hang(when)
                continue
            angle = float(rng.uniform(0, np.pi)) if road is None else road.angle + float(rng.choice((0, np.pi / 2)))
            self._stand(kind, place + up(rise), angle)

    def _beside(self, road: _Road, place: Matrix) -> Matrix:
        """Move a place to the road's nearer edge."""
        gap = 1.2 if self._path.motion == 'drive' else float(self._rng.uniform(-1.2, 3))
        aside = road.aside(place)
        to_edge = (1 if aside >= 0 else -1) * (road.width / 2 + gap) - aside
        return np.asarray(place + level(road.angle + np.pi / 2) * to_edge, np.float64)

    def _stand(self, kind: str, place: Matrix, angle: float) -> None:
        builder = self._builder
        if kind == 'run':
            self._run(place, angle)
        elif kind == 'house':
            builder.house(place, angle)
        elif kind == 'car':
            builder.car(None, place, angle + float(self._rng.choice((0.0, np.pi))))
        else:
            simple = {'tree': builder.tree, 'conifer': builder.conifer, 'shrub': builder.shrub, 'post': builder.post}
            simple.get(kind, builder.rock)(place)

    def _run(self, place: Matrix, angle: float) -> None:
        """Place a fence, or poles with wires, unless the camera passes through it."""
        length = float(self._rng.uniform(4, 25))
        points = [place + length * level(angle) * share for share in np.linspace(-0.5, 0.5, 14)]
        if self._rng.random() < 0.2 and all(self._clear(spot, 0.5, 9.5) for spot in points):
            self._builder.wires(place, angle, length)
        elif all(self._clear(spot, 0.5, 2.2) for spot in points):
            self._builder.run(place, angle, length)

    def _hang(self, when: float) -> None:
        """Hang a bough into the view, with a tree to carry it."""
        eye, ray = self._ray(when)
        place = eye + ray * float(self._rng.uniform(2, 9))
        in_the_way = self._road is not None and abs(self._road.aside(place)) < self._road.width / 2 + 0.5
        if 0.8 < place[2] < 9 and not in_the_way and self._clear(place, 1.5, 20):
            angle = float(self._rng.uniform(0, 2 * np.pi))
            foot = np.array((*place[:2], 0.0)) - 0.1 * level(angle)
            self._builder.bough(place, angle)
            self._builder.tree(foot, 1.6 * float(place[2]))

    # Movers.

    def _set_moving(self, *, follow: bool) -> None:
        """Send movers through the view, spread over the flight; the first two are chosen to stay in view for long.

        With ``follow`` the first moves along with the camera.
        """
        rng = self._rng
        count = int(rng.integers(2, 7))
        for number in range(count):
            when = (number + float(rng.uniform(0.1, 0.9))) * self._seconds / count
            kind = str(rng.choice(list(_MOVERS), p=[share for share, _, _ in _MOVERS.values()]))
            plans: list[Course] = []
            for _ in range(24 if number < 2 else 6):
                course = self._plan(kind, when, along=follow and not number)
                if course is not None:
                    plans.append(course)
                if plans and number >= 2:
                    break
            if plans:
                self._builder.instances += 1
                self._make(kind, max(plans, key=self._in_view), self._path.position(when))

    def _plan(self, kind: str, when: float, *, along: bool = False) -> Course | None:
        """Return a course through the view at a time; None if it would collide."""
        rng, path = self._rng, self._path
        flies = kind in {'bird', 'ball', 'drone'}
        if flies:
            eye, ray = self._ray(when, 0.12)
            place = eye + ray * float(np.exp(rng.uniform(np.log(1.8), np.log(12))))
            place[2] = max(place[2], 0.3)
        else:
            # Drawn by distance: points spread evenly over the image would mostly be far.
            wish = float(np.exp(rng.uniform(np.log(4.5 if kind == 'car' else 2.5), np.log(30))))
            found = self._ground(when, 0.7 * wish, 1.4 * wish, 0.12)
            if found is None:
                return None
            place = found
        travel = (path.position(when + 0.1) - path.position(when - 0.1))[:2] * 5
        pace = float(np.hypot(*travel))
        _, slowest, fastest = _MOVERS[kind]
        speed, heading, how = float(rng.uniform(slowest, fastest)), float(rng.uniform(0, 2 * np.pi)), rng.random()
        if how < 0.35 and pace > 0.3:
            # Parallel to the camera's path, mostly the same way.
            heading = float(np.arctan2(travel[1], travel[0])) + (np.pi if rng.random() < 0.3 else 0.0)
            speed = float(np.clip(pace * rng.uniform(0.4, 1.3), 0.5, 1.2 * fastest))
        if along:
            heading = float(np.arctan2(travel[1], travel[0])) + float(rng.normal(0, 0.2))
            speed = max(pace * float(rng.uniform(0.75, 1.2)), 0.3)
        elif kind == 'car' and self._road is not None and rng.random() < 0.75:
            _, angle, width = self._road
            across = level(angle + np.pi / 2)
            sense = float(rng.choice((-1, 1)))
            place = place - across * self._road.aside(place) - sense * across * width * 0.23
            heading = angle if sense > 0 else angle + np.pi
        velocity = (speed * np.cos(heading), speed * np.sin(heading), float(rng.normal(0, 0.6)) if flies else 0.0)
        course = Course(place, velocity, heading, when, float(rng.normal(0, 0.12)) if how > 0.6 else 0.0)
        radius = {'car': 2.2, 'person': 0.7, 'animal': 0.8}.get(kind, 0.5)
        return course if self._free(course, radius, aloft=flies) else None

    def _make(self, kind: str, course: Course, eye: Matrix) -> None:
        rng, builder = self._rng, self._builder
        toward = (eye - course.place) / max(float(np.linalg.norm(eye - course.place)), 1e-6)
        heading = course.heading
        if kind == 'car':
            builder.car(course)
        elif kind in {'person', 'animal'}:
            # The cards' plane roughly contains the walking direction, or faces the camera if that points at it.
            side = np.arctan2(toward[1], toward[0]) + np.pi / 2
            facing = float(np.round((side - heading) / np.pi) * np.pi + 0.35 * np.sin(2 * (side - heading)))
            facing = float(side - heading) if abs(np.cos(side - heading)) < 0.5 else facing
            low, high = (1.5, 1.95) if kind == 'person' else (0.5, 1.0)
            add_figure(builder, course, facing, float(rng.uniform(low, high)), animal=kind == 'animal')
        elif kind == 'bird':
            builder.bird(replace(course, bounce=(float(rng.uniform(0, 0.2)), 1.0)), float(rng.uniform(0.4, 1.6)))
        elif kind == 'ball':
            bounce = (float(rng.uniform(0.2, 2)), float(rng.uniform(0.5, 1.2))) if rng.random() < 0.6 else (0.0, 0.0)
            builder.ball(replace(course, bounce=bounce), float(rng.uniform(0.2, 0.8)), turn_z(-heading) @ toward)
        else:
            builder.drone(course, float(rng.uniform(0.4, 1.4)))
