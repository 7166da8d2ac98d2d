"""Where things stand and move in a flight's world: along the camera's course, in its view."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic.flight_path import FlightPath, level, turn_z
from moving_object_detector.synthetic.things import Builder, Course, point, up
from moving_object_detector.synthetic.tiles import Tile

Matrix = NDArray[np.float64]

_STYLES: Final = {
    # Ground, patches of other ground, weights of what stands: tree conifer shrub post run house car rock bough.
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
"""Of what stands: least distance from the camera, radius, height; metres."""


_MOVERS: Final = {
    'car': (0.32, 1.5, 12.0), 'person': (0.28, 0.5, 3.5), 'animal': (0.08, 0.5, 4.0),
    'bird': (0.14, 2.0, 11.0), 'ball': (0.12, 1.0, 9.0), 'drone': (0.06, 0.5, 8.0),
}  # fmt: skip
"""Of what moves: how often it comes, least and most speed in metres per second."""


class Road(NamedTuple):
    """A straight road of no end."""

    middle: Matrix
    angle: float
    width: float


class _Places:
    """Finds places that the camera comes to see."""

    def __init__(
        self, builder: Builder, path: FlightPath, intrinsics: Matrix, size: tuple[int, int], seconds: float
    ) -> None:
        self._rng = builder.rng
        self._path = path
        self._inverse = np.linalg.inv(intrinsics)
        self._size = size
        self.seconds = seconds
        self._times = np.linspace(-0.5, seconds + 0.5, 80)
        self.course = np.array([path.position(second) for second in self._times])
        self._taken: list[tuple[Matrix, float]] = []
        self.slope: tuple[Matrix, Matrix] | None = None
        """A point at the foot of a slope, and the level direction that leads up it, times the rise a metre."""

    def ray(self, when: float, margin: float = 0.0) -> tuple[Matrix, Matrix]:
        """Return the camera and a random line of sight from it, a unit vector."""
        pose = self._path.pose(when)
        height, width = self._size
        x, y = (self._rng.uniform(margin, 1 - margin) * side for side in (width, height))
        ray = pose[:3, :3] @ self._inverse @ (x, y, 1.0)
        return pose[:3, 3], ray / np.linalg.norm(ray)

    def ground(self, when: float, least: float, most: float, margin: float = 0.0) -> Matrix | None:
        """Return a point of the ground in view at ``when``, at a level distance between two bounds."""
        for _ in range(8):
            eye, ray = self.ray(when, margin)
            if ray[2] < -1e-3:
                distance = eye[2] / -ray[2] * np.hypot(ray[0], ray[1])
                if least <= distance <= most:
                    return np.array((*(eye + ray * eye[2] / -ray[2])[:2], 0.0))
        return None

    def clear(self, place: Matrix, radius: float, top: float) -> bool:
        """Tell whether the camera passes a thing without going through it."""
        near = np.hypot(*(self.course[:, :2] - place[:2]).T) < radius + 0.7
        return not (near & (self.course[:, 2] < top + 0.5)).any()

    def height(self, place: Matrix) -> float:
        """Return how high the slope is at a place; 0 beside it."""
        return max(float((place - self.slope[0]) @ self.slope[1]), 0.0) if self.slope is not None else 0.0

    def take(self, place: Matrix, radius: float) -> bool:
        """Take a place for a thing, unless another stands there."""
        if any(float(np.hypot(*(place - other)[:2])) < 0.8 * (radius + size) for other, size in self._taken):
            return False
        self._taken.append((place, radius))
        return True

    def free(self, course: Course, radius: float, *, aloft: bool) -> bool:
        """Tell whether a mover meets neither the camera nor, on the ground, what stands, near the time it is for."""
        for second, eye in zip(self._times, self.course, strict=True):
            _, place = course.pose(float(second))
            if float(np.linalg.norm(place + up(0.0 if aloft else 0.8) - eye)) < radius + 1.0:
                return False
            if aloft or abs(second - course.since) > 1.0:
                continue
            if self.height(place) > 0.1:
                return False
            if any(float(np.hypot(*(place - other)[:2])) < radius + 0.6 * size for other, size in self._taken):
                return False
        return True

    def in_view(self, course: Course) -> float:
        """Return the share of the flight in which a mover is in view, and not much farther than 25 m."""
        height, width = self._size
        seen = 0.0
        for second in np.linspace(0, self.seconds, 7):
            pose = self._path.pose(float(second))
            _, place = course.pose(float(second))
            x, y, depth = pose[:3, :3].T @ (place - pose[:3, 3])
            at = np.linalg.inv(self._inverse) @ (x, y, depth) / max(depth, 1e-6)
            if depth > 0.5 and 0 < at[0] < width and 0 < at[1] < height:
                seen += 1 / 7 if depth < 25 else 1 / 21
        return seen


def populate(
    builder: Builder,
    path: FlightPath,
    intrinsics: Matrix,
    size: tuple[int, int],
    seconds: float,
    parallax: float,
    *,
    still: bool,
) -> None:
    """Fill a world.

    Args:
        builder: Takes what is made.
        path: Of the camera.
        intrinsics: K.
        size: (height, width) of the image.
        seconds: For how long the camera is to meet things.
        parallax: How much stands up; see ``FlightOptions``.
        still: Whether nothing moves on its own.

    """
    rng = builder.rng
    style = str(rng.choice(list(_STYLES)))
    places = _Places(builder, path, intrinsics, size, seconds)
    road = _lay_ground(builder, places, style, path)
    if parallax > 0:
        _lay_slope(builder, places)
        _ring_horizon(builder, places)
        _stand_things(builder, places, style, parallax, road, drives=path.motion == 'drive')
    if not still:
        _set_moving(builder, places, path, road)


def _flat(builder: Builder, kind: str, middle: Matrix, angle: float, length: float, width: float) -> None:
    s = width * level(angle + np.pi / 2)
    t = length * level(angle)
    what, tint = builder.pick(kind), point(builder.rng.uniform(0.85, 1.1) * np.ones(3))
    builder.face(what, middle - s / 2 - t / 2, s, t, tint, ground=True)


def _lay_ground(builder: Builder, places: _Places, style: str, path: FlightPath) -> Road | None:
    """Lay the ground, its patches and perhaps a road; return the road's middle, direction and width."""
    rng = builder.rng
    base, patches, _ = _STYLES[style]
    turn = float(rng.uniform(0, np.pi))
    far = 200.0
    s, t = far * level(turn), far * level(turn + np.pi / 2)
    tone = builder.pick('macro')
    assert isinstance(tone, Tile)
    builder.face(builder.pick(base), -(s + t) / 2, s, t, ground=True, endless=True, tone=tone)
    for _ in range(int(rng.integers(2, 8))):
        middle = places.ground(float(rng.uniform(0, places.seconds)), 1.0, 120.0)
        if middle is not None:
            size = np.exp(rng.uniform(np.log(3), np.log(50), 2))
            _flat(builder, str(rng.choice(patches)), middle, turn + 0.1 * float(rng.normal()), *map(float, size))
    drives = path.motion == 'drive'
    if not drives and rng.random() < 0.35:
        return None
    middle = places.ground(float(rng.uniform(0, places.seconds)), 1.0, 60.0)
    middle = np.zeros(3) if middle is None else middle
    angle, width = float(rng.uniform(0, np.pi)), float(rng.uniform(3, 9))
    if drives:
        angle = float(np.arctan2(path.velocity[1], path.velocity[0]))
        middle = path.start * (1, 1, 0) + 0.22 * width * level(angle + np.pi / 2)
        width = max(width, 5.5)
    if rng.random() < 0.5:
        kind = str(rng.choice(('paving', 'gravel', 'grass')))
        _flat(builder, kind, middle, angle, 800.0, width + float(rng.uniform(2, 5)))
    _flat(builder, 'road', middle, angle, 800.0, width)
    if rng.random() < 0.3:
        _flat(builder, 'road', middle + 20 * rng.normal(0, 1, 3) * (1, 1, 0), angle + np.pi / 2, 800.0, width)
    return Road(middle, angle, width)


