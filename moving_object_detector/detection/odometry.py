"""What the robot knows of its camera: poses by time from odometry or tf, and the intrinsics from CameraInfo.

Messages are read by their fields, so those of a running ROS and those out of a bag are the same here.
"""

from __future__ import annotations

import math
import threading
from types import SimpleNamespace
from typing import Any, Final

import cv2
import numpy as np

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.poses import (
    KEPT,
    LONGEST_NAME,
    MOST_FRAMES,
    Frames,
    Matrix,
    Pose,
    Track,
    UnknownMotionError,
    read_pose,
)
from moving_object_detector.flow.travel import Camera, KnownMotion, Travel

# More than that between two images is no motion that flow could follow: radians, metres.
MOST_TURN: Final = 1.0
MOST_WAY: Final = 100.0
STRONG_DISTORTION: Final = 0.02
"""Share of the width by which distortion may move the image's edges."""
# Known motion is doubted where the flow is off its lines by so many times as much as off those of the motion that the
# images tell, on average over about so many pairs.
DOUBT: Final = 2.5
DOUBT_PAIRS: Final = 20
SAID: Final = 40
"""Pairs for which trouble is told after it has passed, so that who looks once a second sees it."""


def parse_extrinsics(text: str) -> Pose:
    """Return the pose that ``x y z qx qy qz qw`` (metres, quaternion) tells; UserError for all else."""
    try:
        x, y, z, *quaternion = map(float, text.replace(',', ' ').split())
        position = type('Position', (), {'x': x, 'y': y, 'z': z})
        return read_pose(position, type('Quaternion', (), dict(zip('xyzw', quaternion, strict=True))))
    except (ValueError, UnknownMotionError) as error:
        raise UserError(
            f"odometry.extrinsics is '{foreign(text)}', but takes seven numbers, x y z qx qy qz qw: the pose of the "
            "camera's optical frame (x right, y down, z forward) in the frame whose odometry it is"
        ) from error


