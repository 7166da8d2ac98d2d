"""Random scenes: a camera that flies, objects that move on their own, and things that only seem to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic.scene import Layer, Matrix, Scene
from moving_object_detector.synthetic.textures import CANVAS, POOL, random_texture


def translation(x: float, y: float) -> Matrix:
    """Return the homography that moves by (x, y) pixels."""
    return np.array(((1.0, 0.0, x), (0.0, 1.0, y), (0.0, 0.0, 1.0)))


def turn_and_scale(angle: float, scale: float) -> Matrix:
    """Return the homography that turns by ``angle`` radians and scales about the origin."""
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array(((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0)))


@dataclass(frozen=True)
class Drift:
    """A quantity that changes steadily and sways: ``rate * t + sway * sin(pace * t + phase)``, 0 at t = 0."""

    rate: float = 0.0
    sway: float = 0.0
    pace: float = 0.0
    phase: float = 0.0

    def __call__(self, time: float) -> float:
        """Return the change since time 0."""
        return float(self.rate * time + self.sway * (np.sin(self.pace * time + self.phase) - np.sin(self.phase)))


STILL = Drift()


@dataclass(frozen=True)
class Trajectory:
    """Planar motion: shift in pixels, turn in radians, logarithm of the scale, all from time 0."""

    x: Drift = STILL
    y: Drift = STILL
    turn: Drift = STILL
    log_scale: Drift = STILL

    def matrix(self, time: float, depth_gain: float = 1.0) -> Matrix:
        """Return the homography at ``time``; a nearer sheet shifts and grows ``depth_gain`` times as much."""
        shape = turn_and_scale(self.turn(time), float(np.exp(depth_gain * self.log_scale(time))))
        return translation(depth_gain * self.x(time), depth_gain * self.y(time)) @ shape


AT_REST = Trajectory()


@dataclass(frozen=True)
class Camera:
    """A camera's motion over a scene, about the image centre, with a slowly changing tilt."""

    centre: tuple[float, float]
    """Image centre (x, y), pixels."""
    path: Trajectory = AT_REST
    tilt_x: Drift = STILL
    tilt_y: Drift = STILL
    """Perspective terms of the homography, per pixel."""

    def matrix(self, time: float, depth_gain: float = 1.0) -> Matrix:
        """Return the homography from the scene as seen at time 0 to the image at ``time``."""
        tilt = np.eye(3)
        tilt[2, 0], tilt[2, 1] = self.tilt_x(time), self.tilt_y(time)
        x, y = self.centre
        return translation(x, y) @ tilt @ self.path.matrix(time, depth_gain) @ translation(-x, -y)


@dataclass(frozen=True)
class SceneOptions:
    """What a random scene may contain; speeds are pixels per frame at a width of 512."""

    size: tuple[int, int] = (256, 512)
    """(height, width) in pixels."""
    objects: tuple[int, int] = (1, 3)
    """Least and most objects that move on their own."""
    object_extent: tuple[float, float] = (0.1, 1.0)
    """Least and most diameter of an object, as a share of the image's height."""
    object_speed: tuple[float, float] = (0.6, 9.0)
    camera_speed: float = 9.0
    """Standard deviation scale of the camera's shift."""
    standing: tuple[int, int] = (0, 2)
    """Least and most standing things nearer than the background, which shift by parallax only."""
    parallax: float = 0.15
    """Most that a standing thing shifts beyond the background, as a share of its shift."""
    textures: int = POOL
    """How many different textures there are; making one takes a tenth of a second."""


def _drift(rng: np.random.Generator, rate: float, sway: float) -> Drift:
    return Drift(
        rate=float(rng.normal(0, rate)),
        sway=float(abs(rng.normal(0, sway))),
        pace=float(rng.uniform(0.1, 0.6)),
        phase=float(rng.uniform(0, 2 * np.pi)),
    )


def _random_camera(rng: np.random.Generator, options: SceneOptions) -> Camera:
    height, width = options.size
    unit = width / 512.0
    # Cameras are still, gentle or fast in turn, so that a network sees each often.
    energy = float(rng.choice((0.0, 0.25, 1.0), p=(0.08, 0.42, 0.5)))
    speed = options.camera_speed * unit * energy
    path = Trajectory(
        x=_drift(rng, speed, 0.6 * speed),
        y=_drift(rng, 0.5 * speed, 0.5 * speed),
        turn=_drift(rng, 0.008 * energy, 0.006 * energy),
        log_scale=_drift(rng, 0.008 * energy, 0.004 * energy),
    )
    tilt = 2e-5 * energy / unit
    return Camera((width / 2, height / 2), path, _drift(rng, tilt, tilt), _drift(rng, tilt, tilt))


