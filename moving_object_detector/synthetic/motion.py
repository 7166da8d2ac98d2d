"""How a simulated camera and simulated objects move."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


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
