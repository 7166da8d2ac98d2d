"""What the robot knows of its camera: poses by time from odometry or tf, and the intrinsics from CameraInfo.

Messages are read by their fields, so those of a running ROS and those out of a bag are the same here.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.flow.rigid_scene import Camera, KnownMotion, Travel

Matrix = NDArray[np.float64]

KEPT: Final = 10 * 10**9
"""Nanoseconds for which poses are remembered."""
AHEAD: Final = 100_000_000
"""Nanoseconds by which an image may be newer than the newest pose: the last motion goes on for so long."""
GAP: Final = 500_000_000
"""Nanoseconds between two poses from which what was between them is not known."""
# A step between two poses counts as a jump from this on, and where it is so many times as fast as those before it.
JUMP_SPEED: Final = 3.0
JUMP_TURN: Final = 3.0
JUMP_RATIO: Final = 5.0
STRONG_DISTORTION: Final = 0.02
"""Share of the width by which distortion may move the image's edges."""
# Known motion is doubted where the flow is off its lines by so many times as much as off those of the motion that the
# images tell, on average over about so many pairs.
DOUBT: Final = 2.5
DOUBT_PAIRS: Final = 20


def info_topic(image: str) -> str:
    """Return the topic of the CameraInfo that belongs to an image topic, as image_transport has it."""
    return f'{image.removesuffix("/compressed").rpartition("/")[0]}/camera_info'


class UnknownMotionError(Exception):
    """The motion between two images is not known; the message says why and what to do."""


class _Pose(NamedTuple):
    """Of a frame in another one."""

    rotation: Matrix
    position: Matrix

    def of(self, inner: _Pose) -> _Pose:
        """Return the pose, in the other frame, of what has a pose in this one."""
        return _Pose(self.rotation @ inner.rotation, self.rotation @ inner.position + self.position)

    def between(self, other: _Pose, share: float) -> _Pose:
        """Return the pose at a share of the way to another one, and beyond it from 1 on."""
        turn, _ = cv2.Rodrigues(self.rotation.T @ other.rotation)
        rotation = self.rotation @ cv2.Rodrigues(turn * share)[0]
        return _Pose(rotation, self.position + share * (other.position - self.position))


def _pose(position: Any, quaternion: Any) -> _Pose:
    """Return what a message's position (x, y, z) and orientation (x, y, z, w) say."""
    place = np.array((position.x, position.y, position.z), np.float64)
    x, y, z, w = numbers = np.array((quaternion.x, quaternion.y, quaternion.z, quaternion.w), np.float64)
    length = float(np.linalg.norm(numbers))
    if not (np.isfinite(place).all() and abs(length - 1) < 0.1):
        raise UnknownMotionError('a pose is no pose: its quaternion is not of length 1, or a number is not finite')
    x, y, z, w = numbers / length
    rotation = np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )
    return _Pose(rotation, place)


def parse_extrinsics(text: str) -> _Pose:
    """Return the pose that ``x y z qx qy qz qw`` (metres, quaternion) tells.

    Raises:
        UserError: It is something else.

    """
    try:
        x, y, z, *quaternion = map(float, text.replace(',', ' ').split())
        position = type('Position', (), {'x': x, 'y': y, 'z': z})
        return _pose(position, type('Quaternion', (), dict(zip('xyzw', quaternion, strict=True))))
    except (ValueError, UnknownMotionError) as error:
        raise UserError(
            f"odometry.extrinsics is '{foreign(text)}', but takes seven numbers, x y z qx qy qz qw: the pose of the "
            "camera's optical frame (x right, y down, z forward) in the frame whose odometry it is"
        ) from error


