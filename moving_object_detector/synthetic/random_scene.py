"""Random scenes of sheets: a moving camera, moving objects, and static ones that shift by parallax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.synthetic.scene import (
    AT_REST,
    CONSTANT,
    Drift,
    Homography,
    Layer,
    Scene,
    SheetCamera,
    Trajectory,
    translation,
    turn_and_scale,
)

CANVAS: Final = (768, 1024)
"""Size (height, width) of every texture, pixels."""
POOL: Final = 48
"""Number of different textures before recolouring."""
OBJECT_SPEED: Final = (0.6, 9.0)
"""Range, pixels per frame at a width of 512."""
CAMERA_SPEED: Final = 9.0
"""Standard deviation of the camera's shift, in the same unit."""


def _outline(radii: NDArray[np.float64], turn: float, centre: tuple[float, float]) -> NDArray[np.int32]:
    """Rotate points (n, 2), move them to a centre, and return them in 1/16 pixel."""
    rotation = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
    return np.round((radii @ rotation.T + centre) * 16).astype(np.int32)


def _dead_leaves(rng: np.random.Generator, leaves: int) -> NDArray[np.uint8]:
    """Cover a canvas with discs, boxes and polygons with radii distributed as r^-3 (Lee et al., IJCV 2001)."""
    height, width = CANVAS
    image = np.full((height, width, 3), rng.integers(40, 216, 3), np.uint8)
    smallest, largest = 4.0, 160.0
    uniform = rng.random(leaves)
    radii = 1.0 / np.sqrt(uniform / smallest**2 + (1.0 - uniform) / largest**2)
    centres = rng.random((leaves, 2)) * (width, height)
    palette = rng.integers(0, 256, (12, 3))
    colours = np.clip(palette[rng.integers(0, 12, leaves)] + rng.normal(0, 18, (leaves, 3)), 0, 255)
    for radius, centre, colour, kind in zip(radii, centres, colours, rng.integers(0, 3, leaves), strict=True):
        corners = 24 if kind == 0 else 4 if kind == 1 else int(rng.integers(3, 8))
        angles = np.sort(rng.random(corners)) * 2 * np.pi if kind == 2 else np.arange(corners) * 2 * np.pi / corners
        stretch = rng.uniform(0.4, 1.0)
        points = np.stack((np.cos(angles), np.sin(angles) * stretch), 1) * radius
        cv2.fillPoly(image, [_outline(points, rng.uniform(0, np.pi), centre)], colour.tolist(), cv2.LINE_AA, 4)
    return image


def _fractal_noise(rng: np.random.Generator, roughness: float) -> NDArray[np.float32]:
    """Sum octaves of smooth noise, each ``roughness`` times the last; float32 (H, W, 3) about [-1, 1]."""
    height, width = CANVAS
    total = np.zeros((height, width, 3), np.float32)
    amplitude = 1.0
    for cells in (4, 8, 16, 32, 64, 128, 256):
        grid = rng.normal(0, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        grid = 0.75 * grid.mean(2, keepdims=True) + 0.25 * grid
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        amplitude *= roughness
    return np.asarray(total / np.float32(3 * total.std()), np.float32)


@lru_cache(maxsize=POOL)
def pooled_texture(index: int) -> NDArray[np.uint8]:
    """Return texture ``index`` of the pool, uint8 (768, 1024, 3) RGB, always the same for an index."""
    rng = np.random.default_rng((index, 20190616))
    noise = _fractal_noise(rng, float(rng.uniform(0.55, 0.95)))
    if index % 3 == 0:
        base = 128 + 110 * noise
    else:
        leaves = _dead_leaves(rng, int(rng.integers(600, 5000))).astype(np.float32)
        base = leaves + float(rng.uniform(10, 60)) * noise
    image = np.clip(base, 0, 255).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.4))), np.uint8)


def random_texture(rng: np.random.Generator, size: tuple[int, int] = CANVAS, pool: int = POOL) -> NDArray[np.uint8]:
    """Return a recoloured cut of one of the first ``pool`` textures, uint8 RGB of a size up to (768, 1024)."""
    image = pooled_texture(int(rng.integers(pool)))
    top, left = (int(rng.integers(whole - part + 1)) for whole, part in zip(CANVAS, size, strict=True))
    image = image[top : top + size[0], left : left + size[1]]
    contrast, brightness = rng.uniform(0.35, 1.1), rng.uniform(60, 190)
    table = np.clip((np.arange(256) - 128) * contrast + brightness, 0, 255).astype(np.uint8)
    image = np.asarray(cv2.LUT(image, table), np.uint8)
    if rng.random() < 0.5:
        image = np.asarray(cv2.cvtColor(image, (cv2.COLOR_RGB2BGR, cv2.COLOR_RGB2HSV)[int(rng.integers(2))]), np.uint8)
    if rng.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = np.asarray(cv2.addWeighted(image, 0.45, grey, 0.55, 0), np.uint8)
    return image


