"""What claims to know the camera: messages of any content are said or used, cost little, and never break a frame."""

from __future__ import annotations

import random
import tracemalloc
from types import SimpleNamespace as Message

import numpy as np
import pytest

from moving_object_detector.detection import poses
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.flow.travel import estimate_travel

SECOND = 10**9
IMAGE = 33_000_000
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, 1e30, 1e160, -1e300, 1.7e308, float('inf'), float('-inf'), float('nan'))
NAMES = ('odom', 'base', 'optical', '/odom', '', 'map', '\x1b[2Jodom\nroot: ', 'é' * 50, 'x' * 100_000, 'odom ')
TURNS = ((0, 0, 0, 1), (0, 0, 0, 0), (1, 0, 0, 0), (0.5, 0.5, 0.5, 0.5), (0, 0, 0, 1.05), (1e200, 0, 0, 1e200))
STAMPS = ((0, 0), (-(2**31), 0), (2**31 - 1, 2**32 - 1), (2**31 - 1, 0), (1, 2**32 - 1), (-1, 999_999_999))
MODELS = ('plumb_bob', 'equidistant', 'rational_polynomial', '', 'omni', '\x1b[31m', 'x' * 100_000)


def vector(values, names='xyz'):
    return Message(**dict(zip(names, map(float, values), strict=True)))