class _Track:
    """Poses of one frame in another over time, of the last ``kept`` nanoseconds; ``source`` names it in messages."""

    def __init__(self, source: str, parent: str, kept: int) -> None:
        self.source, self.parent, self._kept = source, parent, kept
        self._stamps: list[int] = []
        self._poses: dict[int, _Pose] = {}

    def add(self, stamp: int, pose: _Pose) -> None:
        """Take a pose; time that goes back far starts anew, as where a bag loops."""
        if self._stamps and stamp < self._stamps[-1] - KEPT // 10:
            self._stamps.clear()
            self._poses.clear()
        if stamp not in self._poses:
            insort(self._stamps, stamp)
        self._poses[stamp] = pose
        while self._stamps[0] < self._stamps[-1] - self._kept:
            del self._poses[self._stamps.pop(0)]

    def at(self, stamp: int) -> _Pose:
        """Return the pose at a time. Raises UnknownMotionError where it is not known."""
        stamps = self._stamps
        if not stamps:
            raise UnknownMotionError(f'{self.source} has not come; is it published?')
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            return self._poses[stamp]
        late = (stamp - stamps[-1]) / 1e9
        if abs(late) > KEPT / 1e9:
            raise UnknownMotionError(
                f'{self.source} is {-late:.3g} s from the image in time; do both have stamps of one clock?'
            )
        if place == 0:
            raise UnknownMotionError(f'{self.source} begins after the image')
        if late * 1e9 > AHEAD or (late > 0 and len(stamps) < 2):
            raise UnknownMotionError(
                f'{self.source} lags: its newest pose is {late:.3g} s older than the image; publish it faster, or take '
                'estimate refined, which waits'
            )
        after = min(place, len(stamps) - 1)
        first, second = stamps[after - 1], stamps[after]
        if second - first > GAP:
            raise UnknownMotionError(
                f'{self.source} has a hole of {(second - first) / 1e9:.3g} s at the image; are messages lost?'
            )
        return self._poses[first].between(self._poses[second], (stamp - first) / (second - first))

    def check_steady(self, first: int, last: int) -> None:
        """Raise UnknownMotionError where the pose jumps between two times, as where a map is corrected."""
        begin = max(bisect_left(self._stamps, first) - 1, 0)
        stamps = self._stamps[max(begin - 10, 0) : bisect_left(self._stamps, last) + 1]
        steps = []
        for a, b in pairwise(stamps):
            one, other, seconds = self._poses[a], self._poses[b], (b - a) / 1e9
            turn = float(np.linalg.norm(cv2.Rodrigues(one.rotation.T @ other.rotation)[0])) / seconds
            steps.append((a, float(np.linalg.norm(other.position - one.position)) / seconds, turn))
        if len(steps) < 3:
            return
        usual = np.median([step[1:] for step in steps], 0) * JUMP_RATIO + (JUMP_SPEED, JUMP_TURN)
        for stamp, speed, turn in steps:
            if stamp >= self._stamps[begin] and (speed > usual[0] or turn > usual[1]):
                raise UnknownMotionError(
                    f'{self.source} jumps ({speed:.3g} m/s, {turn:.3g} rad/s for one step); take a frame that is '
                    'continuous, such as odom and not map'
                )


