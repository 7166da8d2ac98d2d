"""Poses of tf frames over time, interpolated between messages.

Messages are not trusted: poses are validated, and memory and time are bounded.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import foreign

Matrix = NDArray[np.float64]

KEPT: Final = 10 * 10**9
"""Nanoseconds for which poses are kept."""
AHEAD: Final = 100_000_000
"""Nanoseconds by which an image may be newer than the newest pose: the last motion is extrapolated so far."""
LONGEST_GAP: Final = 500_000_000
"""Nanoseconds: nothing is interpolated between poses farther apart."""
FINEST: Final = 500_000
"""Nanoseconds: of poses closer in time only the first is kept."""
FARTHEST_POSITION: Final = 1e9
"""Metres: a position farther away is invalid."""
# A step is a jump if its speed (m/s) or turn rate (rad/s) exceeds JUMP_RATIO times the median by more than these.
JUMP_SPEED: Final = 3.0
JUMP_TURN: Final = 3.0
JUMP_RATIO: Final = 5.0
MOST_FRAMES: Final = 1000
MOST_POSES: Final = 200_000
"""Of all frames together. Beyond a limit the frames silent for longest are dropped, new static ones ignored."""
LOST: Final = (
    'if large images make its messages get lost, use config/fastdds.xml (docs/robot.md, "Images that get lost")'
)
LONGEST_NAME: Final = 255
"""Characters: a frame with a longer name is ignored."""


class UnknownMotionError(Exception):
    """The motion between two images is unknown; the message says why and what to do."""


class Pose(NamedTuple):
    """Pose of one frame in another."""

    rotation: Matrix
    """(3, 3)."""
    position: Matrix
    """(3,), metres."""

    def of(self, inner: Pose) -> Pose:
        """Return the pose in the other frame of something with pose ``inner`` in this one."""
        return Pose(self.rotation @ inner.rotation, self.rotation @ inner.position + self.position)

    def between(self, other: Pose, share: float) -> Pose:
        """Interpolate to another pose by ``share``; above 1, extrapolate."""
        turn, _ = cv2.Rodrigues(self.rotation.T @ other.rotation)
        rotation = self.rotation @ cv2.Rodrigues(turn * share)[0]
        return Pose(rotation, self.position + share * (other.position - self.position))


def read_pose(position: Any, quaternion: Any) -> Pose:
    """Convert a message's position (x, y, z) and orientation (x, y, z, w); UnknownMotionError if invalid."""
    place = (float(position.x), float(position.y), float(position.z))
    numbers = (float(quaternion.x), float(quaternion.y), float(quaternion.z), float(quaternion.w))
    length = math.hypot(*numbers)
    if not (math.hypot(*place) < FARTHEST_POSITION and abs(length - 1) < 0.1):
        raise UnknownMotionError(
            'its last pose is invalid: the quaternion is not of length 1, or the position not finite or beyond 1e9 m'
        )
    x, y, z, w = (number / length for number in numbers)
    rotation = np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )
    return Pose(rotation, np.array(place))