@dataclass(frozen=True)
class SceneOptions:
    """Options of a random scene."""

    size: tuple[int, int] = (256, 512)
    """(height, width) in pixels."""
    objects: tuple[int, int] = (1, 3)
    """Range of the number of moving objects."""
    object_extent: tuple[float, float] = (0.1, 1.0)
    """Range of an object's diameter, as a share of the image height."""
    standing: tuple[int, int] = (0, 2)
    """Range of the number of static objects nearer than the background, which shift by parallax only."""
    parallax: float = 0.15
    """Largest extra shift of a static object, as a share of the background's shift."""
    textures: int = POOL
    """Number of different textures; making one takes a tenth of a second."""
    figures: float = 0.0
    """Share of moving objects that are figures with limbs of two segments, such as people and animals."""


@dataclass(frozen=True)
class _Hinge:
    """A swing about a point (x, y), pixels, that carries the hinges after it."""

    x: float
    y: float
    swing: Drift
    rest: float = 0.0
    """Angle at time 0, radians."""

    def matrix(self, time: float) -> Homography:
        turn = turn_and_scale(self.rest + self.swing(time), 1.0)
        return translation(self.x, self.y) @ turn @ translation(-self.x, -self.y)


@dataclass(frozen=True)
class _SheetPose:
    """Sheet's middle -> swings about hinges -> own motion -> place in the scene -> camera."""

    camera: SheetCamera
    middle: Homography
    place: Homography
    depth_gain: float = 1.0
    own: Trajectory = AT_REST
    hinges: tuple[_Hinge, ...] = ()

    def __call__(self, time: float) -> Homography:
        moved = self.place @ self.own.matrix(time)
        for hinge in self.hinges:
            moved = moved @ hinge.matrix(time)
        return self.camera.matrix(time, self.depth_gain) @ moved @ self.middle