class Liar:
    """Messages that are right but for what chance has changed."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.now = SECOND

    def lies(self, share=0.25):
        return self.rng.random() < share

    def header(self, frame):
        rng = self.rng
        sec, nanosec = divmod(self.now + rng.randrange(-IMAGE, 1), SECOND)
        if self.lies(0.1):
            sec, nanosec = rng.choice(STAMPS)
        return Message(stamp=Message(sec=sec, nanosec=nanosec), frame_id=rng.choice(NAMES) if self.lies(0.1) else frame)

    def place(self):
        rng = self.rng
        usual = (self.now / SECOND, 0.0, 1.0)
        return [rng.choice(NUMBERS) if self.lies(0.05) else one for one in usual]

    def turn(self):
        rng = self.rng
        if self.lies(0.1):
            return rng.choice(TURNS)
        return [rng.choice(NUMBERS) if self.lies(0.02) else one for one in (0.0, 0.0, 0.0, 1.0)]

    def transforms(self):
        rng = self.rng
        pairs = [('odom', 'base'), ('base', 'optical'), ('optical', 'odom'), ('base', 'base'), ('odom', 'optical')]
        found = []
        for _ in range(rng.randrange(4)):
            parent, child = rng.choice(pairs) if self.lies() else pairs[0]
            if self.lies(0.1):
                child = f'{rng.choice(NAMES)}{rng.randrange(10**6)}'
            pose = Message(translation=vector(self.place()), rotation=vector(self.turn(), 'xyzw'))
            found.append(Message(header=self.header(parent), child_frame_id=child, transform=pose))
        return Message(transforms=found)

    def odometry(self):
        pose = Message(position=vector(self.place()), orientation=vector(self.turn(), 'xyzw'))
        child = self.rng.choice(NAMES) if self.lies(0.1) else 'base'
        return Message(header=self.header('odom'), child_frame_id=child, pose=Message(pose=pose))

    def info(self):
        rng = self.rng
        k, p = [500.0, 0, 319.5, 0, 500.0, 239.5, 0, 0, 1], [450.0, 0, 319.5, 0, 0, 450.0, 239.5, 0, 0, 0, 1, 0]
        d = [0.0] * 5
        for numbers in (k, p, d):
            if self.lies(0.2):
                numbers[rng.randrange(len(numbers))] = rng.choice(NUMBERS)
        if self.lies(0.2):
            d = [rng.choice((*NUMBERS, 1e-3)) for _ in range(rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 12, 14, 15, 10_000)))]
        size = (640, 480) if not self.lies(0.1) else (rng.choice((0, 640, 2**32 - 1)), rng.choice((0, 480)))
        return Message(
            header=self.header('optical'), width=size[0], height=size[1], k=np.array(k), p=np.array(p), d=np.array(d),
            distortion_model=rng.choice(MODELS) if self.lies(0.2) else 'plumb_bob',
        )  # fmt: skip


CONFIGS = [{'frame': 'odom'}, {'topic': '/odom'}, {'topic': '/odom', 'extrinsics': '0.3 0 0 -0.5 0.5 -0.5 0.5'}]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('config', CONFIGS)
def test_whatever_is_told_the_motion_is_finite_or_unknown(config, effort):
    known = 0
    for seed in range(int(20 * effort)):
        liar, odometry = Liar(seed), Odometry(OdometryConfig(**config))
        odometry.rectified = liar.rng.random() < 0.5
        mount = Message(translation=vector((0.3, 0, 0)), rotation=vector((-0.5, 0.5, -0.5, 0.5), 'xyzw'))
        mount = Message(header=liar.header('base'), child_frame_id='optical', transform=mount)
        odometry.add_transforms(Message(transforms=[mount]), static=True)
        for _ in range(60):
            liar.now += IMAGE
            for _ in range(4):
                odometry.add_transforms(liar.transforms(), static=liar.lies(0.05))
                odometry.add_odometry(liar.odometry())
            odometry.add_camera_info(liar.info())
            camera = odometry.camera((480, 640), (24, 48))
            motion = odometry.motion(liar.now - 2 * IMAGE, liar.now - IMAGE)
            assert all(text.isprintable() and len(text) < 1000 for text in odometry.report().values())
            assert odometry.trouble.isprintable()
            if camera is None or motion is None:
                continue
            known += 1
            assert np.isfinite(camera).all()
            assert np.allclose(motion.rotation @ motion.rotation.T, np.eye(3), atol=1e-6)
            assert np.isfinite(motion.translation).all()
            if known % 20 == 1:
                flow = np.random.default_rng(seed).normal(0, 1, (2, 24, 48)).astype(np.float32)
                travel = estimate_travel(flow, np.ones((24, 48), np.float32), camera, motion)
                odometry.compare(travel, travel)
                assert np.isfinite(travel.weights()).all()
    print(f'{config}: the motion was known {known} times')
    assert known > 0


def told(odometry, stamp, parent='odom', child='base', place=(0, 0, 1), static=False):
    header = Message(stamp=Message(sec=stamp // SECOND, nanosec=stamp % SECOND), frame_id=parent)
    pose = Message(translation=vector(place), rotation=vector((0, 0, 0, 1), 'xyzw'))
    odometry.add_transforms(
        Message(transforms=[Message(header=header, child_frame_id=child, transform=pose)]), static=static
    )


@pytest.mark.parametrize('flood', ['names', 'names of static frames', 'long names', 'moments', 'parents', 'poses'])
def test_a_flood_of_frames_takes_bounded_memory_and_the_motion_stays_known(flood, monkeypatch):
    if flood == 'poses':
        monkeypatch.setattr(poses, 'MOST_POSES', 2000)
    odometry = Odometry(OdometryConfig(frame='odom', camera_frame='optical'))
    odometry.add_camera_info(Liar(0).info())
    odometry.set_camera((480, 640), np.array(((500.0, 0, 320), (0, 500, 240), (0, 0, 1))))
    odometry.camera((480, 640), (24, 48))
    told(odometry, 0, 'base', 'optical', static=True)
    rng = random.Random(1)
    now = SECOND
    sizes = []
    tracemalloc.start()
    for number in range(8000):
        if number % 50 == 0:
            now += IMAGE // 2
            told(odometry, now, place=(now / SECOND, 0, 1))
        match flood:
            case 'names' | 'names of static frames':
                told(odometry, now, 'base', f'frame {number}', static='static' in flood)
            case 'long names':
                told(odometry, now, 'base', f'{number}' * 1000)
            case 'moments':
                told(odometry, now - rng.randrange(SECOND // 2), 'base', 'gripper')
            case 'poses':
                told(odometry, now - rng.randrange(SECOND // 2), 'base', f'frame {number % 300}')
            case 'parents':
                told(odometry, now, f'frame {number}', 'gripper')
        if number % 2000 == 1999:
            sizes.append(tracemalloc.get_traced_memory()[0] / 1e6)
    tracemalloc.stop()
    assert odometry.motion(now - 2 * IMAGE, now - IMAGE) is not None, odometry.trouble
    assert max(sizes) < 3, 'MB'


def test_a_jump_of_a_frame_that_the_camera_does_not_hang_on_is_nothing():
    odometry = Odometry(OdometryConfig(frame='odom', camera_frame='base'))
    odometry.set_camera((480, 640), np.array(((500.0, 0, 320), (0, 500, 240), (0, 0, 1))))
    odometry.camera((480, 640), (24, 48))
    for number in range(40):
        told(odometry, SECOND + number * IMAGE, place=(number, 0, 1))
        told(odometry, SECOND + number * IMAGE, 'base', 'gripper', (0, 0, 50 * (number == 30)))
    assert odometry.motion(SECOND + 29 * IMAGE, SECOND + 31 * IMAGE) is not None, odometry.trouble


def test_a_motion_that_no_camera_makes_is_not_believed():
    for step in ((1e6, 0, 0), (float('inf'), 0, 0)):
        odometry = Odometry(OdometryConfig(frame='odom', camera_frame='base'))
        odometry.set_camera((480, 640), np.array(((500.0, 0, 320), (0, 500, 240), (0, 0, 1))))
        odometry.camera((480, 640), (24, 48))
        for number in range(40):
            told(odometry, SECOND + number * IMAGE, place=[number * one for one in step])
        assert odometry.motion(SECOND + 29 * IMAGE, SECOND + 31 * IMAGE) is None
        assert odometry.trouble
