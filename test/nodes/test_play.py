"""The program ``play`` as a process, heard over DDS."""

from __future__ import annotations

import re
import shutil
import signal
import time

import numpy as np
import pytest

from moving_object_detector.media.messages import decode_image, decode_message
from moving_object_detector.nodes import commands

# Starting Python and ROS takes seconds on a busy machine.
START = 60


def nanoseconds(stamp):
    return stamp.sec * 10**9 + stamp.nanosec


def spin_until(executor, condition, limit=START):
    deadline = time.monotonic() + limit
    while not condition() and time.monotonic() < deadline:
        executor.spin_once(timeout_sec=0.05)
    return condition()


def finish(process, limit=START):
    out, err = process.communicate(timeout=limit)
    assert 'Traceback' not in err
    return out, err


def test_every_frame_arrives_at_its_pace_on_the_remapped_topic(start, listener, picture_folder, pictures):
    from sensor_msgs.msg import Image

    node, executor = listener
    got, moments = [], []

    def receive(message):
        got.append(message)
        moments.append(time.monotonic())

    node.create_subscription(Image, '/drone/front/image_raw', receive, 50)
    play = start(
        'play', picture_folder, '--fps', 5, '--rate', 2, '--stamp', 'source', '--frame-id', 'front',
        '--wait-for-subscriber', START, '--ros-args', '-r', '__ns:=/drone', '-r', 'camera/image_raw:=front/image_raw',
    )  # fmt: skip
    assert spin_until(executor, lambda: len(got) == 12)
    out, err = finish(play)
    assert play.returncode == 0
    for message, picture in zip(got, pictures, strict=True):
        np.testing.assert_array_equal(decode_image(message), picture)
    assert [nanoseconds(message.header.stamp) for message in got] == [10**9 + k * 2 * 10**8 for k in range(12)]
    assert {message.header.frame_id for message in got} == {'front'}
    assert moments[-1] - moments[0] == pytest.approx(1.1, abs=0.6)
    stated = re.search(r'/drone/front/image_raw: 12 frames published at ([0-9.]+) frames/s \(target: 10\.00\)', out)
    assert stated, out + err
    assert float(stated[1]) == pytest.approx(10, rel=0.3)


def test_clock_agrees_with_the_compressed_images(start, listener, picture_folder, pictures):
    from rosgraph_msgs.msg import Clock
    from sensor_msgs.msg import CompressedImage

    node, executor = listener
    log = []
    node.create_subscription(Clock, '/clock', lambda m: log.append(('clock', nanoseconds(m.clock))), 1000)
    images = []

    def receive(message):
        log.append(('image', nanoseconds(message.header.stamp)))
        images.append(message)

    node.create_subscription(CompressedImage, '/camera/image_raw/compressed', receive, 50)
    play = start('play', picture_folder, '--compressed', '--clock', '--wait-for-subscriber', START)
    assert spin_until(executor, lambda: len(images) == 12)
    finish(play)
    assert play.returncode == 0
    assert np.abs(decode_message(images[3]).astype(int) - pictures[3]).mean() < 8
    clocks = [time for kind, time in log if kind == 'clock']
    stamps = [time for kind, time in log if kind == 'image']
    assert stamps == [10**9 + round(k * 10**9 / 24) for k in range(12)]
    assert clocks == sorted(clocks)
    assert set(stamps) <= set(clocks)
    assert len(clocks) > 2 * len(stamps)  # the time also moves on between frames


def test_a_loop_goes_on_until_it_is_ended(start, listener, picture_folder):
    from sensor_msgs.msg import Image

    node, executor = listener
    stamps = []
    node.create_subscription(Image, '/camera/image_raw', lambda m: stamps.append(nanoseconds(m.header.stamp)), 50)
    play = start('play', picture_folder, '--loop', '--fps', 60, '--stamp', 'source', '--wait-for-subscriber', START)
    assert spin_until(executor, lambda: len(stamps) > 30)
    play.send_signal(signal.SIGINT)
    out, _ = finish(play)
    assert play.returncode == 0
    assert 'frames published' in out
    assert stamps[12] == stamps[24] == stamps[0] == 10**9