class Odometry:
    """Knows how the camera moved between two images, and what kind of camera it is, as far as it was told.

    May be told and asked by different threads; poses are ``kept`` for so many nanoseconds. Raises UserError for wrong
    extrinsics.
    """

    def __init__(self, config: OdometryConfig, kept: int = KEPT) -> None:
        self._config, self._kept = config, kept
        self._name = f'odometry on {config.topic}' if config.topic else f'tf in {config.frame}'
        self._mount = parse_extrinsics(config.extrinsics) if config.extrinsics else None
        self._lock = threading.Lock()
        self._body: Track | None = None
        self._child = ''
        self._frames = Frames(kept)
        self._info: Any = None
        self._doubt, self._pairs = 1.0, 0
        self.camera_frame = _bare(config.camera_frame)
        """The camera's optical frame; where no parameter says it, whoever reads images does."""
        self.rectified = False
        """Whether the images are rectified, so that P of CameraInfo holds and not K."""
        self._info_topic = 'its topic'
        self.deaf = self._fault = self._unknown = ''
        """Why tf cannot be heard, CameraInfo is not used, the last pair's motion was not known."""
        self._bad: dict[str, str] = {}
        """What is wrong with the last pose of a frame, by its name; of the odometry by none."""
        self._last, self._since = '', SAID
        """Why a motion was not known last, and the pairs since whose motion was."""
        self._asked = False

    @property
    def wanted(self) -> bool:
        """Whether any source of motion is set."""
        return bool(self._config.topic or self._config.frame)

    @property
    def trouble(self) -> str:
        """Why the last motion was not known, or one not long before it, or CameraInfo is not used; else empty."""
        if not self._unknown and self._since < SAID:
            return f'for some pairs of images, since {self._last}'
        return self._unknown or self._fault

    def see(self, topic: str) -> str:
        """Take note of the images' topic; return that of their CameraInfo, as image_transport has it; empty: none."""
        folder, _, name = topic.removesuffix('/compressed').rpartition('/')
        self.rectified = 'rect' in name
        asked = self._config.camera_info
        self._info_topic = {'auto': f'{folder}/camera_info', 'none': ''}.get(asked, asked)
        return self._info_topic

    # What it is told

    def set_camera(self, size: tuple[int, int], intrinsics: Matrix) -> None:
        """Take size (height, width) and K (3, 3) of images without distortion."""
        self._info = SimpleNamespace(height=size[0], width=size[1], k=intrinsics.ravel(), p=np.zeros(12), d=())

    def add_pose(self, stamp: int, pose: Matrix) -> None:
        """Take the pose (4, 4) of the camera's optical frame in the fixed one."""
        with self._lock:
            self._frames.add(self.camera_frame, _bare(self._config.frame), Pose(pose[:3, :3], pose[:3, 3]), stamp)

    def add_odometry(self, message: Any) -> None:
        """Take a nav_msgs/Odometry."""
        with self._lock:
            try:
                pose = read_pose(message.pose.pose.position, message.pose.pose.orientation)
            except UnknownMotionError as error:
                self._bad[''] = f'{self._name}: {error}'
                return
            self._bad.pop('', None)
            self._child = _bare(message.child_frame_id)
            self._body = self._body or Track(self._name, '', self._kept)
            self._body.add(_stamp(message), pose)

    def add_transforms(self, message: Any, *, static: bool = False) -> None:
        """Take a tf2_msgs/TFMessage."""
        with self._lock:
            for one in message.transforms:
                parent, child = _bare(one.header.frame_id), _bare(one.child_frame_id)
                try:
                    pose = read_pose(one.transform.translation, one.transform.rotation)
                except UnknownMotionError as error:
                    if len(self._bad) < MOST_FRAMES and len(child) <= LONGEST_NAME:
                        self._bad[child] = f'tf from {foreign(parent)} to {foreign(child)}: {error}'
                    continue
                self._bad.pop(child, None)
                self._frames.add(child, parent, pose, None if static else _stamp(one))

    def add_camera_info(self, message: Any) -> None:
        """Take a sensor_msgs/CameraInfo."""
        with self._lock:
            self._info = message
            if not self._config.camera_frame and message.header.frame_id:
                self.camera_frame = _bare(message.header.frame_id)

    # What it is asked

    def camera(self, image: tuple[int, int], size: tuple[int, int]) -> Camera | None:
        """Return the camera for a field of ``size`` (height, width) of an image of a size, if it is known."""
        with self._lock:
            info = self._info
            self._fault = '' if info is None else _fault(info, image, rectified=self.rectified)
            if info is None or self._fault:
                return None
            fx, fy, cx, cy = _intrinsics(info, rectified=self.rectified)
        # In CameraInfo the middle of the first pixel is at (0, 0).
        down, across = size[0] / image[0], size[1] / image[1]
        return Camera(fx * across, fy * down, (cx + 0.5) * across, (cy + 0.5) * down)

    def motion(self, here: int, there: int) -> KnownMotion | None:
        """Return how the camera moved from the image with one stamp (nanoseconds) to that with another, if known."""
        if not self.wanted:
            return None
        with self._lock:
            self._asked = True
            try:
                if self._info is None or self._fault:
                    raise UnknownMotionError(
                        self._fault
                        or f'camera_info has not come on {self._info_topic or "any topic"} (odometry.camera_info), so '
                        'the motion has no use'
                    )
                (first, moving), (second, _) = (self._camera_at(stamp) for stamp in (here, there))
                for track in moving:
                    track.check_steady(min(here, there), max(here, there))
                axes = first.rotation.T
                motion = KnownMotion(axes @ second.rotation, axes @ (second.position - first.position))
                turned, _ = cv2.Rodrigues(motion.rotation)
                way, turn = float(np.linalg.norm(motion.translation)), float(np.linalg.norm(turned))
                if not (way < MOST_WAY and turn < MOST_TURN):
                    raise UnknownMotionError(
                        f'by {self._name} the camera moved {way:.3g} m and turned {turn:.3g} rad from one image to '
                        'another; are the stamps of both of one clock, and the poses in metres?'
                    )
            except UnknownMotionError as error:
                self._say(self.deaf or self._bad_pose() or str(error))
                return None
            self._say('')
        return motion

    def _say(self, reason: str) -> None:
        self._unknown, self._last = reason, reason or self._last
        self._since = 0 if reason else min(self._since + 1, SAID)

    def _bad_pose(self) -> str:
        """Return what is wrong with the poses that lead to the camera, if anything is."""
        asked = (*self._frames.above(self.camera_frame), *(('',) if self._config.topic else ()))
        return next((self._bad[frame] for frame in asked if frame in self._bad), '')

    def compares(self) -> bool:
        """Tell whether the images are to be asked too: of one pair in ten, and of all where there is doubt."""
        self._pairs += 1
        return self._pairs % 10 == 1 or self._doubt > DOUBT / 2

    def compare(self, known: Travel, seen: Travel) -> bool:
        """Learn how well a known motion explains a pair's flow, beside what the images tell; return if it is believed.

        One that is not is compared on, so that it is believed again once it is right.
        """
        with self._lock:
            ratio = known.noise / seen.noise
            if math.isfinite(ratio):
                self._doubt += (min(ratio, 4 * DOUBT) - self._doubt) / DOUBT_PAIRS
            if self._doubt <= DOUBT:
                return True
            self._say(
                f'the flow is {self._doubt:.1f} times as far off the motion by {self._name} as off that by the '
                'images; check odometry.camera_frame (optical: x right, y down, z forward), the stamps of both, and '
                'camera_info'
            )
            return False

    def report(self) -> dict[str, str]:
        """Return where the motion comes from as texts for a diagnostic status."""
        camera = 'assumed' if self._info is None or self._fault else 'camera_info'
        if not self.wanted:
            return {'intrinsics': camera, 'motion': 'the images alone'}
        if not self._asked:
            return {'intrinsics': camera, 'motion': f'{self._name}, once images come'}
        return {'intrinsics': camera, 'motion': f'the images alone: {self._unknown}' if self._unknown else self._name}

    def _camera_at(self, stamp: int) -> tuple[Pose, list[Track]]:
        """Return the camera's pose in the fixed frame, and what moves on the way to it."""
        if not self._config.topic:
            return self._frames.at(self.camera_frame, _bare(self._config.frame), stamp)
        if self._body is None:
            raise UnknownMotionError(f'{self._name} has not come; is it published?')
        mount, moving = self._mount, list[Track]()
        if mount is None:
            mount, moving = self._frames.at(self.camera_frame, self._child, stamp)
        return self._body.at(stamp).of(mount), [self._body, *moving]


