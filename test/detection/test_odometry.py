"""What odometry, tf and CameraInfo tell of the camera's motion, against poses by hand, whole and spoilt."""

from __future__ import annotations

from types import SimpleNamespace as Message

import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.odometry import SAID, Odometry
from moving_object_detector.detection.rigid import PairTravel
from moving_object_detector.media.frames import LATEST

SECOND = 10**9
# The optical frame of a camera that looks along x of its body: z forward, x to the right, y down.
OPTICAL = (-0.5, 0.5, -0.5, 0.5)


def header(stamp, frame='odom'):
    return Message(stamp=Message(sec=stamp // SECOND, nanosec=stamp % SECOND), frame_id=frame)


def vector(values, names='xyz'):
    return Message(**dict(zip(names, map(float, values), strict=True)))


def about_z(angle):
    return (0.0, 0.0, np.sin(angle / 2), np.cos(angle / 2))


def transform(stamp, parent, child, place, turn=(0, 0, 0, 1)):
    pose = Message(translation=vector(place), rotation=vector(turn, 'xyzw'))
    return Message(header=header(stamp, parent), child_frame_id=child, transform=pose)


def info(width=640, height=480, focal=500.0, **changes):
    k = np.array((focal, 0, 319.5, 0, focal, 239.5, 0, 0, 1))
    p = np.array((0.9 * focal, 0, 319.5, 0, 0, 0.9 * focal, 239.5, 0, 0, 0, 1, 0))
    fields = {'header': header(0, 'optical'), 'width': width, 'height': height, 'k': k, 'p': p, 'd': np.zeros(5)}
    return Message(**{**fields, 'distortion_model': 'plumb_bob', **changes})


def flying(turn_rate=0.0, speed=2.0, seconds=2.0, rate=50, offset=0, **config):
    """Return what is told of a body that flies along x of odom and turns about z, with its camera 0.3 m in front."""
    odometry = Odometry(OdometryConfig(frame='odom', **config))
    odometry.add_camera_info(info())
    odometry.add_transforms(Message(transforms=[transform(0, 'base', 'optical', (0.3, 0, 0), OPTICAL)]), static=True)
    for index in range(int(seconds * rate)):
        time = index / rate
        stamp = SECOND + int(time * SECOND) + offset
        pose = transform(stamp, 'odom', 'base', (speed * time, 0, 1), about_z(turn_rate * time))
        odometry.add_transforms(Message(transforms=[pose]))
    odometry.camera((480, 640), (96, 192))
    return odometry


def test_forward_flight_is_along_the_optical_axis_between_poses_too() -> None:
    # Neither stamp is that of a pose, which are 20 ms apart.
    motion = flying().motion(SECOND + 1_003_000_000, SECOND + 1_036_000_000)
    assert motion is not None
    assert motion.translation == pytest.approx((0, 0, 2.0 * 0.033), abs=1e-9)
    assert motion.rotation == pytest.approx(np.eye(3), abs=1e-9)


def test_a_turn_to_the_left_and_the_lever_of_the_mount() -> None:
    motion = flying(turn_rate=0.5, speed=0.0).motion(2 * SECOND, 2 * SECOND + 100_000_000)
    assert motion is not None
    # What was ahead is to the right now: the other camera's axis points left of this one's.
    assert motion.rotation[:, 2] == pytest.approx((-np.sin(0.05), 0, np.cos(0.05)), abs=1e-6)
    assert motion.translation == pytest.approx((-0.3 * np.sin(0.05), 0, 0.3 * (np.cos(0.05) - 1)), abs=1e-6)


def test_odometry_with_extrinsics_says_the_same_as_tf() -> None:
    told = Odometry(OdometryConfig(topic='/odom', extrinsics='0.3 0 0 -0.5 0.5 -0.5 0.5'))
    told.add_camera_info(info())
    for index in range(50):
        time = index / 50
        pose = Message(position=vector((2 * time, 0, 1)), orientation=vector(about_z(0.5 * time), 'xyzw'))
        stamp = SECOND + int(time * SECOND)
        told.add_odometry(Message(header=header(stamp), child_frame_id='base', pose=Message(pose=pose)))
    stamps = SECOND + 510_000_000, SECOND + 550_000_000
    one, other = told.motion(*stamps), flying(turn_rate=0.5).motion(*stamps)
    assert one is not None
    assert other is not None
    assert one.translation == pytest.approx(other.translation)
    assert one.rotation == pytest.approx(other.rotation)


def test_without_any_source_nothing_is_known_and_nothing_is_wrong() -> None:
    odometry = Odometry(OdometryConfig())
    assert odometry.camera((480, 640), (96, 192)) is None
    assert odometry.motion(1, 2) is None
    assert odometry.trouble == ''


@pytest.mark.parametrize(
    ('spoilt', 'stamp', 'word'),
    [
        (flying(), 4 * SECOND, 'lags'),
        (flying(), SECOND // 2, 'begins after'),
        (flying(offset=-1000 * SECOND), 2 * SECOND, 'clock'),
        (flying(camera_frame='elsewhere'), 2 * SECOND, 'odometry.camera_frame'),
        (Odometry(OdometryConfig(frame='odom')), SECOND, 'camera_info'),
        (flying(rate=1, seconds=4.0), 2 * SECOND + 1, 'hole'),
    ],
)
def test_what_is_spoilt_is_said_and_the_motion_is_not_known(spoilt, stamp, word) -> None:
    assert spoilt.motion(stamp, stamp + 40_000_000) is None
    assert word in spoilt.trouble


def test_a_jump_is_said_and_forgotten_when_it_has_passed() -> None:
    odometry = flying()
    for index in range(100):
        place = (4 + 2 * index / 50 + 0.5, 0, 1)
        pose = transform(3 * SECOND + index * SECOND // 50, 'odom', 'base', place)
        odometry.add_transforms(Message(transforms=[pose]))
    before, after = 3 * SECOND - 30_000_000, 3 * SECOND + 10_000_000
    assert odometry.motion(before, after) is None
    assert 'jumps' in odometry.trouble
    assert odometry.motion(before - SECOND, after - SECOND) is not None
    assert 'jumps' not in odometry.report()['motion']
    # Who looks once a second has to see it.
    assert 'jumps' in odometry.trouble
    for _ in range(SAID):
        assert odometry.motion(before + SECOND, after + SECOND) is not None
    assert odometry.trouble == ''


def test_a_bag_that_loops_starts_the_poses_anew() -> None:
    odometry = flying()
    first = transform(SECOND // 2, 'odom', 'base', (0, 0, 1))
    second = transform(SECOND // 2 + 20_000_000, 'odom', 'base', (0.04, 0, 1))
    odometry.add_transforms(Message(transforms=[first, second]))
    assert odometry.motion(SECOND // 2, SECOND // 2 + 20_000_000) is not None


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (0, 0, 0, np.nan), (3, 0, 0, 1)])
def test_a_pose_that_is_none_is_left_out(quaternion) -> None:
    odometry = flying()
    pose = transform(2 * SECOND + 970_000_000, 'odom', 'base', (0, 0, 0), quaternion)
    odometry.add_transforms(Message(transforms=[pose]))
    motion = odometry.motion(2 * SECOND + 960_000_000, 2 * SECOND + 980_000_000)
    assert motion is not None
    assert motion.translation[2] == pytest.approx(0.04)
    assert odometry.trouble == ''


def test_poses_that_are_none_are_the_reason_only_on_the_way_to_the_camera() -> None:
    odometry = flying()
    late = 4 * SECOND
    gripper = transform(late, 'base', 'gripper', (0, 0, 0), (0, 0, 0, 0))
    odometry.add_transforms(Message(transforms=[gripper]))
    assert odometry.motion(late, late + 40_000_000) is None
    assert 'lags' in odometry.trouble
    base = transform(late, 'odom', 'base', (0, 0, 0), (0, 0, 0, 0))
    odometry.add_transforms(Message(transforms=[base]))
    assert odometry.motion(late, late + 40_000_000) is None
    assert 'quaternion' in odometry.trouble
    assert 'gripper' not in odometry.trouble


def test_what_cannot_be_heard_stays_the_reason() -> None:
    odometry = flying(camera_frame='elsewhere')
    odometry.deaf = 'tf2_msgs is not installed'
    assert odometry.motion(2 * SECOND, 2 * SECOND + 40_000_000) is None
    assert odometry.trouble == 'tf2_msgs is not installed'


def test_intrinsics_are_scaled_to_the_flow() -> None:
    camera = flying().camera((480, 640), (96, 192))
    assert camera is not None
    assert camera == pytest.approx((150, 100, 96, 48))


def test_rectified_images_have_the_focal_length_of_p() -> None:
    odometry = Odometry(OdometryConfig())
    odometry.rectified = True
    odometry.add_camera_info(info(d=np.array((-0.4, 0.2, 0, 0, 0))))
    camera = odometry.camera((480, 640), (96, 192))
    assert camera is not None
    assert camera.fx == pytest.approx(135)


@pytest.mark.parametrize(
    ('wrong', 'word'),
    [
        (info(width=1280, height=960), '1280x960'),
        (info(k=np.zeros(9)), 'focal length'),
        (info(k=np.full(9, np.nan)), 'focal length'),
        (info(d=np.array((-0.4, 0.2, 0, 0, 0))), 'rectified'),
        (info(d=np.array((0.1, 0, 0, 0)), distortion_model='equidistant'), 'rectified'),
    ],
)
def test_a_wrong_camera_info_is_said_and_not_used(wrong, word) -> None:
    odometry = flying()
    odometry.add_camera_info(wrong)
    assert odometry.camera((480, 640), (96, 192)) is None
    assert word in odometry.trouble
    assert odometry.motion(2 * SECOND, 2 * SECOND + 40_000_000) is None
    assert odometry.report()['intrinsics'] == 'assumed'


@pytest.mark.parametrize('text', ['front', '0 0 0', '0 0 0 0 0 0 0', '1 2 3 4 5 6 7 8', '0 0 nan 0 0 0 1'])
def test_extrinsics_that_are_none_are_refused(text) -> None:
    with pytest.raises(UserError, match=r'odometry\.extrinsics'):
        Odometry(OdometryConfig(extrinsics=text))


def test_motion_that_the_flow_contradicts_is_doubted_until_it_is_right_again() -> None:
    size = (96, 192)

    def travels(odometry: Odometry, speed: float) -> list[bool]:
        """Return of pairs one after the other whether the known motion was taken; the flow is that of a speed."""
        camera = odometry.camera((480, 640), size)
        assert camera is not None
        ys, xs = np.mgrid[0 : size[0], 0 : size[1]]
        # Flight along the optical axis, or across it, past things that are 8 pixels long and differently near.
        nearness = np.kron(np.random.default_rng(1).uniform(0.05, 0.5, (12, 24)), np.ones((8, 8)))
        away = np.stack(((xs - camera.cx) * nearness, (ys - camera.cy) * nearness)) * 0.08
        across = np.stack((nearness * camera.fx, np.zeros(size))) * 0.08
        flow = (away if speed > 0 else across).astype(np.float32)
        taken = []
        for pair in range(60):
            here = SECOND + pair * 20_000_000
            pair_travel = PairTravel((here, here + 40_000_000), camera, odometry)
            travel = pair_travel.toward(1, flow, np.ones(size, np.float32))
            taken.append(travel.motion is not None)
        return taken

    odometry = flying()
    assert all(travels(odometry, 1.0))
    for _ in range(4):
        wrong = travels(odometry, -1.0)
    assert not any(wrong[-20:])
    assert 'odometry.camera_frame' in odometry.trouble
    for _ in range(4):
        right = travels(odometry, 1.0)
    assert all(right[-20:])


def test_camera_info_is_beside_its_images() -> None:
    odometry = Odometry(OdometryConfig())
    assert odometry.see('/front/image_raw') == odometry.see('/front/image_raw/compressed') == '/front/camera_info'
    assert not odometry.rectified
    assert odometry.see('/front/image_rect_color/compressed') == '/front/camera_info'
    assert odometry.rectified
    assert Odometry(OdometryConfig(camera_info='none')).see('/front/image_raw') == ''
    assert Odometry(OdometryConfig(camera_info='/k')).see('/front/image_raw') == '/k'


def test_a_long_recording_is_known_from_its_beginning_to_its_end() -> None:
    odometry = Odometry(OdometryConfig(frame='odom', camera_frame='optical'), kept=LATEST)
    odometry.add_camera_info(info())
    odometry.camera((480, 640), (480, 640))
    step = SECOND // 200  # twenty minutes of one frame at 200 Hz
    for index in range(240_000):
        odometry.add_transforms(
            Message(transforms=[transform(SECOND + index * step, 'odom', 'optical', (index, 0, 0))])
        )
    for second in (2, 600, 1190):
        motion = odometry.motion(second * SECOND, second * SECOND + 10 * step)
        assert motion is not None, odometry.trouble
        assert motion.translation == pytest.approx((10, 0, 0))
