"""The programs ``play`` and ``record`` as processes that talk over DDS."""

from __future__ import annotations

import importlib.util
import re
import signal
import time

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from moving_object_detector.media.sources import open_source
from moving_object_detector.nodes import commands

START = 60


def finish(process, limit=START):
    out, err = process.communicate(timeout=limit)
    assert 'Traceback' not in err
    return out, err


def test_what_is_played_is_recorded(start, picture_folder, pictures, tmp_path):
    record = start(
        'record', '--video', tmp_path / 'clip.mp4', '--overlay', 'image', '--bag', tmp_path / 'bag', '--mask', 'image',
        '--also', '/clock', '--also', '/nobodys',
    )  # fmt: skip
    play = start(
        'play',
        picture_folder,
        '--topic',
        'image',
        '--fps',
        12.5,
        '--clock',
        '--wait-for-subscriber',
        START,
    )
    finish(play)
    time.sleep(2)
    record.send_signal(signal.SIGINT)
    out, err = finish(record)
    assert (play.returncode, record.returncode) == (0, 0)
    assert '12 frames at 12.5 frames/s' in out, out + err
    assert '12 messages of /image' in out
    assert '/nobodys: not recorded' in out
    bag = open_source(tmp_path / 'bag')
    for frame, picture in zip(bag, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    assert [frame.stamp for frame in bag] == [10**9 + k * 80_000_000 for k in range(12)]
    with AnyReader([tmp_path / 'bag']) as reader:
        times = {topic: [] for topic in reader.topics}
        for connection, moment, _ in reader.messages():
            times[connection.topic].append(moment)
    assert times['/image'] == [frame.stamp for frame in bag]  # the bag's time is the header's
    assert abs(times['/clock'][0] - time.time_ns()) < 600 * 10**9  # no header: when it came
    video = open_source(tmp_path / 'clip.mp4')
    assert video.fps == 12.5
    for frame, picture in zip(video, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 12


def test_it_ends_after_so_many_frames(start, picture_folder, tmp_path):
    record = start(
        'record', '--bag', tmp_path / 'bag', '--storage', 'sqlite3', '--frames', 5,
        '--ros-args', '-r', 'detect/mask:=image',
    )  # fmt: skip
    start('play', picture_folder, '--topic', 'image', '--loop')
    out, _ = finish(record)
    assert record.returncode == 0
    assert '5 messages of /image' in out
    assert open_source(tmp_path / 'bag').frame_count == 5


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_files_are_complete_after_a_signal(start, picture_folder, tmp_path, number):
    record = start(
        'record', '--video', tmp_path / 'clip.mp4', '--overlay', 'image', '--bag', tmp_path / 'bag', '--mask', 'image'
    )
    play = start('play', picture_folder, '--topic', 'image', '--loop', '--wait-for-subscriber', START)
    deadline = time.monotonic() + START
    while not (tmp_path / 'clip.mp4').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    record.send_signal(number)
    finish(record)
    assert record.returncode == 0
    play.send_signal(signal.SIGINT)
    finish(play)
    assert sum(1 for _ in open_source(tmp_path / 'clip.mp4')) >= 8
    assert sum(1 for _ in open_source(tmp_path / 'bag')) >= 8


def test_nothing_comes(start, tmp_path):
    record = start('record', '--video', tmp_path / 'clip.mp4', '--bag', tmp_path / 'bag')
    said = ''
    while 'nobody publishes' not in said:
        said = record.stderr.readline()
        assert said
    assert 'nobody publishes /detect/overlay; nobody publishes /detect/mask' in said
    record.send_signal(signal.SIGINT)
    out, _ = finish(record)
    assert record.returncode == 0
    assert 'nothing was written' in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec('rclpy') is None, reason='rclpy is not installed here')
def test_files_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / 'bag').mkdir()
    assert commands.record(['--bag', str(tmp_path / 'bag')]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert commands.record(['--video', str(tmp_path / 'clip.avi')]) == 2
    assert 'ends in .mp4' in capsys.readouterr().err


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['--frames', '0', '--bag', 'x'],
        ['--video', 'x.mp4', '--also', '/y'],
        ['--video', 'x.mp4', '--overwrite'],
        ['--bag', 'x', '--fps', '10'],
        ['--bag', 'x', '--overlay', '/y'],
    ],
)
def test_arguments_that_are_wrong(arguments, capsys):
    with pytest.raises(SystemExit):
        commands.record(arguments)
    assert 'usage: record' in capsys.readouterr().err


def test_what_was_published_before_and_once_is_recorded(start, listener, picture_folder, tmp_path):
    """As /tf_static is, and a sensor's topic with best effort."""
    from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
    from std_msgs.msg import String

    node, _ = listener
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    loose = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
    once = node.create_publisher(String, '/description', latched)
    once.publish(String(data='a robot'))
    sensor = node.create_publisher(String, '/sensor', loose)
    topics = [word for topic in ('/description', '/sensor', 'image') for word in ('--also', topic)]
    record = start('record', '--bag', tmp_path / 'bag', '--mask', 'image', *topics)
    play = start('play', picture_folder, '--topic', 'image', '--fps', 12.5, '--wait-for-subscriber', START)
    while play.poll() is None:
        sensor.publish(String(data='near'))
        time.sleep(0.05)
    time.sleep(1)
    record.send_signal(signal.SIGINT)
    out, err = finish(record)
    assert '1 messages of /description' in out, out + err
    assert '12 messages of /image' in out  # not twice
    assert re.search(r'[1-9]\d* messages of /sensor', out)


@pytest.mark.parametrize('arguments', [['--mask', '/mask/'], ['--also', '/my-topic']])
def test_a_name_that_no_topic_can_have(start, tmp_path, arguments):
    record = start('record', '--bag', tmp_path / 'bag', *arguments)
    _, err = finish(record)
    assert record.returncode == 2
    assert 'is not a valid name' in err
