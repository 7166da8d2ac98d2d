"""The camera's motion out of a bag with tf and CameraInfo is that of the flight that wrote it; spoilt tf is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.evaluation.clips import bag_clip
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.messages import encode_image
from moving_object_detector.programs.clips import quaternion
from moving_object_detector.synthetic.flight import FlightOptions, flight

FLOWN = flight(3, FlightOptions((64, 128), still=True, motion='orbit', frames=8))


def stamp(index: float) -> int:
    return 10**12 + round(index * 1e9 / FLOWN.fps)


def write(path: Path, poses: int) -> Path:
    image = np.zeros((64, 128, 3), np.uint8)
    with BagWriter(path) as bag:
        for index in range(8):
            bag.write_image('/camera/image_raw', stamp(index), encode_image(image, 'rgb8'), 'optical')
            k = FLOWN.intrinsics.ravel()
            bag.write_camera_info('/camera/camera_info', stamp(index), FLOWN.size, k, 'optical')
            # Poses are not at the images' times.
            pose = FLOWN.pose(index - 0.5)
            if index < poses:
                turn = quaternion(pose[:3, :3])
                bag.write_transform(stamp(index - 0.5), 'odom', 'optical', pose[:3, 3].tolist(), turn)
    return path


def test_motion_out_of_a_bag_is_that_of_the_flight(tmp_path: Path) -> None:
    clip = bag_clip(write(tmp_path / 'bag', 8))
    assert clip.odometry is not None
    odometry = clip.odometry(OdometryConfig(frame='odom'))
    camera = odometry.camera(FLOWN.size, FLOWN.size)
    assert camera is not None
    assert camera.fx == pytest.approx(FLOWN.intrinsics[0, 0])
    motion = odometry.motion(stamp(3), stamp(4))
    assert motion is not None
    truth = np.linalg.inv(FLOWN.pose(3)) @ FLOWN.pose(4)
    length = np.linalg.norm(truth[:3, 3])
    assert np.linalg.norm(motion.translation - truth[:3, 3]) < 0.05 * length
    assert np.abs(motion.rotation - truth[:3, :3]).max() < 0.005


def test_a_bag_whose_tf_ends_early_says_so(tmp_path: Path) -> None:
    clip = bag_clip(write(tmp_path / 'bag', 3))
    assert clip.odometry is not None
    odometry = clip.odometry(OdometryConfig(frame='odom'))
    odometry.camera(FLOWN.size, FLOWN.size)
    assert odometry.motion(stamp(6), stamp(7)) is None
    assert 'lags' in odometry.trouble
    assert clip.odometry(OdometryConfig()).motion(stamp(3), stamp(4)) is None


def test_topics_without_a_slash_are_those_with_one(tmp_path: Path) -> None:
    bag = write(tmp_path / 'bag', 8)
    clip = bag_clip(bag)
    assert clip.odometry is not None
    named = clip.odometry(OdometryConfig(frame='odom', camera_info='camera/camera_info'))
    assert named.camera(FLOWN.size, FLOWN.size) is not None