def _lay_slope(builder: Builder, places: _Places) -> None:
    """Perhaps raise a bank or a hill beside the course."""
    rng = builder.rng
    if rng.random() < 0.55:
        return
    for _ in range(6):
        foot = places.ground(float(rng.uniform(0, places.seconds)), 8.0, 80.0)
        if foot is None:
            continue
        angle, rise = float(rng.uniform(0, 2 * np.pi)), float(np.radians(rng.uniform(8, 35)))
        depth = float(rng.uniform(5, 60))
        along, inland = level(angle), level(angle + np.pi / 2)
        if ((places.course - foot) @ inland > -3).any():
            continue
        edge = inland * np.cos(rise) + (0, 0, np.sin(rise))
        kind = str(rng.choice(('grass', 'grass', 'gravel', 'litter', 'concrete')))
        places.slope = foot, inland * np.tan(rise)
        builder.face(builder.pick(kind), foot - 200 * along - 0.02 * edge, 400 * along, depth * edge, casts=False)
        crest = foot + depth * edge - 200 * along
        builder.face(builder.pick('grass'), crest, 400 * along, 200 * inland, casts=False)
        return


def _ring_horizon(builder: Builder, places: _Places) -> None:
    """Set woods and ridges far away."""
    rng = builder.rng
    middle = places.course.mean(0) * (1, 1, 0)
    count = 9
    for number in range(count):
        if rng.random() < 0.25:
            continue
        angle, distance = 2 * np.pi * number / count + float(rng.normal(0, 0.1)), float(rng.uniform(130, 320))
        foot = middle + distance * level(angle)
        width = 2.2 * distance * np.tan(np.pi / count)
        what, height = builder.pick('skyline'), float(rng.uniform(8, 26))
        builder.upright(what, foot, width, height, angle + np.pi / 2, flat=True, casts=False)


