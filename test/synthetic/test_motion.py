from __future__ import annotations

import math

import numpy as np
import pytest

from moving_object_detector.synthetic.scene import CONSTANT, Drift, SheetCamera, Trajectory, translation, turn_and_scale


def move(matrix, x, y):
    px, py, pw = matrix @ (x, y, 1)
    return px / pw, py / pw


def test_building_blocks_by_hand():
    assert move(translation(3, -2), 10, 20) == (13, 18)
    # A quarter turn takes right to down: x right, y down.
    assert move(turn_and_scale(math.pi / 2, 2.0), 1, 0) == pytest.approx((0, 2))
    assert move(turn_and_scale(0.0, 0.5), 8, -6) == (4, -3)


def test_drift_starts_at_zero_and_follows_its_formula():
    drift = Drift(rate=0.5, sway=3.0, pace=0.7, phase=1.1)
    assert drift(0) == 0
    for time in (-4.0, 0.3, 12.0):
        assert drift(time) == pytest.approx(0.5 * time + 3 * (math.sin(0.7 * time + 1.1) - math.sin(1.1)))
    assert CONSTANT(100.0) == 0


def test_trajectory():
    path = Trajectory(x=Drift(2.0), y=Drift(-1.0), turn=Drift(0.1), log_scale=Drift(math.log(2) / 10))
    assert np.array_equal(path.matrix(0), np.eye(3))
    # After ten frames: scaled by 2, turned by 1 radian, then shifted by (20, -10).
    assert move(path.matrix(10), 5, 0) == pytest.approx((20 + 10 * math.cos(1), -10 + 10 * math.sin(1)))


def test_a_nearer_sheet_shifts_and_grows_more_but_turns_as_much():
    path = Trajectory(x=Drift(2.0), turn=Drift(0.1), log_scale=Drift(0.05))
    growth = math.exp(1.5 * 0.05 * 10)
    expected = 1.5 * 20 + 5 * growth * math.cos(1), 5 * growth * math.sin(1)
    assert move(path.matrix(10, depth_gain=1.5), 5, 0) == pytest.approx(expected)


def test_a_camera_turns_and_nears_about_the_centre():
    camera = SheetCamera((160, 90), Trajectory(turn=Drift(0.2), log_scale=Drift(0.1)))
    assert np.allclose(camera.matrix(0), np.eye(3))
    assert move(camera.matrix(5), 160, 90) == pytest.approx((160, 90))
    x, y = move(camera.matrix(5), 170, 90)
    assert math.hypot(x - 160, y - 90) == pytest.approx(10 * math.exp(0.5))
    assert math.atan2(y - 90, x - 160) == pytest.approx(1.0)


def test_tilt_by_hand():
    camera = SheetCamera((100, 50), tilt_x=Drift(1e-4), tilt_y=Drift(-2e-4))
    # 40 px right of and 30 px below the centre after ten frames: divided by 1 + 0.001 * 40 - 0.002 * 30.
    divisor = 1 + 0.04 - 0.06
    assert move(camera.matrix(10), 140, 80) == pytest.approx((100 + 40 / divisor, 50 + 30 / divisor))