def test_stamps_are_the_present_time_by_default_and_best_effort_is_offered(start, listener, picture_folder):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    node, executor = listener
    delays = []

    def receive(message):
        delays.append(time.time() - nanoseconds(message.header.stamp) / 1e9)

    node.create_subscription(Image, '/camera/image_raw', receive, qos_profile_sensor_data)
    override = 'qos_overrides./camera/image_raw.publisher.reliability:=best_effort'
    play = start('play', picture_folder, '--loop', '--wait-for-subscriber', START, '--ros-args', '-p', override)
    assert spin_until(executor, lambda: len(delays) > 5)
    (information,) = node.get_publishers_info_by_topic('/camera/image_raw')
    assert information.qos_profile.reliability.name == 'BEST_EFFORT'
    play.send_signal(signal.SIGINT)
    finish(play)
    assert all(-0.1 < delay < 5 for delay in delays)


def test_a_frame_that_cannot_be_read_ends_it_with_its_name(start, listener, picture_folder, tmp_path):
    from sensor_msgs.msg import Image

    folder = tmp_path / 'frames'
    shutil.copytree(picture_folder, folder)
    (folder / 'frame7.png').write_bytes(b'broken')
    node, executor = listener
    got = []
    node.create_subscription(Image, '/camera/image_raw', got.append, 50)
    play = start('play', folder, '--wait-for-subscriber', START)
    assert spin_until(executor, lambda: play.poll() is not None)
    out, err = finish(play)
    assert play.returncode == 2
    assert re.search(r'^error: .*frame7\.png: not an image', err, re.MULTILINE)
    assert '7 frames published' in out
    assert spin_until(executor, lambda: len(got) == 7, limit=5)


def test_frames_that_cannot_be_read_are_left_out_when_asked(start, listener, picture_folder, tmp_path):
    from sensor_msgs.msg import Image

    folder = tmp_path / 'frames'
    shutil.copytree(picture_folder, folder)
    (folder / 'frame7.png').write_bytes(b'broken')
    node, executor = listener
    stamps = []
    node.create_subscription(Image, '/camera/image_raw', lambda m: stamps.append(nanoseconds(m.header.stamp)), 50)
    play = start('play', folder, '--keep-going', '--fps', 20, '--stamp', 'source', '--wait-for-subscriber', START)
    assert spin_until(executor, lambda: len(stamps) == 11)
    out, err = finish(play)
    assert play.returncode == 0
    assert '11 frames published' in out
    assert re.search(r'frame skipped: .*frame7\.png: not an image', err)
    # The others keep their times.
    assert stamps == [10**9 + k * 50_000_000 for k in range(12) if k != 7]


def test_nobody_listens(start, picture_folder):
    play = start('play', picture_folder, '--wait-for-subscriber', '0.5', '--topic', 'camera/image')
    out, err = finish(play)
    assert play.returncode == 2
    assert 'waiting for a subscriber on /camera/image' in err
    assert 'error: nobody subscribed to /camera/image within 0.5 s' in err
    assert 'published' not in out


def test_ros_arguments_that_are_wrong(start, picture_folder):
    play = start('play', picture_folder, '--ros-args', '-r', 'nonsense')
    _, err = finish(play)
    assert play.returncode == 2
    assert "error: ROS does not accept '--ros-args -r nonsense'" in err


def test_mistakes_are_told_before_anything_starts(tmp_path, capsys):
    assert commands.play([str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: no such file or folder' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments', [['--rate', '0'], ['--rate', '-1'], ['--wait-for-subscriber', '-1'], ['--clock', '--stamp', 'now']]
)
def test_arguments_that_are_wrong(arguments, capsys):
    with pytest.raises(SystemExit):
        commands.play(['folder', *arguments])
    assert 'usage: play' in capsys.readouterr().err