def _blob(rng: np.random.Generator, radius: float, centre: tuple[float, float], aspect: float) -> NDArray[np.int32]:
    """Return the outline of a smooth random shape in 1/16 pixel, (n, 2)."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radii = np.ones_like(angles)
    for order in range(2, 6):
        radii += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radii = np.clip(radii, 0.35, 1.6) * radius
    tilt = rng.uniform(0, np.pi)
    points = np.stack((np.cos(angles) * radii, np.sin(angles) * radii * aspect), 1)
    rotation = np.array(((np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))))
    return np.round((points @ rotation.T + centre) * 16).astype(np.int32)


def _sheet(
    rng: np.random.Generator, options: SceneOptions, radius: float, aspect: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Matrix]:
    """Return texture, alpha and the homography that moves the sheet's middle to the origin."""
    # A shape reaches 1.6 radii, and the largest must fit the texture canvas.
    half = min(int(np.ceil(radius * 1.6)) + 2, CANVAS[0] // 2)
    alpha = np.zeros((2 * half, 2 * half), np.uint8)
    cv2.fillPoly(alpha, [_blob(rng, min(radius, (half - 2) / 1.6), (half, half), aspect)], 255, cv2.LINE_AA, 4)
    return random_texture(rng, (2 * half, 2 * half), options.textures), alpha, translation(-half, -half)


@dataclass(frozen=True)
class _SheetPose:
    """Sheet's middle -> swing about a joint ``arm`` pixels away -> own motion -> place in the scene -> camera."""

    camera: Camera
    middle: Matrix
    place: Matrix
    depth_gain: float = 1.0
    own: Trajectory = AT_REST
    swing: Drift = STILL
    arm: float = 0.0

    def __call__(self, time: float) -> Matrix:
        joint = translation(0, -self.arm) @ turn_and_scale(self.swing(time), 1.0) @ translation(0, self.arm)
        moved = self.place @ self.own.matrix(time) @ joint @ self.middle
        return self.camera.matrix(time, self.depth_gain) @ moved


def _straight_path(rng: np.random.Generator, options: SceneOptions) -> Trajectory:
    speed = options.size[1] / 512.0 * float(np.exp(rng.uniform(*np.log(options.object_speed))))
    heading = float(rng.uniform(0, 2 * np.pi))
    return Trajectory(
        x=Drift(rate=speed * np.cos(heading)),
        y=Drift(rate=speed * np.sin(heading)),
        turn=_drift(rng, 0.012, 0.02),
        log_scale=_drift(rng, 0.006, 0.0),
    )


def _winding_path(rng: np.random.Generator, options: SceneOptions) -> Trajectory:
    """Return a path that comes back, within 0.2 of the width and 0.12 of the height about its middle."""
    height, width = options.size
    phases = np.pi * rng.integers(0, 2, 3)
    return Trajectory(
        x=Drift(sway=0.2 * width, pace=float(rng.uniform(0.05, 0.09)), phase=phases[0]),
        y=Drift(sway=0.12 * height, pace=float(rng.uniform(0.06, 0.12)), phase=phases[1]),
        turn=Drift(sway=0.4, pace=0.1, phase=phases[2]),
    )


def _object(
    rng: np.random.Generator,
    options: SceneOptions,
    camera: Camera,
    own: Trajectory,
    margin: tuple[float, float] = (0.1, 0.15),
) -> list[Layer]:
    """Return the sheets of one object: a body, and often limbs that swing.

    At time 0 the body is at least ``margin`` (x, y), as shares of the image, from its sides.
    """
    height, width = options.size
    low, high = np.log(options.object_extent[0]), np.log(options.object_extent[1])
    radius = 0.5 * height * float(np.exp(rng.uniform(low, high)))
    x, y = (float(rng.uniform(side, 1.0 - side)) for side in margin)
    place = translation(x * width, y * height)
    layers = []
    for part in range(1 + int(rng.choice((0, 1, 2, 3), p=(0.45, 0.15, 0.25, 0.15)))):
        is_limb = part > 0
        size = radius * float(rng.uniform(0.35, 0.8)) if is_limb else radius
        aspect = float(rng.uniform(0.2, 0.5)) if is_limb else float(rng.uniform(0.45, 1.0))
        limb = Drift(0.0, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.2, 0.8)), float(rng.uniform(0, 6)))
        offset = translation(float(rng.normal(0, 0.5)) * radius, float(rng.normal(0, 0.5)) * radius)
        texture, alpha, middle = _sheet(rng, options, size, aspect)
        if is_limb:
            pose = _SheetPose(camera, middle, place @ offset, 1.0, own, limb, size)
        else:
            pose = _SheetPose(camera, middle, place, 1.0, own)
        layers.append(Layer(texture, alpha, pose, moves=True))
    return layers