def _bare(frame: str) -> str:
    """Return a frame's name without the slash that old drivers put before it."""
    return str(frame).removeprefix('/')


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def _intrinsics(info: Any, *, rectified: bool) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a CameraInfo."""
    # Upper case in bags of ROS 1.
    p, k = (np.asarray(getattr(info, name, getattr(info, name.upper(), None)), np.float64) for name in 'pk')
    return (p[0], p[5], p[2], p[6]) if rectified and p[0] > 0 else (k[0], k[4], k[2], k[5])


def _fault(info: Any, image: tuple[int, int], *, rectified: bool) -> str:
    """Say why a CameraInfo is of no use for images of a size (height, width); empty where it is."""
    height, width = image
    if (info.height, info.width) != image:
        return (
            f'camera_info is of {info.width}x{info.height} pixels, the images are {width}x{height}; publish one that '
            'belongs to them'
        )
    fx, fy, cx, cy = _intrinsics(info, rectified=rectified)
    if not (np.isfinite((fx, fy)).all() and 0.1 * width < min(fx, fy) and max(fx, fy) < 20 * width):
        return f'camera_info has a focal length of {fx:.4g} x {fy:.4g} pixels; calibrate the camera'
    if not (-width < cx < 2 * width and -height < cy < 2 * height):
        return f'camera_info has its principal point at ({cx:.4g}, {cy:.4g}), far off the image; calibrate the camera'
    return '' if rectified else _lens_fault(info, image)


def _lens_fault(info: Any, image: tuple[int, int]) -> str:
    height, width = image
    distortion = np.asarray(getattr(info, 'd', getattr(info, 'D', ())), np.float64)
    if not distortion.any():
        return ''
    fx, fy, cx, cy = _intrinsics(info, rectified=False)
    matrix = np.array(((fx, 0, cx), (0, fy, cy), (0, 0, 1)))
    edge = np.array((((0, cy), (width, cy), (cx, 0), (cx, height)),), np.float64).reshape(-1, 1, 2)
    fisheye = info.distortion_model == 'equidistant'
    if len(distortion) not in ((4,) if fisheye else (4, 5, 8, 12, 14)) or not np.isfinite(distortion).all():
        return (
            f"camera_info has {len(distortion)} coefficients of distortion that are not those of '"
            f"{foreign(info.distortion_model)}'; calibrate the camera, or take rectified images (image_proc)"
        )
    undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    straight = np.asarray(undistort(edge, matrix, distortion, P=matrix), np.float64)
    shift = float(np.abs(straight - edge).max())
    if not shift < STRONG_DISTORTION * width:
        return f'the lens moves the edges of the image by {shift:.0f} pixels; take rectified images (image_proc)'
    return ''