def _stand_things(
    builder: Builder, places: _Places, style: str, parallax: float, road: Road | None, *, drives: bool
) -> None:
    rng = builder.rng
    weights = np.array(_STYLES[style][2])
    count = round(float(rng.uniform(10, 34)) * min(parallax, 2.0) ** 0.7)
    near = 1.0 if parallax <= 1 else 1 / parallax
    for kind in rng.choice(list(_SIZES), count, p=weights / weights.sum()):
        least, radius, top = _SIZES[kind]
        when = float(rng.uniform(0, places.seconds))
        place = places.ground(when, least * near, 90.0)
        if place is None or not places.clear(place, radius, top):
            continue
        if road is not None:
            if kind == 'car':
                place = _beside(place, road, 1.2 if drives else float(rng.uniform(-1.2, 3)))
            elif _aside(place, road) < road.width / 2 + 0.6 * radius:
                continue
        rise = places.height(place)
        # Only trees and the like stand on a slope, and nothing beyond its crest.
        if (rise > 0.1 and kind in {'house', 'car', 'run'}) or rise > 15 or not places.take(place, radius):
            continue
        if kind == 'bough':
            _hang(builder, places, when, road)
            continue
        place = place + up(rise)
        angle = float(rng.uniform(0, np.pi)) if road is None else road.angle + float(rng.choice((0, np.pi / 2)))
        _stand(builder, places, str(kind), place, angle)


def _stand(builder: Builder, places: _Places, kind: str, place: Matrix, angle: float) -> None:
    if kind == 'run':
        _run(builder, places, place, angle)
    elif kind == 'house':
        builder.house(place, angle)
    elif kind == 'car':
        builder.car(None, place, angle + float(builder.rng.choice((0.0, np.pi))))
    else:
        simple = {'tree': builder.tree, 'conifer': builder.conifer, 'shrub': builder.shrub, 'post': builder.post}
        simple.get(kind, builder.rock)(place)


def _run(builder: Builder, places: _Places, place: Matrix, angle: float) -> None:
    """Set a fence, or poles with wires, where the camera does not go through any of its length."""
    length = float(builder.rng.uniform(4, 25))
    along = level(angle) * length
    points = [place + along * share for share in np.linspace(-0.5, 0.5, 14)]
    if builder.rng.random() < 0.2 and all(places.clear(spot, 0.5, 9.5) for spot in points):
        builder.wires(place, angle, length)
    elif all(places.clear(spot, 0.5, 2.2) for spot in points):
        builder.run(place, angle, length)


def _hang(builder: Builder, places: _Places, when: float, road: Road | None) -> None:
    """Hang a bough into the view, and a tree to carry it."""
    eye, ray = places.ray(when)
    place = eye + ray * float(builder.rng.uniform(2, 9))
    in_the_way = road is not None and _aside(place, road) < road.width / 2 + 0.5
    if 0.8 < place[2] < 9 and not in_the_way and places.clear(place, 1.5, 20):
        angle = float(builder.rng.uniform(0, 2 * np.pi))
        foot = np.array((*place[:2], 0.0)) - 0.1 * level(angle)
        builder.bough(place, angle)
        builder.tree(foot, 1.6 * float(place[2]))


def _beside(place: Matrix, road: Road, gap: float) -> Matrix:
    """Return the place by the road's edge that is nearest to a place."""
    middle, angle, width = road
    across = level(angle + np.pi / 2)
    aside = float((place - middle) @ across)
    return np.asarray(place + across * ((1 if aside >= 0 else -1) * (width / 2 + gap) - aside), np.float64)


def _aside(place: Matrix, road: Road) -> float:
    middle, angle, _ = road
    return abs(float((place - middle) @ (-np.sin(angle), np.cos(angle), 0.0)))