def _sheet(
    rng: np.random.Generator, options: SceneOptions, radius: float, aspect: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Homography]:
    """Return a texture, the alpha of a smooth random shape, and the homography of its middle to the origin."""
    # A shape reaches 1.6 radii, and the largest must fit the texture canvas.
    half = min(int(np.ceil(radius * 1.6)) + 2, CANVAS[0] // 2)
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radii = np.ones_like(angles)
    for order in range(2, 6):
        radii += rng.normal(0, 0.35 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radii = np.clip(radii, 0.35, 1.6) * min(radius, (half - 2) / 1.6)
    points = np.stack((np.cos(angles) * radii, np.sin(angles) * radii * aspect), 1)
    alpha = np.zeros((2 * half, 2 * half), np.uint8)
    cv2.fillPoly(alpha, [_outline(points, rng.uniform(0, np.pi), (half, half))], 255, cv2.LINE_AA, 4)
    return random_texture(rng, (2 * half, 2 * half), options.textures), alpha, translation(-half, -half)


def _object(
    rng: np.random.Generator,
    options: SceneOptions,
    camera: SheetCamera,
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
    # A spawned generator leaves scenes without figures unchanged.
    own_rng = rng.spawn(1)[0]
    if own_rng.random() < options.figures:
        return _figure(own_rng, options, radius, _SheetPose(camera, place, place, own=own))
    layers = []
    for part in range(1 + int(rng.choice((0, 1, 2, 3), p=(0.45, 0.15, 0.25, 0.15)))):
        is_limb = part > 0
        size = radius * float(rng.uniform(0.35, 0.8)) if is_limb else radius
        aspect = float(rng.uniform(0.2, 0.5)) if is_limb else float(rng.uniform(0.45, 1.0))
        limb = Drift(0.0, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0.2, 0.8)), float(rng.uniform(0, 6)))
        offset = translation(float(rng.normal(0, 0.5)) * radius, float(rng.normal(0, 0.5)) * radius)
        texture, alpha, middle = _sheet(rng, options, size, aspect)
        pose = _SheetPose(camera, middle, place, 1.0, own)
        if is_limb:
            pose = replace(pose, place=place @ offset, hinges=(_Hinge(0, -size, limb),))
        layers.append(Layer(texture, alpha, pose, moves=True))
    return layers


def _capsule(
    rng: np.random.Generator, options: SceneOptions, length: float, thick: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Homography]:
    """Return texture and alpha of a rounded upright segment, and the homography of its upper end to the origin."""
    tall, wide = (min(int(np.ceil(side)) + 4, CANVAS[0]) for side in (length + thick, thick))
    alpha = np.zeros((tall, wide), np.uint8)
    ends = (wide // 2, 2 + int(thick / 2)), (wide // 2, max(tall - 3 - int(thick / 2), 2))
    cv2.line(alpha, *ends, 255, max(int(thick), 1), cv2.LINE_AA)
    return random_texture(rng, (tall, wide), options.textures), alpha, translation(-wide / 2, -2 - thick / 2)


def _figure(rng: np.random.Generator, options: SceneOptions, radius: float, pose: _SheetPose) -> list[Layer]:
    """Return the sheets of a figure of about ``radius`` pixels: a trunk, a head, arms and legs of two segments each."""
    upright = rng.random() < 0.7
    trunk, thick = 0.75 * radius, radius * float(rng.uniform(0.2, 0.35))
    whole = _Hinge(0, 0, CONSTANT, float(rng.normal(0, 0.3)) + (0.0 if upright else float(rng.choice((-1, 1))) * 1.6))
    pace, wild = float(rng.uniform(0.15, 0.8)), float(rng.uniform(0, 1))

    def swing(most: float, phase: float) -> Drift:
        own = pace * (1 + 0.5 * wild * float(rng.uniform(-1, 1)))
        return Drift(0.0, float(rng.uniform(0.1, most)), own, phase + wild * float(rng.uniform(0, 6)))

    def segment(length: float, thickness: float, hinges: tuple[_Hinge, ...], like: Layer | None = None) -> Layer:
        texture, alpha, middle = _capsule(rng, options, length, thickness)
        if like is not None and rng.random() < 0.6:
            texture = np.asarray(cv2.resize(like.texture, texture.shape[1::-1]), np.uint8)
        last = hinges[-1]
        return Layer(texture, alpha, replace(pose, middle=translation(last.x, last.y) @ middle, hinges=hinges), True)

    sway = _Hinge(0, trunk / 2, swing(0.2, 0.0))
    top = _Hinge(0, -trunk / 2, CONSTANT)
    body = segment(trunk, thick, (whole, sway, top))
    head = segment(0.1 * radius, 0.28 * radius, (whole, sway, _Hinge(0, -trunk / 2 - 0.3 * radius, CONSTANT)))
    behind: list[Layer] = []
    before = [body, head]
    # Legs hang down from the trunk's lower end, arms from its upper end; an animal's fore legs are its arms.
    legs_and_arms = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (-0.4, 0.35, 0.3), (-0.4, 0.35, 0.3)
    for number, (at, length, share) in enumerate(legs_and_arms):
        if rng.random() < 0.1:
            continue
        rest = (0.0 if upright else -whole.rest) + float(rng.normal(0, 0.35 + 0.5 * wild))
        root = _Hinge(0, at * trunk, swing(0.7, np.pi * number), rest)
        knee = _Hinge(0, at * trunk + length * radius, swing(0.7, np.pi * number + 1), float(rng.normal(0, 0.5)))
        where = behind if number % 2 else before
        upper = segment(length * radius, share * thick * 1.3, (whole, sway, root), body)
        where += [upper, segment(length * radius, share * thick, (whole, sway, root, knee), upper)]
    return behind + before


def _standing_thing(rng: np.random.Generator, options: SceneOptions, camera: SheetCamera) -> list[Layer]:
    """Return a static sheet nearer than the background."""
    height, width = options.size
    radius = 0.5 * height * float(rng.uniform(0.1, 0.6))
    place = translation(float(rng.uniform(0, 1)) * width, float(rng.uniform(0, 1)) * height)
    gain = 1.0 + float(rng.uniform(0.0, options.parallax))
    texture, alpha, middle = _sheet(rng, options, radius, float(rng.uniform(0.15, 1.0)))
    return [Layer(texture, alpha, _SheetPose(camera, middle, place, gain), moves=False)]


def _assemble(
    rng: np.random.Generator, options: SceneOptions, camera: SheetCamera, make_object: Callable[[], list[Layer]]
) -> Scene:
    """Put static and moving objects in random depth order before a textured background."""
    height, width = options.size
    things = [_standing_thing(rng, options, camera) for _ in range(rng.integers(*options.standing, endpoint=True))]
    things += [make_object() for _ in range(rng.integers(*options.objects, endpoint=True))]
    turned = turn_and_scale(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.7, 1.6)) * width / 512.0)
    middle = translation(-CANVAS[1] / 2, -CANVAS[0] / 2)
    ground = _SheetPose(camera, middle, translation(width / 2, height / 2) @ turned)
    layers = [Layer(random_texture(rng, pool=options.textures), None, ground, moves=False)]
    for index in rng.permutation(len(things)):
        layers += things[index]
    return Scene(tuple(layers), options.size)


def _uneven(rng: np.random.Generator, pace: float, share: float) -> Drift:
    """Return a shift of ``pace * share`` per frame plus a sway of up to 1.5 paces: it speeds up or turns back."""
    # A spawned generator leaves the rest of the scene unchanged.
    own = rng.spawn(1)[0]
    strength, rhythm = max(float(own.uniform(-1, 1.5)), 0.0), float(own.uniform(0.15, 0.8))
    return Drift(pace * share, strength * pace / rhythm, rhythm, float(own.uniform(0, 2 * np.pi)))