class Odometry:
    """Knows how the camera moved between two images, and what kind of camera it is, as far as it was told.

    May be told and asked by different threads.

    Args:
        config: What to take the motion from.
        kept: Nanoseconds for which poses are remembered.

    Raises:
        UserError: The extrinsics are not such.

    """

    def __init__(self, config: OdometryConfig, kept: int = KEPT) -> None:
        self._config, self._kept = config, kept
        self._mount = parse_extrinsics(config.extrinsics) if config.extrinsics else None
        self._lock = threading.Lock()
        self._body: _Track | None = None
        self._child = ''
        self._tracks: dict[str, _Track] = {}
        self._fixed: dict[str, tuple[str, _Pose]] = {}
        self._info: Any = None
        self._doubt, self._pairs = 1.0, 0
        self.camera_frame = config.camera_frame.removeprefix('/')
        """The camera's optical frame; where no parameter says it, whoever reads images does."""
        self.rectified = False
        """Whether the images are rectified, so that P of CameraInfo holds and not K."""
        self._unknown = self._fault = ''

    @property
    def wanted(self) -> bool:
        """Whether any source of motion is set."""
        return bool(self._config.topic or self._config.frame)

    @property
    def trouble(self) -> str:
        """Why the last motion was not known, or CameraInfo is not used, a sentence; else empty."""
        return self._unknown or self._fault

    def deaf(self, reason: str) -> None:
        """Take note of why something cannot be heard."""
        self._unknown = reason

    # What it is told

    def set_camera(self, size: tuple[int, int], intrinsics: Matrix) -> None:
        """Take size (height, width) and K (3, 3) of images without distortion."""
        self._info = SimpleNamespace(height=size[0], width=size[1], k=intrinsics.ravel(), p=np.zeros(12), d=())

    def add_pose(self, stamp: int, pose: Matrix) -> None:
        """Take the pose (4, 4) of the camera's optical frame in the fixed one."""
        with self._lock:
            self._track(self.camera_frame, self._config.frame).add(stamp, _Pose(pose[:3, :3], pose[:3, 3]))

    def add_odometry(self, message: Any) -> None:
        """Take a nav_msgs/Odometry."""
        with self._lock:
            try:
                pose = _pose(message.pose.pose.position, message.pose.pose.orientation)
            except UnknownMotionError as error:
                self._unknown = f'odometry: {error}'
                return
            self._child = str(message.child_frame_id)
            self._body = self._body or _Track(self._name(), str(message.header.frame_id), self._kept)
            self._body.add(_stamp(message), pose)

    def add_transforms(self, message: Any, *, static: bool = False) -> None:
        """Take a tf2_msgs/TFMessage."""
        with self._lock:
            for one in message.transforms:
                parent, child = (name.removeprefix('/') for name in (one.header.frame_id, one.child_frame_id))
                try:
                    pose = _pose(one.transform.translation, one.transform.rotation)
                except UnknownMotionError as error:
                    self._unknown = f'tf from {foreign(parent)} to {foreign(child)}: {error}'
                    continue
                if static:
                    self._fixed[child] = parent, pose
                    continue
                self._track(child, parent).add(_stamp(one), pose)

    def add_camera_info(self, message: Any) -> None:
        """Take a sensor_msgs/CameraInfo."""
        with self._lock:
            self._info = message
            if not self._config.camera_frame and message.header.frame_id:
                self.camera_frame = str(message.header.frame_id)

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
            try:
                if self._info is None or self._fault:
                    raise UnknownMotionError(self._fault or 'camera_info has not come, so the motion has no use')
                if self._doubt > DOUBT:
                    raise UnknownMotionError(
                        f'the flow is {self._doubt:.1f} times as far off the motion by {self._name()} as off that '
                        'by the images; check odometry.camera_frame (optical: x right, y down, z forward), the '
                        'stamps of both, and camera_info'
                    )
                first, second = (self._camera_at(stamp) for stamp in (here, there))
                for track in self._used():
                    track.check_steady(min(here, there), max(here, there))
            except UnknownMotionError as error:
                self._unknown = str(error)
                return None
            self._unknown = ''
        turn = first.rotation.T
        return KnownMotion(turn @ second.rotation, turn @ (second.position - first.position))

    def compares(self) -> bool:
        """Tell whether the images are to be asked too: of one pair in ten, and of all where there is doubt."""
        self._pairs += 1
        return self._pairs % 10 == 1 or self._doubt > DOUBT / 2

    def compare(self, known: Travel, seen: Travel) -> None:
        """Learn how well a known motion explains the flow of a pair, beside what the images themselves tell."""
        with self._lock:
            ratio = min(known.noise / seen.noise, 4 * DOUBT)
            self._doubt += (ratio - self._doubt) / DOUBT_PAIRS

    def report(self) -> dict[str, str]:
        """Return where the motion comes from as texts for a diagnostic status."""
        camera = 'assumed' if self._info is None or self._fault else 'camera_info'
        if not self.wanted:
            return {'intrinsics': camera, 'motion': 'the images alone'}
        return {'intrinsics': camera, 'motion': f'the images alone: {self._unknown}' if self._unknown else self._name()}

    def _track(self, child: str, parent: str) -> _Track:
        track = self._tracks.get(child)
        if track is None or track.parent != parent:
            track = _Track(f'tf from {foreign(parent)} to {foreign(child)}', parent, self._kept)
            self._tracks[child] = track
        return track

    def _name(self) -> str:
        return f'odometry on {self._config.topic}' if self._config.topic else f'tf in {self._config.frame}'

    def _used(self) -> Iterable[_Track]:
        return [self._body] if self._body is not None and self._config.topic else self._tracks.values()

    def _camera_at(self, stamp: int) -> _Pose:
        if not self._config.topic:
            return self._by_tf(self.camera_frame, self._config.frame, stamp)
        if self._body is None:
            raise UnknownMotionError(f'odometry on {self._config.topic} has not come; is it published?')
        mount = self._mount
        if mount is None:
            mount = self._by_tf(self.camera_frame, self._child, stamp)
        return self._body.at(stamp).of(mount)

    def _by_tf(self, frame: str, root: str, stamp: int) -> _Pose:
        """Return the pose of a frame in one above it."""
        found = _Pose(np.eye(3), np.zeros(3))
        at, seen = frame.removeprefix('/'), set[str]()
        while at != root.removeprefix('/'):
            if at in self._fixed:
                parent, pose = self._fixed[at]
            elif at in self._tracks:
                parent, pose = self._tracks[at].parent, self._tracks[at].at(stamp)
            else:
                parent, pose = '', found
            if not parent or at in seen:
                raise UnknownMotionError(
                    f"tf does not lead from the camera's frame '{foreign(frame)}' to '{foreign(root)}', only to "
                    f"'{foreign(at)}'; set odometry.frame and odometry.camera_frame, or odometry.extrinsics"
                )
            seen.add(at)
            found, at = pose.of(found), parent
        return found


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
    if not (np.isfinite((fx, fy, cx, cy)).all() and 0.1 * width < min(fx, fy) and max(fx, fy) < 20 * width):
        return f'camera_info has a focal length of {fx:.4g} x {fy:.4g} pixels; calibrate the camera'
    distortion = np.asarray(getattr(info, 'd', getattr(info, 'D', ())), np.float64)
    if rectified or not distortion.any():
        return ''
    matrix = np.array(((fx, 0, cx), (0, fy, cy), (0, 0, 1)))
    edge = np.array((((0, cy), (width, cy), (cx, 0), (cx, height)),), np.float64).reshape(-1, 1, 2)
    undistort = cv2.fisheye.undistortPoints if info.distortion_model == 'equidistant' else cv2.undistortPoints
    straight = np.asarray(undistort(edge, matrix, distortion, P=matrix), np.float64)
    shift = float(np.abs(straight - edge).max())
    if not shift < STRONG_DISTORTION * width:
        return f'the lens moves the edges of the image by {shift:.0f} pixels; take rectified images (image_proc)'
    return ''