def _set_moving(builder: Builder, places: _Places, path: FlightPath, road: Road | None) -> None:
    """Send movers through the view, at times spread over the flight; the first two are followed by the camera's eye."""
    rng = builder.rng
    count = int(rng.integers(2, 7))
    for number in range(count):
        when = (number + float(rng.uniform(0.1, 0.9))) * places.seconds / count
        kind = str(rng.choice(list(_MOVERS), p=[share for share, _, _ in _MOVERS.values()]))
        plans = []
        for _ in range(24 if number < 2 else 6):
            course = _plan(builder, places, path, kind, when, road)
            if course is not None:
                plans.append(course)
            if plans and number >= 2:
                break
        if plans:
            builder.instances += 1
            _make(builder, kind, max(plans, key=places.in_view), path.position(when))


def _plan(
    builder: Builder,
    places: _Places,
    path: FlightPath,
    kind: str,
    when: float,
    road: Road | None,
) -> Course | None:
    """Return a course through the view at a time; None where it would go through something."""
    rng = builder.rng
    flies = kind in {'bird', 'ball', 'drone'}
    if flies:
        eye, ray = places.ray(when, 0.12)
        place = eye + ray * float(np.exp(rng.uniform(np.log(1.8), np.log(12))))
        place[2] = max(place[2], 0.3)
    else:
        # As many near as far: of points spread over the image most would be far.
        wish = float(np.exp(rng.uniform(np.log(4.5 if kind == 'car' else 2.5), np.log(30))))
        found = places.ground(when, 0.7 * wish, 1.4 * wish, 0.12)
        if found is None:
            return None
        place = found
    travel = (path.position(when + 0.1) - path.position(when - 0.1))[:2] * 5
    pace = float(np.hypot(*travel))
    _, slowest, fastest = _MOVERS[kind]
    speed, heading, how = float(rng.uniform(slowest, fastest)), float(rng.uniform(0, 2 * np.pi)), float(rng.random())
    if how < 0.35 and pace > 0.3:
        # Along the camera's own direction of travel, mostly the same way.
        heading = float(np.arctan2(travel[1], travel[0])) + (np.pi if rng.random() < 0.3 else 0.0)
        speed = float(np.clip(pace * rng.uniform(0.4, 1.3), 0.5, 1.2 * fastest))
    if kind == 'car' and road is not None and rng.random() < 0.75:
        middle, angle, width = road
        across = level(angle + np.pi / 2)
        sense = float(rng.choice((-1, 1)))
        place = place - across * ((place - middle) @ across) - sense * across * width * 0.23
        heading = angle if sense > 0 else angle + np.pi
    velocity = (speed * np.cos(heading), speed * np.sin(heading), float(rng.normal(0, 0.6)) if flies else 0.0)
    course = Course(point(place), velocity, heading, when, float(rng.normal(0, 0.12)) if how > 0.6 else 0.0)
    radius = {'car': 2.2, 'person': 0.7, 'animal': 0.8}.get(kind, 0.5)
    return course if places.free(course, radius, aloft=flies) else None


def _make(builder: Builder, kind: str, course: Course, eye: Matrix) -> None:
    rng = builder.rng
    toward = (eye - course.place) / max(float(np.linalg.norm(eye - course.place)), 1e-6)
    heading = course.heading
    if kind == 'car':
        builder.car(course)
    elif kind in {'person', 'animal'}:
        # The plane of the cards contains the walk or, where that points at the camera, faces it halfway.
        side = np.arctan2(toward[1], toward[0]) + np.pi / 2
        facing = float(np.round((side - heading) / np.pi) * np.pi + 0.35 * np.sin(2 * (side - heading)))
        facing = float(side - heading) if abs(np.cos(side - heading)) < 0.5 else facing
        low, high = (1.5, 1.95) if kind == 'person' else (0.5, 1.0)
        builder.puppet(course, facing, float(rng.uniform(low, high)), animal=kind == 'animal')
    elif kind == 'bird':
        builder.bird(replace(course, bounce=(float(rng.uniform(0, 0.2)), 1.0)), float(rng.uniform(0.4, 1.6)))
    elif kind == 'ball':
        bounce = (float(rng.uniform(0.2, 2)), float(rng.uniform(0.5, 1.2))) if rng.random() < 0.6 else (0.0, 0.0)
        builder.ball(replace(course, bounce=bounce), float(rng.uniform(0.2, 0.8)), turn_z(-heading) @ toward)
    else:
        builder.drone(course, float(rng.uniform(0.4, 1.4)))
