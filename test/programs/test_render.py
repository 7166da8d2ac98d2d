from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from moving_object_detector.media.pictures import read_flow
from moving_object_detector.programs.clips import quaternion
from moving_object_detector.programs.commands import render as main
from moving_object_detector.synthetic.flight import FlightOptions, flight


def test_flow_is_written_when_asked_for_only(tmp_path):
    assert main([str(tmp_path), '--frames', '1', '--height', '32', '--width', '32']) == 0
    names = ['camera.json', 'depth', 'frames', 'instances', 'masks', 'trajectory.txt']
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len(list((tmp_path / 'frames').iterdir())) == 1


FLIGHT = ['--motion', 'orbit', '--frames', '3', '--seed', '5', '--height', '60', '--width', '100']


@pytest.fixture(scope='module')
def flown(tmp_path_factory):
    """A flight's folder, and the flight: however few frames are wanted, it is the one of the options' length."""
    out = tmp_path_factory.mktemp('flight')
    assert main([str(out), *FLIGHT, '--flow', '--bag']) == 0
    return out, flight(5, FlightOptions((60, 100), False, 'orbit'))


def test_files_of_a_flight_are_its_truth(flown):
    out, scene = flown
    for time in range(3):
        view = scene.frame(time)

        def read(folder, suffix='png', time=time):
            return cv2.imread(str(out / folder / f'{time:05d}.{suffix}'), cv2.IMREAD_UNCHANGED)

        assert np.array_equal(read('frames')[:, :, ::-1], view.image)
        assert np.array_equal(read('masks'), np.where(view.mask, 255, 0))
        assert np.array_equal(read('instances'), view.instances)
        assert np.array_equal(read('depth', 'tiff'), view.depth)
        assert np.array_equal(read('occluded'), np.where(scene.occluded(time, time + 1), 255, 0))
        flow = read_flow(out / 'flow' / f'{time:05d}.flo')
        assert np.array_equal(flow, np.nan_to_num(scene.flow(time, time + 1), nan=1e10))
    camera = json.loads((out / 'camera.json').read_text())
    assert np.allclose(camera['intrinsics'], scene.intrinsics)
    assert (camera['motion'], camera['fps'], camera['seed']) == ('orbit', scene.fps, 5)


def as_matrix(x, y, z, w):
    """The rotation of a unit quaternion, by the textbook's formula."""
    return np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
    )


def test_the_trajectory_is_that_of_the_optical_frame(flown):
    out, scene = flown
    rows = np.loadtxt(out / 'trajectory.txt')
    for time, (stamp, *numbers) in enumerate(rows):
        assert stamp - rows[0][0] == pytest.approx(time / scene.fps, abs=1e-5)
        assert np.allclose(numbers[:3], scene.pose(time)[:3, 3], atol=1e-8)
        assert np.allclose(as_matrix(*numbers[3:]), scene.pose(time)[:3, :3], atol=1e-7)


def test_quaternions_of_half_turns():
    for turn in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0.6, 0, 0.8, 0), (0.5, -0.5, 0.5, 0.5)):
        assert np.allclose(as_matrix(*quaternion(as_matrix(*turn))), as_matrix(*turn), atol=1e-12)


def test_the_bag_of_a_flight_holds_images_camera_truth_and_transforms(flown):
    out, scene = flown
    found = {}
    with AnyReader([out / 'bag']) as reader:
        for connection, stamp, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((stamp, message))
    assert {topic: len(messages) for topic, messages in found.items()} == {
        '/camera/image_raw': 3, '/camera/camera_info': 3, '/truth': 3, '/tf': 3,
    }  # fmt: skip
    for time in range(3):
        (stamp, image), (_, info), (_, truth), (_, tree) = (
            found[topic][time] for topic in ('/camera/image_raw', '/camera/camera_info', '/truth', '/tf')
        )
        (transform,) = tree.transforms
        headers = [message.header for message in (image, info, truth, transform)]
        assert {header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers} == {stamp}
        assert [header.frame_id for header in headers] == ['camera_optical_frame'] * 3 + ['odom']
        assert transform.child_frame_id == 'camera_optical_frame'
        assert (image.encoding, image.height, image.width) == ('rgb8', 60, 100)
        assert np.array_equal(image.data.reshape(60, 100, 3), scene.image(time))
        assert np.array_equal(truth.data.reshape(60, 100), np.where(scene.mask(time), 255, 0))
        assert np.allclose(info.k.reshape(3, 3), scene.intrinsics)
        assert np.allclose(info.p.reshape(3, 4)[:, :3], scene.intrinsics)
        assert (info.height, info.width) == (60, 100)
        place, turn = transform.transform.translation, transform.transform.rotation
        assert np.allclose((place.x, place.y, place.z), scene.pose(time)[:3, 3])
        assert np.allclose(as_matrix(turn.x, turn.y, turn.z, turn.w), scene.pose(time)[:3, :3])


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (['--motion', 'dance'], '--motion is dance, but takes takeoff'),
        (['--parallax', '-1'], '--parallax is -1.0'),
        (['--parallax', 'nan'], '--parallax is nan'),
        (['--seed', '-1'], '--seed takes 0 or more'),
        (['--height', '31'], '--height and --width 32 or more'),
        (['--width', '8'], '--height and --width 32 or more'),
    ],
)
def test_options_of_flights_that_make_no_sense(tmp_path, capsys, wrong, said):
    assert main([str(tmp_path / 'clip'), *wrong]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / 'clip').exists()


def test_no_frames(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), '--frames', '0'])
    assert stopped.value.code == 2
    assert '--frames: 0 is not above 0' in capsys.readouterr().err


def test_a_file_in_place_of_the_folder(tmp_path, capsys):
    (tmp_path / 'clip').write_text('')
    assert main([str(tmp_path / 'clip'), *FLIGHT]) == 2
    assert 'clip/frames cannot be made a folder' in capsys.readouterr().err


def test_two_flights_are_not_mixed_in_one_folder(tmp_path, capsys):
    small = ['--height', '64', '--width', '96']
    assert main([str(tmp_path), *small, '--frames', '3', '--flow']) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob('*.png')}
    for more in (['--frames', '2', '--flow'], ['--frames', '3']):  # fewer frames; flow that is not written again
        assert main([str(tmp_path), *small, '--seed', '2', *more]) == 2
        assert 'earlier flight' in capsys.readouterr().err
        assert {path: path.read_bytes() for path in tmp_path.rglob('*.png')} == before
    assert main([str(tmp_path), *small, '--seed', '2', '--frames', '3', '--flow']) == 0
