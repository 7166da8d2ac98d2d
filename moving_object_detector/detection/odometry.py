"""Camera motion and intrinsics as the robot reports them: poses from odometry or tf, and CameraInfo.

Messages are read by field name, so those of a running ROS and those from a bag work alike.
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
from moving_object_detector.media.frames import stamp_of

# A larger motion between two images (radians, metres) is taken for an error: flow could not follow it.
MOST_TURN: Final = 1.0
MOST_WAY: Final = 100.0
STRONG_DISTORTION: Final = 0.02
"""Largest accepted shift of the image's edges by lens distortion, as a share of the width."""
# Known motion is rejected where its epipolar residual is on average DOUBT times that of the motion estimated from the
# images, smoothed over about DOUBT_PAIRS pairs.
DOUBT: Final = 2.5
DOUBT_PAIRS: Final = 20
SAID: Final = 40
"""Pairs for which a past problem is still reported, so that whoever polls once a second sees it."""


def parse_extrinsics(text: str) -> Pose:
    """Parse a pose ``x y z qx qy qz qw`` (metres, quaternion); raises UserError for anything else."""
    try:
        x, y, z, *quaternion = map(float, text.replace(',', ' ').split())
        position = type('Position', (), {'x': x, 'y': y, 'z': z})
        return read_pose(position, type('Quaternion', (), dict(zip('xyzw', quaternion, strict=True))))
    except (ValueError, UnknownMotionError) as error:
        raise UserError(
            f"odometry.extrinsics is '{foreign(text)}', but takes seven numbers, x y z qx qy qz qw: the pose of the "
            "camera's optical frame (x right, y down, z forward) in the odometry's child frame"
        ) from error


