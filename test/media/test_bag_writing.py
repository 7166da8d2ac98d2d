"""What the bag writer leaves, read with the rosbags library alone."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from ruamel.yaml import YAML

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.codecs import encode_jpeg
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.sources import open_source


def read(path):
    with AnyReader([path]) as reader:
        return [(c.topic, time, reader.deserialize(raw, c.msgtype)) for c, time, raw in reader.messages()]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_images_and_their_stamps(tmp_path, pictures, storage):
    path = tmp_path / 'new' / 'bag'
    with BagWriter(path, storage=storage) as bag:
        bag.write_image('/a', 3_000_000_001, encode_image(pictures[0], 'bgr8'), 'left')
        bag.write_compressed('/b', 4_000_000_002, encode_jpeg(pictures[1]))
        bag.write_image('/a', 2_000_000_000, encode_image(pictures[2][..., 0], 'mono8'))
    messages = read(path)
    assert [(topic, time) for topic, time, _ in messages] == [
        ('/a', 2_000_000_000),
        ('/a', 3_000_000_001),
        ('/b', 4_000_000_002),
    ]
    image = messages[1][2]
    assert (image.header.stamp.sec, image.header.stamp.nanosec, image.header.frame_id) == (3, 1, 'left')
    assert (image.encoding, image.step, image.height, image.width) == ('bgr8', 144, 32, 48)
    np.testing.assert_array_equal(image.data.reshape(32, 48, 3)[..., ::-1], pictures[0])
    assert bytes(messages[2][2].data[:2]) == b'\xff\xd8'


def test_metadata_is_what_humble_and_jazzy_read(tmp_path, pictures):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_image('/a', 5, encode_image(pictures[0], 'rgb8'))
    information = YAML(typ='safe').load(tmp_path / 'bag' / 'metadata.yaml')['rosbag2_bagfile_information']
    assert information['version'] == 8  # 9 is Jazzy's, in which Humble finds a list where it wants text
    assert information['storage_identifier'] == 'mcap'
    topic = information['topics_with_message_count'][0]['topic_metadata']
    assert isinstance(topic['offered_qos_profiles'], str)
    assert topic['type'] == 'sensor_msgs/msg/Image'
    assert all((tmp_path / 'bag' / name).exists() for name in information['relative_file_paths'])


def test_raw_messages_are_kept_byte_for_byte(tmp_path):
    types = get_typestore(Stores.ROS2_JAZZY)
    message = types.types['std_msgs/msg/Float32'](data=1.5)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_raw('/x', 'std_msgs/msg/Float32', 77, bytes(types.serialize_cdr(message, 'std_msgs/msg/Float32')))
    assert [(topic, time, value.data) for topic, time, value in read(tmp_path / 'bag')] == [('/x', 77, 1.5)]


def test_an_error_leaves_a_complete_bag(tmp_path, pictures):
    def interrupted():
        with BagWriter(tmp_path / 'bag') as bag:
            bag.write_image('/a', 5, encode_image(pictures[0], 'rgb8'))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read(tmp_path / 'bag')) == 1


def test_a_bag_without_messages_is_not_left(tmp_path):
    with BagWriter(tmp_path / 'bag'):
        pass
    assert not (tmp_path / 'bag').exists()


def test_an_older_bag_stays_until_there_is_a_newer_one(tmp_path, pictures):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_image('/image', 1, encode_image(pictures[0], 'rgb8'))
    before = {file.name: file.read_bytes() for file in (tmp_path / 'bag').iterdir()}
    with BagWriter(tmp_path / 'bag', overwrite=True):
        pass
    assert {file.name: file.read_bytes() for file in (tmp_path / 'bag').iterdir()} == before
    with BagWriter(tmp_path / 'bag', overwrite=True) as bag:
        bag.write_image('/other', 1, encode_image(pictures[0], 'rgb8'))
    assert [entry.name for entry in tmp_path.iterdir()] == ['bag']
    assert open_source(tmp_path / 'bag').topic == '/other'


def test_an_older_bag_is_replaced_only_when_asked_and_nothing_else_ever(tmp_path, pictures):
    path = tmp_path / 'bag'
    for overwrite in (False, True):
        with BagWriter(path, overwrite=overwrite) as bag:
            bag.write_image('/a', 5, encode_image(pictures[0], 'rgb8'))
    with pytest.raises(UserError, match=r'exists already.*--overwrite'):
        BagWriter(path)
    (path / 'notes.txt').write_text('precious')
    with pytest.raises(UserError, match=r'notes\.txt'):
        BagWriter(path, overwrite=True)
    assert (path / 'notes.txt').exists()
    (tmp_path / 'file').write_text('precious')
    with pytest.raises(UserError, match='file'):
        BagWriter(tmp_path / 'file', overwrite=True)
    with pytest.raises(UserError, match='cannot be written'):
        BagWriter(tmp_path / 'file' / 'bag')
