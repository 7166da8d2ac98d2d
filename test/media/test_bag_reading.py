"""Bags written with the rosbags library alone, then read through the project."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.media.bags import BagWriter, bag_files, is_bag
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.sources import open_source

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
    with pytest.raises(UserError, match=r'/camera/image, /left'):
        open_source(path)
    for name in ('/left', 'left'):
        np.testing.assert_array_equal(next(iter(open_source(path, topic=name))).image, pictures[3])
    with pytest.raises(UserError, match=r'/right; .*/left'):
        open_source(path, topic='/right')
    with pytest.raises(UserError, match=r'/talk; .*/talk \(std_msgs/msg/String\)'):
        open_source(path, topic='/talk')


def test_a_bag_without_images(tmp_path):
    path = write_ros2(tmp_path / 'bag', {'/talk': (STRING, [(5, ROS2.types[STRING](data='hello'))])})
    with pytest.raises(UserError, match=r'/talk \(std_msgs/msg/String\)'):
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


def test_a_scale_is_one_for_the_whole_topic(tmp_path):
    """A thermal camera's 29000 + 8 x grey, raw and as PNG: grey comes back, by the same scale in every image."""
    rng = np.random.default_rng(5)
    greys = [rng.integers(0, 256, (40, 60)) for _ in range(3)]
    greys[1] //= 2  # a darker one must stay darker
    messages = []
    for k, grey in enumerate(greys):
        samples = (29000 + 8 * grey).astype('<u2')
        fields = {'encoding': 'mono16', 'is_bigendian': 0, 'step': 120, 'data': samples.view(np.uint8).reshape(-1)}
        stamped = header(ROS2.types, 10**9 + k * 50_000_000)
        png = cv2.imencode('.png', samples)[1].reshape(-1)
        raw = ROS2.types[IMAGE](header=stamped, height=40, width=60, **fields)
        messages.append((raw, ROS2.types[COMPRESSED](header=stamped, format='mono16; png compressed ', data=png)))
    for column, kind in enumerate((IMAGE, COMPRESSED)):
        path = tmp_path / f'bag{column}'
        write_ros2(path, {'/i': (kind, [(k, pair[column]) for k, pair in enumerate(messages)])})
        images = [frame.image[:, :, 0].astype(float) for frame in open_source(path)]
        slope, offset = np.polyfit(greys[0].ravel(), images[0].ravel(), 1)
        assert 0.75 < slope < 0.85  # an eighth of the range is left free at either end
        for grey, image in zip(greys, images, strict=True):
            assert np.abs(image - (slope * grey + offset)).max() <= 1


def test_swapped_stamps_do_not_change_the_rate(tmp_path, pictures):
    """24 frames a second of which neighbours have changed places."""
    moments = [10**9 + round(k * 1e9 / 24) for k in range(12)]
    for k in (1, 4, 6):
        moments[k], moments[k + 1] = moments[k + 1], moments[k]
    messages = [(k, raw_image(ROS2.types, m, p)) for k, (m, p) in enumerate(zip(moments, pictures, strict=True))]
    source = open_source(write_ros2(tmp_path / 'bag', {'/i': (IMAGE, messages)}))
    assert source.fps == pytest.approx(24, abs=1e-3)
    assert [frame.stamp for frame in source] == moments


@pytest.mark.parametrize('zeros', [{0}, {0, 1}, {5}, {11}])
def test_one_stamp_of_zero_does_not_mix_two_clocks(tmp_path, pictures, zeros):
    """The bag's clock is a day behind the headers'."""
    arrived = [10**9 + k * 50_000_000 for k in range(12)]
    moments = [0 if k in zeros else time + 86_400 * 10**9 for k, time in enumerate(arrived)]
    messages = [(a, raw_image(ROS2.types, m, p)) for a, m, p in zip(arrived, moments, pictures, strict=True)]
    source = open_source(write_ros2(tmp_path / 'bag', {'/i': (IMAGE, messages)}))
    assert [frame.stamp for frame in source] == [time + 86_400 * 10**9 for time in arrived]


@pytest.mark.parametrize('wrong', [-5 * 10**9, -1, (2**31 - 1) * 10**9 + 4 * 10**9])
def test_times_that_no_header_can_have_are_none(tmp_path, pictures, wrong):
    """As one of them, and as all; what is written from them must be a bag again."""
    arrived = [10**9 + k * 50_000_000 for k in range(12)]
    for name, wrongs in (('one', {3}), ('all', set(range(12)))):
        messages = []
        for k, (time, picture) in enumerate(zip(arrived, pictures, strict=True)):
            message = raw_image(ROS2.types, time, picture)
            if k in wrongs:
                sec, nanosec = divmod(wrong, 10**9)
                message.header.stamp.sec, message.header.stamp.nanosec = min(sec, 2**31 - 1), nanosec
                if sec > 2**31 - 1:
                    message.header.stamp.nanosec = 4 * 10**9
            messages.append((time, message))
        source = open_source(write_ros2(tmp_path / name, {'/i': (IMAGE, messages)}))
        assert [frame.stamp for frame in source] == arrived


