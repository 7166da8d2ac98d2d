"""Camera paths: flying, walking, driving. World: x, y horizontal, z up, metres; angles in radians from x to y."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

MOTIONS: Final = ('takeoff', 'forward', 'sideways', 'orbit', 'hover', 'descent', 'walk', 'drive')


def turn_z(angle: float) -> Matrix:
    """Return the rotation by ``angle`` about the vertical."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array(((cosine, -sine, 0.0), (sine, cosine, 0.0), (0.0, 0.0, 1.0)))


def level(angle: float) -> Matrix:
    """Return the horizontal unit vector at ``angle`` from x to y."""
    return np.array((np.cos(angle), np.sin(angle), 0.0))


def turn_about(axis: Matrix, angle: float) -> Matrix:
    """Return the rotation by ``angle`` about a unit vector (Rodrigues)."""
    x, y, z = axis
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross, np.float64)


class FlightPath:
    """A camera's path, at a speed at which the ground's median flow is about ``flow`` pixels per frame, or hovering."""

    def __init__(
        self, rng: np.random.Generator, motion: str, intrinsics: Matrix, size: tuple[int, int], fps: float, flow: float
    ) -> None:
        yaw = float(rng.uniform(0, 2 * np.pi))
        height = float(np.exp(rng.uniform(np.log(2.0), np.log(25.0))))
        # Higher cameras look down more steeply.
        pitch = -np.radians(float(rng.uniform(4, 14)) + 38 * rng.random() * np.log(height / 1.5) / np.log(16))
        across = float(rng.normal(0, 0.25))
        climb, orbit, yaw_rate = (0.0, 0.0), 0.0, float(rng.normal(0, 0.03))
        if motion == 'takeoff':
            low, high = float(rng.uniform(0.4, 1.5)), float(rng.uniform(8, 25))
            climb, height = (high, float(rng.uniform(5, 10))), low
            pitch = -np.radians(float(rng.uniform(8, 50)))
        elif motion == 'descent':
            climb, height = (float(rng.uniform(0.5, 3)), float(rng.uniform(4, 9))), max(height, 8.0)
            pitch = -np.radians(float(rng.uniform(20, 85)))
        elif motion == 'sideways':
            across = float(rng.choice((-1, 1)) * rng.uniform(1.2, 1.57))
            yaw_rate *= 0.5
        elif motion == 'orbit':
            orbit = height / np.tan(-pitch) * float(rng.uniform(0.6, 1.0))
            orbit = float(np.clip(orbit, 5, 40))
            yaw_rate = float(rng.choice((-1, 1)) * rng.uniform(0.1, 0.3))
        elif motion == 'hover':
            yaw_rate = float(rng.choice((0.0, 1.0), p=(0.4, 0.6)) * rng.normal(0, 0.12))
        elif motion == 'walk':
            height, pitch, yaw_rate = float(rng.uniform(1.2, 1.9)), -np.radians(float(rng.uniform(2, 25))), yaw_rate * 2
        elif motion == 'drive':
            height, pitch, across = float(rng.uniform(1.1, 2.2)), -np.radians(float(rng.uniform(1, 9))), 0.0
            yaw_rate *= 0.3
        speed = {'hover': 0.0, 'orbit': 0.0, 'takeoff': 0.4, 'descent': 0.4}.get(motion, 1.0)
        self.motion = motion
        self.start, self.velocity = np.array((0.0, 0.0, height)), speed * level(yaw + across)
        """Position at second 0; horizontal velocity, metres per second."""
        self._yaw, self._pitch, self._yaw_rate = yaw, pitch, yaw_rate
        """Yaw at second 0, pitch (negative: down), and yaw rate, radians and radians per second."""
        self._climb, self._orbit = climb, orbit
        """Final height and time constant in seconds (0: constant height); radius of the circle flown while looking at
        its centre (0: none)."""
        self._waves = _waves(rng, motion)
        self._pace = 1.0
        """Time scale of all motion but the waves."""
        self.aim: Callable[[float], Matrix] | None = None
        """Position, by time in seconds, that the camera keeps looking at; None: yaw and pitch as above."""
        self.beside = 0.0, 0.0
        """Offsets of yaw and pitch from that position."""
        if motion != 'hover':
            self._pace = float(np.clip(flow / max(_ground_flow(self, intrinsics, size, fps), 1e-3), 0.15, 40.0))

    def _sway(self, seconds: float) -> Matrix:
        amplitude, frequency, phase = self._waves
        return np.asarray((amplitude * np.sin(2 * np.pi * frequency * seconds + phase)).sum(0), np.float64)

    def position(self, seconds: float) -> Matrix:
        """Return the camera's position in the world, (3,)."""
        hurried = self._pace * seconds
        place = self.start + self.velocity * hurried
        if self._orbit:
            away = self._yaw + np.pi
            turned = away + self._yaw_rate * hurried
            circle = np.array((np.cos(turned) - np.cos(away), np.sin(turned) - np.sin(away), 0.0))
            place = place + self._orbit * circle
        height, duration = self._climb
        if duration:
            place[2] = height + (self.start[2] - height) * np.exp(-hurried / duration)
        place += self._sway(seconds)[:3]
        place[2] = max(place[2], 0.25)
        return np.asarray(place, np.float64)

    def pose(self, seconds: float) -> Matrix:
        """Return the pose of the optical frame (x right, y down, z forward) in the world, (4, 4)."""
        dyaw, dpitch, roll = self._sway(seconds)[3:]
        yaw, pitch = self._yaw + self._yaw_rate * self._pace * seconds, self._pitch
        if self.aim is not None:
            toward = self.aim(seconds) - self.position(seconds)
            yaw = float(np.arctan2(toward[1], toward[0])) + self.beside[0]
            pitch = float(np.arctan2(toward[2], np.hypot(toward[0], toward[1]))) + self.beside[1]
        yaw, pitch = yaw + dyaw, pitch + dpitch
        forward = np.array((np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)))
        right = np.array((np.sin(yaw), -np.cos(yaw), 0.0))
        down = np.cross(forward, right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack((right, down, forward), 1) @ turn_z(roll)
        pose[:3, 3] = self.position(seconds)
        return pose


def _waves(rng: np.random.Generator, motion: str) -> tuple[Matrix, Matrix, Matrix]:
    """Return the waves of sway, of steps when walking, and of vibration by motors or the road.

    Amplitude (n, 6) of x, y, z, yaw, pitch, roll; frequency (n, 1), Hz; phase (n, 6).
    """
    energy = float(rng.choice((0.3, 1.0, 2.0), p=(0.3, 0.5, 0.2)))
    amplitude = [rng.uniform(0, 1, 6) * (0.12, 0.12, 0.08, 0.03, 0.02, 0.02) * energy for _ in range(2)]
    frequency = list(rng.uniform(0.1, 0.5, 2))
    if motion == 'walk':
        step = float(rng.uniform(1.6, 2.1))
        steps = np.array(((0, 0, 0.03, 0.002, 0.008, 0.003), (0.02, 0.02, 0, 0.008, 0, 0.01)))
        amplitude += list(steps * energy)
        frequency += [step, step / 2]
    shake = energy * float(rng.uniform(0, 1))
    for _ in range(3):
        amplitude.append(rng.uniform(0, 1, 6) * (0.002, 0.002, 0.004, 0.001, 0.0015, 0.001) * shake)
        frequency.append(float(rng.uniform(2.5, 9)))
    phase = rng.uniform(0, 2 * np.pi, (len(frequency), 6))
    return np.array(amplitude), np.array(frequency)[:, None], phase


def _ground_flow(path: FlightPath, intrinsics: Matrix, size: tuple[int, int], fps: float) -> float:
    """Return the median flow of flat ground over some points and times, pixels per frame."""
    height, width = size
    ys, xs = np.meshgrid(np.linspace(0, height - 1, 7), np.linspace(0, width - 1, 9), indexing='ij')
    rays = np.linalg.inv(intrinsics) @ np.stack((xs.ravel(), ys.ravel(), np.ones(xs.size)))
    lengths = []
    for seconds in (0.0, 0.7, 1.5, 2.5):
        here, there = path.pose(seconds), path.pose(seconds + 1 / fps)
        directions = here[:3, :3] @ rays
        depth = np.where(directions[2] < -1e-3, here[2, 3] / np.maximum(-directions[2], 1e-3), 100.0).clip(0, 100)
        points = here[:3, 3, None] + directions * depth
        pixels = intrinsics @ there[:3, :3].T @ (points - there[:3, 3, None])
        # Points beside or behind the camera count as fast.
        moved = np.hypot(pixels[0] / pixels[2] - xs.ravel(), pixels[1] / pixels[2] - ys.ravel())
        lengths.append(np.median(np.where(pixels[2] > 0.1, moved, 1e3)))
    return float(np.median(lengths))