class Odometry:
    """Provides the camera's motion between two images and its intrinsics, as far as messages tell them.

    Messages may be added and motions queried from different threads. Poses are kept for ``kept`` nanoseconds. Raises
    UserError for wrong extrinsics.
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
        """The camera's optical frame: the parameter, else that of CameraInfo."""
        self.rectified = False
        """Whether the images are rectified: then P of CameraInfo holds, not K."""
        self._info_topic = 'its topic'
        self.deaf = self._fault = self._unknown = ''
        """Why tf cannot be received, CameraInfo is not used, the last pair's motion is unknown; empty: no reason."""
        self._bad: dict[str, str] = {}
        """What is wrong with each frame's last pose; the odometry has the key ''."""
        self._last, self._since = '', SAID
        """The latest reason for an unknown motion, and the pairs with known motion since then."""
        self._asked = False

    @property
    def wanted(self) -> bool:
        """Whether a source of motion is configured."""
        return bool(self._config.topic or self._config.frame)

    @property
    def trouble(self) -> str:
        """Why the motion is or recently was unknown, or CameraInfo is not used; empty: all is well."""
        if not self._unknown and self._since < SAID:
            return f'for some recent pairs of images, because {self._last}'
        return self._unknown or self._fault

    def see(self, topic: str) -> str:
        """Note the images' topic; return their CameraInfo's, by default as image_transport names it; empty: none."""
        folder, _, name = topic.removesuffix('/compressed').rpartition('/')
        self.rectified = 'rect' in name
        asked = self._config.camera_info
        self._info_topic = {'auto': f'{folder}/camera_info', 'none': ''}.get(asked, asked)
        return self._info_topic

    # Input

    def set_camera(self, size: tuple[int, int], intrinsics: Matrix) -> None:
        """Set size (height, width) and K (3, 3) of images without distortion."""
        self._info = SimpleNamespace(height=size[0], width=size[1], k=intrinsics.ravel(), p=np.zeros(12), d=())

    def add_pose(self, stamp: int, pose: Matrix) -> None:
        """Add a pose (4, 4) of the camera's optical frame in the fixed frame."""
        with self._lock:
            self._frames.add(self.camera_frame, _bare(self._config.frame), Pose(pose[:3, :3], pose[:3, 3]), stamp)

    def add_odometry(self, message: Any) -> None:
        """Add a nav_msgs/Odometry."""
        with self._lock:
            try:
                pose = read_pose(message.pose.pose.position, message.pose.pose.orientation)
            except UnknownMotionError as error:
                self._bad[''] = f'{self._name}: {error}'
                return
            self._bad.pop('', None)
            self._child = _bare(message.child_frame_id)
            self._body = self._body or Track(self._name, '', self._kept)
            self._body.add(stamp_of(message.header), pose)

    def add_transforms(self, message: Any, *, static: bool = False) -> None:
        """Add a tf2_msgs/TFMessage."""
        with self._lock:
            for link in message.transforms:
                parent, child = _bare(link.header.frame_id), _bare(link.child_frame_id)
                try:
                    pose = read_pose(link.transform.translation, link.transform.rotation)
                except UnknownMotionError as error:
                    if len(self._bad) < MOST_FRAMES and len(child) <= LONGEST_NAME:
                        self._bad[child] = f'tf from {foreign(parent)} to {foreign(child)}: {error}'
                    continue
                self._bad.pop(child, None)
                self._frames.add(child, parent, pose, None if static else stamp_of(link.header))

    def add_camera_info(self, message: Any) -> None:
        """Set a sensor_msgs/CameraInfo."""
        with self._lock:
            self._info = message
            if not self._config.camera_frame and message.header.frame_id:
                self.camera_frame = _bare(message.header.frame_id)

    # Queries

    def camera(self, image: tuple[int, int], size: tuple[int, int]) -> Camera | None:
        """Return the camera in pixels of a field of ``size`` (height, width) for images of ``image``; None: unknown."""
        with self._lock:
            info = self._info
            self._fault = '' if info is None else _fault(info, image, rectified=self.rectified)
            if info is None or self._fault:
                return None
            fx, fy, cx, cy = _intrinsics(info, rectified=self.rectified)
        # CameraInfo has (0, 0) at the first pixel's centre, Camera at its corner.
        down, across = size[0] / image[0], size[1] / image[1]
        return Camera(fx * across, fy * down, (cx + 0.5) * across, (cy + 0.5) * down)

    def motion(self, here: int, there: int) -> KnownMotion | None:
        """Return the camera's motion between the images with two stamps (nanoseconds); None: unknown."""
        if not self.wanted:
            return None
        with self._lock:
            self._asked = True
            try:
                if self._info is None or self._fault:
                    raise UnknownMotionError(
                        self._fault
                        or f'camera_info has not come on {self._info_topic or "any topic"}, so the motion cannot be '
                        'used; publish it, or set odometry.camera_info to its topic'
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
                        f'by {self._name} the camera moved {way:.3g} m and turned {turn:.3g} rad between two images; '
                        'stamp images and poses by the same clock, and publish poses in metres'
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
        """Return what is wrong with a pose on the way to the camera; empty: nothing."""
        asked = (*self._frames.above(self.camera_frame), *(('',) if self._config.topic else ()))
        return next((self._bad[frame] for frame in asked if frame in self._bad), '')

    def compares(self) -> bool:
        """Tell whether to estimate the motion from the images too: for every tenth pair, and for all while in doubt."""
        self._pairs += 1
        return self._pairs % 10 == 1 or self._doubt > DOUBT / 2

    def compare(self, known: Travel, seen: Travel) -> bool:
        """Compare how well the known and the estimated motion explain a pair's flow; return whether to use the known.

        A rejected motion is still compared, so that it is used again once it fits.
        """
        with self._lock:
            ratio = known.noise / seen.noise
            if math.isfinite(ratio):
                self._doubt += (min(ratio, 4 * DOUBT) - self._doubt) / DOUBT_PAIRS
            if self._doubt <= DOUBT:
                return True
            self._say(
                f'{self._name} does not fit the images: it leaves {self._doubt:.1f} times the flow error of the motion '
                'estimated from them; check odometry.camera_frame (optical: x right, y down, z forward), the stamps '
                'of both, and camera_info'
            )
            return False

    def report(self) -> dict[str, str]:
        """Return the sources of intrinsics and motion as texts for a diagnostic status."""
        camera = 'assumed' if self._info is None or self._fault else 'camera_info'
        if not self.wanted:
            return {'intrinsics': camera, 'motion': 'the images alone'}
        if not self._asked:
            return {'intrinsics': camera, 'motion': f'{self._name}, once images arrive'}
        return {'intrinsics': camera, 'motion': f'the images alone: {self._unknown}' if self._unknown else self._name}

    def _camera_at(self, stamp: int) -> tuple[Pose, list[Track]]:
        """Return the camera's pose in the fixed frame, and the tracks it depends on."""
        if not self._config.topic:
            return self._frames.at(self.camera_frame, _bare(self._config.frame), stamp)
        if self._body is None:
            raise UnknownMotionError(f'{self._name} has not come; is it published?')
        mount, moving = self._mount, list[Track]()
        if mount is None:
            mount, moving = self._frames.at(self.camera_frame, self._child, stamp)
        return self._body.at(stamp).of(mount), [self._body, *moving]


def _bare(frame: str) -> str:
    """Strip the leading slash that old drivers put before a frame's name."""
    return str(frame).removeprefix('/')


def _intrinsics(info: Any, *, rectified: bool) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy of a CameraInfo."""
    # ROS 1 bags name them in upper case.
    p, k = (np.asarray(getattr(info, name, getattr(info, name.upper(), None)), np.float64) for name in 'pk')
    return (p[0], p[5], p[2], p[6]) if rectified and p[0] > 0 else (k[0], k[4], k[2], k[5])


def _fault(info: Any, image: tuple[int, int], *, rectified: bool) -> str:
    """Return why a CameraInfo cannot be used for images of a size (height, width); empty: it can."""
    height, width = image
    if (info.height, info.width) != image:
        return (
            f'camera_info is for {info.width}x{info.height} pixels, but the images are {width}x{height}; publish the '
            'camera_info that belongs to them'
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
            f"camera_info has {len(distortion)} distortion coefficients that are invalid for the model '"
            f"{foreign(info.distortion_model)}'; calibrate the camera, or use rectified images (image_proc)"
        )
    undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
    straight = np.asarray(undistort(edge, matrix, distortion, P=matrix), np.float64)
    shift = float(np.abs(straight - edge).max())
    if not shift < STRONG_DISTORTION * width:
        return f'lens distortion moves the image edges by {shift:.0f} pixels; use rectified images (image_proc)'
    return ''
