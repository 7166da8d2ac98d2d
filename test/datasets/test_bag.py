"""Bags written with the rosbags library alone, then read through the project."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.sources import open_source

ROS2 = get_typestore(Stores.ROS2_JAZZY)
ROS1 = get_typestore(Stores.ROS1_NOETIC)
IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
STRING = 'std_msgs/msg/String'


def header(types, stamp):
    time = types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
    extra = {'seq': 0} if types is ROS1.types else {}
    return types['std_msgs/msg/Header'](stamp=time, frame_id='camera', **extra)


def raw_image(types, stamp, rgb, encoding='bgr8', padding=6):
    pixels = rgb[..., ::-1] if encoding == 'bgr8' else rgb
    height, width = pixels.shape[:2]
    rows = np.full((height, 3 * width + padding), 0xAA, np.uint8)
    rows[:, : 3 * width] = pixels.reshape(height, -1)
    return types[IMAGE](
        header=header(types, stamp),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def png_image(types, stamp, rgb):
    data = cv2.imencode('.png', rgb[..., ::-1])[1].reshape(-1)
    return types[COMPRESSED](header=header(types, stamp), format='png', data=data)


def write_ros2(path, topics, *, plugin=StoragePlugin.MCAP, version=9):
    """Write {topic: (type, [(time, message)])}."""
    with Writer(path, version=version, storage_plugin=plugin) as writer:
        for topic, (kind, messages) in topics.items():
            connection = writer.add_connection(topic, kind, typestore=ROS2)
            for time, message in messages:
                writer.write(connection, time, ROS2.serialize_cdr(message, kind))
    return path


def write_ros1(path, topics):
    with Writer1(path) as writer:
        for topic, (kind, messages) in topics.items():
            connection = writer.add_connection(topic, kind, typestore=ROS1)
            for time, message in messages:
                writer.write(connection, time, ROS1.serialize_ros1(message, kind))
    return path


def stamps(count):
    """Header stamps 50 ms apart; the bag gets each message 3 ms later."""
    return [1_700_000_000_000_000_000 + k * 50_000_000 for k in range(count)]


def one_topic(types, pictures, make=raw_image, kind=IMAGE):
    messages = [(s + 3_000_000, make(types, s, p)) for s, p in zip(stamps(12), pictures, strict=True)]
    return {'/camera/image': (kind, messages), '/talk': (STRING, [(5, types[STRING](data='hello'))])}


@pytest.fixture(
    params=['mcap', 'sqlite3', 'old version', 'one mcap file', 'one db3 file', 'no metadata', 'ros1', 'compressed',
            'ros1 compressed']
)  # fmt: skip
def bag(request, tmp_path, pictures):
    path = tmp_path / 'bag'
    compressed = {'make': png_image, 'kind': COMPRESSED} if 'compressed' in request.param else {}
    if 'ros1' in request.param:
        return write_ros1(tmp_path / 'bag.bag', one_topic(ROS1.types, pictures, **compressed))
    sqlite = request.param in {'sqlite3', 'one db3 file'}
    plugin = StoragePlugin.SQLITE3 if sqlite else StoragePlugin.MCAP
    version = 8 if request.param == 'old version' else 9
    write_ros2(path, one_topic(ROS2.types, pictures, **compressed), plugin=plugin, version=version)
    if request.param == 'no metadata':
        (path / 'metadata.yaml').unlink()
    if 'one' in request.param:
        return next(file for file in path.iterdir() if file.suffix in {'.mcap', '.db3'})
    return path


def test_the_only_image_topic_is_found_and_read(bag, pictures):
    source = open_source(bag)
    frames = list(source)
    assert [frame.stamp for frame in frames] == stamps(12)
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    assert (source.frame_count, source.size, source.fps) == (12, (32, 48), 20)
    assert [frame.stamp for frame in source] == stamps(12)


def test_a_rate_that_is_given_replaces_the_stamps(tmp_path, pictures):
    source = open_source(write_ros2(tmp_path / 'bag', one_topic(ROS2.types, pictures)), fps=10)
    assert [frame.stamp - stamps(1)[0] for frame in source] == [k * 100_000_000 for k in range(12)]
    assert source.fps == 10


def test_a_header_without_a_stamp_takes_the_bags_time(tmp_path, pictures):
    messages = [(7_000_000_000 + k, raw_image(ROS2.types, 0, picture)) for k, picture in enumerate(pictures)]
    source = open_source(write_ros2(tmp_path / 'bag', {'/i': (IMAGE, messages)}))
    assert [frame.stamp for frame in source] == [7_000_000_000 + k for k in range(12)]


def test_of_several_topics_one_must_be_named(tmp_path, pictures):
    topics = one_topic(ROS2.types, pictures)
    topics['/left'] = (COMPRESSED, [(9, png_image(ROS2.types, 9, pictures[3]))])
    path = write_ros2(tmp_path / 'bag', topics)
    with pytest.raises(UserError, match=r'several image topics.*/camera/image, /left'):
        open_source(path)
    for name in ('/left', 'left'):
        np.testing.assert_array_equal(next(iter(open_source(path, topic=name))).image, pictures[3])
    with pytest.raises(UserError, match=r'no topic /right; image topics: /camera/image, /left'):
        open_source(path, topic='/right')
    with pytest.raises(UserError, match=r'/talk is std_msgs/msg/String, not an image; image topics: /camera/image'):
        open_source(path, topic='/talk')


def test_a_bag_without_images(tmp_path):
    path = write_ros2(tmp_path / 'bag', {'/talk': (STRING, [(5, ROS2.types[STRING](data='hello'))])})
    with pytest.raises(UserError, match=r'no image topic in this bag; it holds /talk \(std_msgs/msg/String\)'):
        open_source(path)


def test_a_topic_without_messages(tmp_path):
    with pytest.raises(UserError, match='no message on /camera'):
        open_source(write_ros2(tmp_path / 'bag', {'/camera': (IMAGE, [])}))


def test_an_image_that_does_not_decode_is_named(tmp_path, pictures):
    topics = one_topic(ROS2.types, pictures)
    topics['/camera/image'][1][7][1].encoding = 'strange'
    with pytest.raises(ImageError, match=r"/camera/image, message 7: encoding 'strange'"):
        list(open_source(write_ros2(tmp_path / 'bag', topics)))


@pytest.mark.parametrize('kind', ['mcap', 'sqlite3', 'ros1'])
@pytest.mark.parametrize('part', [0.0, 0.3, 0.95])
def test_bags_that_are_cut_short(tmp_path, pictures, kind, part):
    if kind == 'ros1':
        path = file = write_ros1(tmp_path / 'bag.bag', one_topic(ROS1.types, pictures))
        remedy = 'rosbag reindex'
    else:
        plugin = StoragePlugin.SQLITE3 if kind == 'sqlite3' else StoragePlugin.MCAP
        path = write_ros2(tmp_path / 'bag', one_topic(ROS2.types, pictures), plugin=plugin)
        file = next(entry for entry in path.iterdir() if entry.suffix in {'.mcap', '.db3'})
        remedy = 'ros2 bag reindex' if kind == 'sqlite3' else 'mcap recover'
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * part)])
    with pytest.raises(UserError, match=remedy) as caught:
        list(open_source(path))
    assert str(path) in str(caught.value)


def test_a_bag_folder_whose_storage_is_gone(tmp_path, pictures):
    path = write_ros2(tmp_path / 'bag', one_topic(ROS2.types, pictures))
    next(path.glob('*.mcap')).unlink()
    with pytest.raises(UserError, match='missing'):
        open_source(path)
    shutil.rmtree(path)
    path.mkdir()
    (path / 'metadata.yaml').write_text('nonsense: [')
    with pytest.raises(UserError, match='cannot be read'):
        open_source(path)