class Track:
    """Poses of one frame in another over the last ``kept`` nanoseconds; ``source`` names it in messages."""

    def __init__(self, source: str, parent: str, kept: int) -> None:
        self.source, self.parent, self._kept = source, parent, kept
        self._stamps: list[int] = []
        self._poses: dict[int, Pose] = {}

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp: int, pose: Pose) -> None:
        """Add a pose; a jump back in time by more than a second, as when a bag loops, clears the track."""
        stamps = self._stamps
        if stamps and stamp < stamps[-1] - KEPT // 10:
            stamps.clear()
            self._poses.clear()
        place = bisect_left(stamps, stamp)
        near = stamps[max(place - 1, 0) : place + 1]
        if stamp not in self._poses:
            if any(abs(stamp - one) < FINEST for one in near):
                return
            stamps.insert(place, stamp)
        self._poses[stamp] = pose
        while stamps[0] < stamps[-1] - self._kept:
            del self._poses[stamps.pop(0)]

    def at(self, stamp: int) -> Pose:
        """Return the pose at a time (nanoseconds), interpolated; raises UnknownMotionError if unknown."""
        stamps = self._stamps
        if not stamps:
            raise UnknownMotionError(f'{self.source} has not come; is it published?')
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            return self._poses[stamp]
        late = (stamp - stamps[-1]) / 1e9
        if abs(late) > KEPT / 1e9:
            raise UnknownMotionError(
                f'{self.source} is stamped {-late:+.3g} s from the image; are both stamped by the same clock?'
            )
        if place == 0:
            raise UnknownMotionError(f'{self.source} begins after the image')
        if late * 1e9 > AHEAD or (late > 0 and len(stamps) < 2):
            raise UnknownMotionError(
                f'{self.source} lags: its newest pose is {late:.3g} s older than the image; publish it more '
                f'often, and before the image; {LOST}'
            )
        after = min(place, len(stamps) - 1)
        first, second = stamps[after - 1], stamps[after]
        if second - first > LONGEST_GAP:
            raise UnknownMotionError(f'{self.source} has a hole of {(second - first) / 1e9:.3g} s at the image; {LOST}')
        return self._poses[first].between(self._poses[second], (stamp - first) / (second - first))

    def check_steady(self, first: int, last: int) -> None:
        """Raise UnknownMotionError if the pose jumps between two times, as when a map is corrected."""
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
                    f'{self.source} jumps ({speed:.3g} m/s, {turn:.3g} rad/s for one step); use a frame that is '
                    'continuous, such as odom, not map'
                )


class Frames:
    """The tree of tf frames; ``kept`` nanoseconds of each are kept."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        # A recording is read as a whole.
        self._most = MOST_POSES if kept <= KEPT else math.inf
        self._fixed: dict[str, tuple[str, Pose]] = {}
        self._tracks: OrderedDict[str, Track] = OrderedDict()
        """Longest silent first."""

    def add(self, child: str, parent: str, pose: Pose, stamp: int | None) -> None:
        """Add a pose of ``child`` in ``parent`` at a time (None: static)."""
        if max(len(child), len(parent)) > LONGEST_NAME:
            return
        if stamp is None:
            # A robot publishes its own at the start, so later ones beyond the limit are ignored.
            if child in self._fixed or len(self._fixed) < MOST_FRAMES:
                self._fixed[child] = parent, pose
            return
        if child not in self._tracks or self._tracks[child].parent != parent:
            self._tracks[child] = Track(f'tf from {foreign(parent)} to {foreign(child)}', parent, self._kept)
        self._tracks[child].add(stamp, pose)
        self._tracks.move_to_end(child)
        while len(self._tracks) > MOST_FRAMES or sum(map(len, self._tracks.values())) > self._most:
            self._tracks.popitem(last=False)

    def above(self, frame: str) -> Iterator[str]:
        """Yield a frame and its ancestors, up to the root or until they repeat."""
        visited = set[str]()
        while frame not in visited:
            visited.add(frame)
            yield frame
            if frame in self._fixed:
                frame = self._fixed[frame][0]
            elif frame in self._tracks:
                frame = self._tracks[frame].parent
            else:
                return

    def at(self, frame: str, root: str, stamp: int) -> tuple[Pose, list[Track]]:
        """Return the pose of a frame in its ancestor, and the tracks in between; raises UnknownMotionError."""
        found, moving, last = Pose(np.eye(3), np.zeros(3)), list[Track](), ''
        for last in self.above(frame):
            if last == root:
                return found, moving
            if last in self._fixed:
                found = self._fixed[last][1].of(found)
            elif last in self._tracks:
                moving.append(self._tracks[last])
                found = moving[-1].at(stamp).of(found)
        raise UnknownMotionError(
            f"tf does not lead from the camera's frame '{foreign(frame)}' to '{foreign(root)}', only to "
            f"'{foreign(last)}'; set odometry.frame and odometry.camera_frame, or odometry.extrinsics"
        )