def test_topics_that_the_detector_or_make_bag_wrote_are_no_cameras(tmp_path, pictures):
    topics = one_topic(ROS2.types, pictures)
    for name in ('/truth', '/truth/compressed', '/detect/mask', '/detect/overlay', '/detect/flow'):
        topics[name] = (IMAGE, [(9, raw_image(ROS2.types, 7, pictures[2]))])
    source = open_source(write_ros2(tmp_path / 'bag', topics))
    assert (source.topic, source.frame_count) == ('/camera/image', 12)
    assert open_source(tmp_path / 'bag', topic='/truth').topic == '/truth'
    topics['/second'] = topics['/camera/image']
    with pytest.raises(UserError, match=r'--bag-topic.*: /camera/image, /second$'):
        open_source(write_ros2(tmp_path / 'two', topics))


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_bags_compressed_as_files(tmp_path, pictures, plugin):
    path = tmp_path / 'bag'
    writer = Writer(path, version=9, storage_plugin=plugin)
    writer.set_compression(CompressionMode.FILE, CompressionFormat.ZSTD)
    with writer:
        for topic, (kind, messages) in one_topic(ROS2.types, pictures).items():
            connection = writer.add_connection(topic, kind, typestore=ROS2)
            for time, message in messages:
                writer.write(connection, time, ROS2.serialize_cdr(message, kind))
    (file,) = (entry for entry in path.iterdir() if entry.suffix == '.zstd')
    assert bag_files(path) == [file]
    assert [frame.stamp for frame in open_source(path)] == stamps(12)
    (clip,) = find_clips([str(path)], 'train')
    assert clip.files == (file,)
    with pytest.raises(UserError, match=r'zstd -d'):
        open_source(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match='damaged or cut short'):
        open_source(path)


@pytest.mark.parametrize('stamped', [True, False])
@pytest.mark.parametrize('place', [1, 4, 9])
def test_what_lies_before_damage_is_read_with_and_without_stamps(tmp_path, pictures, place, stamped):
    path = tmp_path / 'bag'
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/camera/image', IMAGE, typestore=ROS2)
        for number in range(12):
            message = raw_image(ROS2.types, 10**9 + number * 10**8 if stamped else 0, pictures[number])
            packed = ROS2.serialize_cdr(message, IMAGE)
            writer.write(connection, 5 * 10**9 + number * 10**8, packed[:20] if number == place else packed)
    found = []
    with pytest.raises(UserError, match='damaged or cut short'):
        found.extend(open_source(path))
    assert [frame.stamp for frame in found] == [(1 if stamped else 5) * 10**9 + n * 10**8 for n in range(place)]
    assert all(np.array_equal(frame.image, pictures[n]) for n, frame in enumerate(found))


def test_a_folder_of_other_things_is_no_bag(tmp_path, picture_folder):
    """One damaged bag beside folders of frames."""
    shutil.copytree(picture_folder, tmp_path / 'data' / 'first')
    (tmp_path / 'data' / 'broken.mcap').write_bytes(b'\x89MCAP0\r\n' + bytes(50))
    assert not is_bag(tmp_path / 'data')
    assert [clip.name for clip in find_clips([str(tmp_path / 'data')], 'train')] == ['broken', 'first']


def write_short(path, images):
    with BagWriter(path) as bag:
        for k, image in enumerate(images):
            bag.write_image('/image', 10**9 + k * 10**8, encode_image(image, 'rgb8'))
    return next(path.glob('*.mcap'))


def test_bags_side_by_side_are_no_parts_of_one(tmp_path, pictures):
    folder, parts = tmp_path / 'flights', tmp_path / 'parts'
    for place in (folder, parts):
        place.mkdir()
    for number, day in enumerate(('2026.01.02_a', '2026.01.03_b')):
        file = write_short(tmp_path / day, pictures[:3])
        shutil.copy(file, folder / f'{day}.mcap')
        shutil.copy(file, parts / f'flight_{number}.mcap')
    assert not is_bag(folder)
    assert [clip.name for clip in find_clips([str(folder)], 'train')] == ['2026.01.02_a', '2026.01.03_b']
    assert is_bag(parts)  # as rosbag2 splits them


def test_images_beside_a_metadata_file_of_another_kind(tmp_path, picture_folder, pictures):
    shutil.copytree(picture_folder, tmp_path / 'frames')
    (tmp_path / 'frames' / 'metadata.yaml').write_text('camera: front\n')
    assert len(list(open_source(tmp_path / 'frames'))) == len(pictures)