def _standing_thing(rng: np.random.Generator, options: SceneOptions, camera: Camera) -> Layer:
    """Return a sheet nearer than the background that only the camera's motion shifts."""
    height, width = options.size
    radius = 0.5 * height * float(rng.uniform(0.1, 0.6))
    place = translation(float(rng.uniform(0, 1)) * width, float(rng.uniform(0, 1)) * height)
    gain = 1.0 + float(rng.uniform(0.0, options.parallax))
    texture, alpha, middle = _sheet(rng, options, radius, float(rng.uniform(0.15, 1.0)))
    return Layer(texture, alpha, _SheetPose(camera, middle, place, gain), moves=False)


def random_scene(seed: int | tuple[int, ...], options: SceneOptions | None = None) -> Scene:
    """Make a scene from a seed; the same seed and options always give the same pixels.

    Args:
        seed: Any non-negative integer, or a tuple of them.
        options: What the scene may contain.

    """
    options = options or SceneOptions()
    rng = np.random.default_rng(seed)
    camera = _random_camera(rng, options)
    things = _standing_things(rng, options, camera)
    things += [_object(rng, options, camera, _straight_path(rng, options)) for _ in range(_count(rng, options.objects))]
    return _assemble(rng, options, camera, things)


def clip_scene(seed: int, options: SceneOptions) -> Scene:
    """Make a scene fit for a clip of any length: a camera in steady flight that keeps the objects in view.

    The objects' paths are given in the image, and return; over the ground they move on their own.

    Args:
        seed: The same seed and options always give the same pixels.
        options: What the scene may contain.

    """
    rng = np.random.default_rng((seed, 1))
    height, width = options.size
    pan = float(rng.uniform(0.003, 0.005)) * width * float(rng.choice((-1, 1)))
    path = Trajectory(
        x=Drift(rate=pan, sway=0.02 * width, pace=0.11),
        y=Drift(sway=0.05 * height, pace=0.07),
        turn=Drift(sway=0.04, pace=0.05),
        log_scale=Drift(sway=0.08, pace=0.04),
    )
    centre = (width / 2, height / 2)
    camera = Camera(centre, path)
    things = _standing_things(rng, options, camera)
    middle = replace(options, object_extent=(0.25, 0.5))
    for _ in range(_count(rng, options.objects)):
        things.append(_object(rng, middle, Camera(centre), _winding_path(rng, options), margin=(0.3, 0.27)))
    return _assemble(rng, options, camera, things)


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _standing_things(rng: np.random.Generator, options: SceneOptions, camera: Camera) -> list[list[Layer]]:
    return [[_standing_thing(rng, options, camera)] for _ in range(_count(rng, options.standing))]


def _assemble(rng: np.random.Generator, options: SceneOptions, camera: Camera, things: list[list[Layer]]) -> Scene:
    """Put things in a random order of depth before a textured ground."""
    height, width = options.size
    turned = turn_and_scale(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.7, 1.6)) * width / 512.0)
    middle = translation(-CANVAS[1] / 2, -CANVAS[0] / 2)
    ground = _SheetPose(camera, middle, translation(width / 2, height / 2) @ turned)
    layers = [Layer(random_texture(rng, pool=options.textures), None, ground, moves=False)]
    for index in rng.permutation(len(things)):
        layers += things[index]
    return Scene(tuple(layers), options.size)