def random_scene(seed: int | tuple[int, ...], options: SceneOptions) -> Scene:
    """Make a scene from a seed, non-negative; the same seed and options always give the same pixels."""
    rng = np.random.default_rng(seed)
    height, width = options.size
    unit = width / 512.0
    # Cameras are still, slow or fast, so that training sees each often.
    energy = float(rng.choice((0.0, 0.25, 1.0), p=(0.08, 0.42, 0.5)))
    speed, tilt = CAMERA_SPEED * unit * energy, 2e-5 * energy / unit
    deviations = (speed, 0.6 * speed), (0.5 * speed, 0.5 * speed), (0.008 * energy, 0.006 * energy)
    *path, tilt_x, tilt_y = (
        Drift.random(rng, *both) for both in (*deviations, (0.008 * energy, 0.004 * energy), (tilt, tilt), (tilt, tilt))
    )
    camera = SheetCamera((width / 2, height / 2), Trajectory(*path), tilt_x, tilt_y)

    def make_object() -> list[Layer]:
        pace = unit * float(np.exp(rng.uniform(*np.log(OBJECT_SPEED))))
        heading = float(rng.uniform(0, 2 * np.pi))
        x, y = (_uneven(rng, pace, share) for share in (np.cos(heading), np.sin(heading)))
        own = Trajectory(x, y, Drift.random(rng, 0.012, 0.02), Drift.random(rng, 0.006, 0.0))
        return _object(rng, options, camera, own)

    return _assemble(rng, options, camera, make_object)


def clip_scene(seed: int | tuple[int, ...], options: SceneOptions) -> Scene:
    """Make a scene for clips of any length: the camera flies steadily and keeps the objects in view.

    Objects move periodically in the image, and so on their own over the ground.
    """
    rng = np.random.default_rng((seed, 1) if isinstance(seed, int) else (*seed, 1))
    height, width = options.size
    centre = (width / 2, height / 2)
    pan = float(rng.uniform(0.003, 0.005)) * width * float(rng.choice((-1, 1)))
    path = Trajectory(
        x=Drift(rate=pan, sway=0.02 * width, pace=0.11),
        y=Drift(sway=0.05 * height, pace=0.07),
        turn=Drift(sway=0.04, pace=0.05),
        log_scale=Drift(sway=0.08, pace=0.04),
    )
    middle = replace(options, object_extent=(0.25, 0.5))

    def make_object() -> list[Layer]:
        # Periodic, within 0.2 of the width and 0.12 of the height about its middle.
        phases = np.pi * rng.integers(0, 2, 3)
        own = Trajectory(
            x=Drift(sway=0.2 * width, pace=float(rng.uniform(0.05, 0.09)), phase=phases[0]),
            y=Drift(sway=0.12 * height, pace=float(rng.uniform(0.06, 0.12)), phase=phases[1]),
            turn=Drift(sway=0.4, pace=0.1, phase=phases[2]),
        )
        return _object(rng, middle, SheetCamera(centre), own, margin=(0.3, 0.27))

    return _assemble(rng, options, SheetCamera(centre, path), make_object)


def followed_scene(seed: int | tuple[int, ...], options: SceneOptions) -> Scene:
    """Make a scene whose camera follows its objects: they hardly move in the image, the ground does, near things more.

    So objects move along the camera's path, as mostly in real video, and only their smaller flow tells them from static
    ones.
    """
    rng = np.random.default_rng(seed)
    height, width = options.size
    pace = width * float(np.exp(rng.uniform(np.log(0.003), np.log(0.02))))
    course = float(rng.choice((0.0, np.pi))) + float(rng.normal(0, 0.25 if rng.random() < 0.7 else 1.5))
    x, y = Drift(pace * np.cos(course), 0.3 * pace, 0.4), Drift(pace * np.sin(course), 0.3 * pace, 0.3)
    path = Trajectory(x, y, Drift.random(rng, 0.003, 0.004), Drift.random(rng, 0.004, 0.002))

    def make_object() -> list[Layer]:
        heading = float(rng.uniform(0, 2 * np.pi)) if rng.random() < 0.5 else course
        left, up = (float(rng.uniform(-0.25, 0.25)) * pace for _ in range(2))
        x, y = _uneven(rng, left, np.cos(heading)), _uneven(rng, up, np.sin(heading))
        own = Trajectory(x, y, Drift.random(rng, 0.004, 0.01), Drift.random(rng, 0.004, 0.0))
        return _object(rng, options, SheetCamera((width / 2, height / 2)), own, margin=(0.2, 0.2))

    return _assemble(rng, options, SheetCamera((width / 2, height / 2), path), make_object)
