"""Bags with masks, written with the rosbags library and by make_bag, as clips to evaluate."""

from __future__ import annotations

import pickle
import shutil

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from moving_object_detector.common.errors import UserError
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.evaluation.clips import bag_clip, read_masks
from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.results import read_results
from moving_object_detector.media.bags import BagTopic, BagWriter
from moving_object_detector.media.messages import TYPES, encode_image
from moving_object_detector.media.sources import open_source
from moving_object_detector.programs.commands import make_bag

STAMPS = [1_700_000_000_000_000_000 + k * 50_000_001 for k in range(12)]


def rectangle(k, shape=(32, 48)):
    mask = np.zeros(shape, bool)
    mask[k : k + 5, 3:40] = True
    return mask


def write(path, pictures, masked=range(12), *, stamps=STAMPS, mask_stamps=STAMPS, storage='mcap', images=None):
    """Write a bag with images on /image and masks of the numbers ``masked`` on /truth."""
    with BagWriter(path, storage=storage) as bag:
        for k, picture in enumerate(pictures):
            bag.write_image('/image', stamps[k], (images or {}).get(k) or encode_image(picture, 'rgb8'))
        for k in masked:
            bag.write_image('/truth', mask_stamps[k], encode_image(rectangle(k).astype(np.uint8), 'mono8'))
    return path


def truth_of(clip, count=12):
    if not clip.annotations:
        return [None] * count
    return [found and found() for found in clip.annotations[:count]]


def test_masks_of_any_size_are_kept_in_little_memory(tmp_path):
    rng = np.random.default_rng(2)
    given = [rng.random(shape) > 0.5 for shape in ((1, 1), (7, 13), (480, 854))] + [rectangle(100, (480, 854))]
    with BagWriter(tmp_path / 'bag') as bag:
        for stamp, mask in zip(STAMPS, given, strict=False):
            bag.write_image('/truth', stamp, encode_image(mask.astype(np.uint8), 'mono8'))
    masks, problems = read_masks(BagTopic(tmp_path / 'bag', topic='/truth'))
    for mask, kept in zip(given, masks.values(), strict=True):
        np.testing.assert_array_equal(kept(), mask)
    assert len(pickle.dumps(kept)) < 2000
    assert not problems


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_images_and_the_masks_of_their_stamps(tmp_path, pictures, storage):
    clip = bag_clip(write(tmp_path / 'ride', pictures, (0, 3, 11), storage=storage), '/image', '/truth')
    assert (clip.name, clip.frame_count, clip.problems) == ('ride', 12, ())
    frames = list(clip.open())
    assert [frame.stamp for frame in frames] == STAMPS
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    for k, found in enumerate(truth_of(clip)):
        if k in {0, 3, 11}:
            np.testing.assert_array_equal(found, rectangle(k))
        else:
            assert found is None


def test_a_bag_without_masks_has_no_truth(tmp_path, pictures):
    clip = bag_clip(write(tmp_path / 'bag', pictures, ()), None, None)
    assert truth_of(clip) == [None] * 12


def test_ros1(tmp_path, pictures):
    types = get_typestore(Stores.ROS1_NOETIC)
    image, path = 'sensor_msgs/msg/Image', tmp_path / 'old.bag'
    with Writer1(path) as writer:
        topics = {name: writer.add_connection(name, image, typestore=types) for name in ('/image', '/truth')}
        for k, (stamp, picture) in enumerate(zip(STAMPS, pictures, strict=True)):
            time = types.types['builtin_interfaces/msg/Time'](sec=stamp // 10**9, nanosec=stamp % 10**9)
            header = types.types['std_msgs/msg/Header'](seq=k, stamp=time, frame_id='')
            contents = {
                '/image': encode_image(picture, 'bgr8'),
                '/truth': encode_image(rectangle(k) * np.uint8(9), 'mono8'),
            }
            for late, (topic, fields) in enumerate(contents.items()):
                message = types.types[image](header=header, is_bigendian=0, **fields._asdict())
                writer.write(topics[topic], stamp + late, types.serialize_ros1(message, image))
    clip = bag_clip(path, '/image', '/truth')
    assert (clip.name, clip.problems) == ('old', ())
    for k, found in enumerate(truth_of(clip)):
        np.testing.assert_array_equal(found, rectangle(k))


def test_a_bag_made_of_a_folder_is_the_folder(picture_folder, tmp_path):
    masks = tmp_path / 'masks'
    masks.mkdir()
    for k in range(12):
        cv2.imwrite(str(masks / f'frame{k}.png'), rectangle(k) * np.uint8(255))
    folder = open_source(picture_folder)
    for form in ([], ['--png']):
        assert make_bag([str(picture_folder), str(tmp_path / 'bag'), '--masks', str(masks), '--overwrite', *form]) == 0
        # The images need no name where the masks have one.
        clip = bag_clip(tmp_path / 'bag', None, '/truth/compressed' if form else '/truth')
        source = clip.open()
        assert (source.fps, source.size, clip.frame_count) == (folder.fps, folder.size, folder.frame_count)
        for k, (ours, theirs) in enumerate(zip(source, folder, strict=True)):
            np.testing.assert_array_equal(ours.image, theirs.image)
            assert ours.stamp == theirs.stamp + 10**9  # a stamp of 0 is "no time" in ROS
            np.testing.assert_array_equal(clip.annotations[k](), rectangle(k))


def test_the_detector_says_the_same_of_a_folder_and_of_its_bag(tmp_path, options):
    from moving_object_detector.common.parameter_files import load_config
    from moving_object_detector.detection.config import DetectorConfig
    from moving_object_detector.evaluation.methods import DetectorMethod

    rng = np.random.default_rng(3)
    scene = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (128, 96), interpolation=cv2.INTER_CUBIC)
    square = cv2.resize(rng.integers(0, 256, (11, 11, 3), np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
    folder = tmp_path / 'frames'
    folder.mkdir()
    for k in range(6):
        scene_now = scene.copy()
        scene_now[32:64, 20 + 3 * k : 52 + 3 * k] = square
        cv2.imwrite(str(folder / f'{k}.jpg'), scene_now)
    assert make_bag([str(folder), str(tmp_path / 'bag')]) == 0
    method = DetectorMethod(load_config(DetectorConfig(), None, options), ('zero_lag', 'refined'))
    said = []
    clip = bag_clip(tmp_path / 'bag', None, None)
    for source in (open_source(folder), clip.open()):
        found = list(method.masks(clip, enumerate(source)))
        said.append({(finding.variant, finding.index): finding.mask for finding in found})
    assert len(said[0]) == 11  # both estimates of six frames, but zero_lag of the first
    assert said[0].keys() == said[1].keys()
    assert any(mask.any() for mask in said[0].values())
    for key, mask in said[0].items():
        np.testing.assert_array_equal(said[1][key], mask)


def test_masks_whose_stamp_fits_no_image_are_told(tmp_path, pictures):
    late = [stamp + (1 if k % 2 else 0) for k, stamp in enumerate(STAMPS)]
    clip = bag_clip(write(tmp_path / 'bag', pictures, mask_stamps=late), '/image', '/truth')
    (problem,) = clip.problems
    assert problem == ('6 of 12 masks on /truth have a stamp that no image has, the first at 1700000000.050000002 s')
    assert [found is None for found in truth_of(clip)] == [False, True] * 6


def test_no_mask_fits(tmp_path, pictures):
    late = [stamp + 7 for stamp in STAMPS]
    path = write(tmp_path / 'bag', pictures, (0, 1), mask_stamps=late)
    with pytest.raises(UserError, match='no mask on /truth') as caught:
        bag_clip(path, '/image', '/truth')
    assert '1700000000.000000000, 1700000000.050000001, 1700000000.100000002, ... s' in str(caught.value)
    assert 'masks at 1700000000.000000007, 1700000000.050000008 s' in str(caught.value)


def test_without_stamps_the_bags_time_counts(tmp_path, pictures):
    with BagWriter(tmp_path / 'bag') as bag:
        for k, picture in enumerate(pictures):
            for topic, image in (
                ('/image', encode_image(picture, 'rgb8')),
                ('/truth', encode_image(rectangle(k) * np.uint8(1), 'mono8')),
            ):
                message = bag._stamped('sensor_msgs/msg/Image', 0, 'camera', is_bigendian=0, **image._asdict())
                data = bytes(TYPES.serialize_cdr(message, 'sensor_msgs/msg/Image'))
                bag.write_raw(topic, 'sensor_msgs/msg/Image', STAMPS[k], data)
    clip = bag_clip(tmp_path / 'bag', '/image', '/truth')
    assert clip.problems == ()
    assert [frame.stamp for frame in clip.open()] == STAMPS
    np.testing.assert_array_equal(clip.annotations[5](), rectangle(5))


def test_stamps_that_go_back_and_repeat_are_told_and_repetitions_not_scored(tmp_path, pictures):
    with BagWriter(tmp_path / 'bag') as bag:
        for k, picture in enumerate(pictures):
            stamp = STAMPS[3] if k == 4 else STAMPS[1] + 5 if k == 8 else STAMPS[k]
            image = encode_image(picture, 'rgb8')._asdict()
            message = bag._stamped('sensor_msgs/msg/Image', stamp, 'camera', is_bigendian=0, **image)
            data = bytes(TYPES.serialize_cdr(message, 'sensor_msgs/msg/Image'))
            bag.write_raw('/image', 'sensor_msgs/msg/Image', STAMPS[k], data)
            bag.write_image('/truth', stamp, encode_image(rectangle(k) * np.uint8(1), 'mono8'))
    clip = bag_clip(tmp_path / 'bag', '/image', '/truth')
    assert clip.problems == ('1 of 12 masks on /truth repeat a stamp; the last one of each is taken',)
    arguments = ['--dataset', 'bag', '--root', str(tmp_path / 'bag'), '--mask-topic', '/truth', '--method', 'mog2']
    assert main([*arguments, '--out', str(tmp_path / 'out')]) == 0
    (result,) = read_results(tmp_path / 'out').sequences
    text = ' | '.join(result.problems)
    assert '1 of 12 frames is older than the frame before it' in text
    assert '1 of 12 frames has the stamp of the frame before it' in text
    assert [cell is None for cell in result.variants['mog2'].j] == [k == 4 for k in range(12)]
    truth = truth_of(clip)
    assert truth[4] is None
    np.testing.assert_array_equal(truth[3], rectangle(4))
    np.testing.assert_array_equal(truth[8], rectangle(8))


def test_masks_that_do_not_decode_cost_only_themselves(tmp_path, pictures):
    path = write(tmp_path / 'bag', pictures, range(3))
    shutil.rmtree(path)
    with BagWriter(path) as bag:
        for k, picture in enumerate(pictures):
            bag.write_image('/image', STAMPS[k], encode_image(picture, 'rgb8'))
            mask = encode_image(rectangle(k) * np.uint8(1), 'mono8')
            bag.write_image('/truth', STAMPS[k], mask._replace(data=mask.data[:9]) if k in {2, 7} else mask)
    masks, problems = read_masks(BagTopic(path, topic='/truth'))
    assert list(masks) == [stamp for k, stamp in enumerate(STAMPS) if k not in {2, 7}]
    (problem,) = problems
    assert problem.startswith('2 of 12 masks on /truth do not decode; message 2: data has 9 bytes')


def test_images_that_do_not_decode_keep_the_numbers_of_the_others(tmp_path, pictures):
    broken = encode_image(pictures[4], 'rgb8')
    clip = bag_clip(
        write(tmp_path / 'bag', pictures, images={4: broken._replace(data=broken.data[:9])}), None, '/truth'
    )
    assert clip.frame_count == 12
    np.testing.assert_array_equal(clip.annotations[5](), rectangle(5))


def test_jpeg_masks_are_told(tmp_path, pictures):
    with BagWriter(tmp_path / 'bag') as bag:
        for k, picture in enumerate(pictures):
            bag.write_image('/image', STAMPS[k], encode_image(picture, 'rgb8'))
            data = cv2.imencode('.jpg', rectangle(k) * np.uint8(255))[1].reshape(-1)
            bag.write_compressed('/truth/compressed', STAMPS[k], data)
    clip = bag_clip(tmp_path / 'bag', '/image', '/truth/compressed')
    assert clip.problems == ('masks on /truth/compressed are JPEG, which blurs outlines; publish them as PNG or mono8',)
    assert np.mean(clip.annotations[6]() != rectangle(6)) < 0.02


def test_topics_that_are_not_there_list_those_that_are(tmp_path, pictures, capsys):
    path = write(tmp_path / 'bag', pictures)
    with pytest.raises(UserError, match=r'no image topic /gt; .* /image .*, /truth'):
        bag_clip(path, None, '/gt')
    with pytest.raises(UserError, match=r'/front; .* /image .*, /truth'):
        bag_clip(path, '/front', '/truth')
    # The truth is told by its name.
    assert bag_clip(path, None, None).frame_count == bag_clip(path, '/image', None).frame_count > 0
    with BagWriter(tmp_path / 'two') as bag:
        for topic in ('/left', '/right'):
            bag.write_image(topic, STAMPS[0], encode_image(pictures[0], 'rgb8'))
    with pytest.raises(UserError, match=r'--bag-topic.* /left, /right'):
        bag_clip(tmp_path / 'two', None, None)
    assert main(['--dataset', 'bag', '--root', str(tmp_path / 'absent'), '--out', str(tmp_path / 'out')]) == 2
    assert 'absent: no bag here' in capsys.readouterr().err


def test_recordings_of_one_name_have_results_of_their_own(tmp_path, pictures):
    (tmp_path / 'bags').mkdir()
    for storage, suffix, first in (('mcap', '.mcap', 0), ('sqlite3', '.db3', 2)):
        with BagWriter(tmp_path / storage, storage=storage) as bag:
            for k, picture in enumerate(pictures[first:]):
                bag.write_image('/image', STAMPS[k], encode_image(picture, 'rgb8'))
        (file,) = (tmp_path / storage).glob(f'*{suffix}')
        shutil.copy(file, tmp_path / 'bags' / f'run{suffix}')
    arguments = ['--dataset', 'bag', '--root', str(tmp_path / 'bags'), '--method', 'nothing']
    assert main([*arguments, '--out', str(tmp_path / 'out')]) == 0
    counts = {result.name: result.frame_count for result in read_results(tmp_path / 'out').sequences}
    assert counts == {'run': 10, 'run-2': 12}


def test_a_bag_damaged_in_the_middle_is_evaluated_as_far_as_it_goes(tmp_path):
    rng = np.random.default_rng(3)
    stamps = [STAMPS[0] + k * 50_000_000 for k in range(60)]
    with BagWriter(tmp_path / 'bag') as bag:
        for k, stamp in enumerate(stamps):
            bag.write_camera_info('/camera_info', stamp, (120, 160), np.array((99, 0, 80, 0, 99, 60, 0, 0, 1.0)), 'cam')
            bag.write_image('/image', stamp, encode_image(rng.integers(0, 256, (120, 160, 3), np.uint8), 'rgb8'))
            bag.write_image('/truth', stamp, encode_image(rectangle(k, (120, 160)) * np.uint8(1), 'mono8'))
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    whole = file.read_bytes()
    place = len(whole) * 7 // 10
    file.write_bytes(whole[:place] + b'\xff' * 90_000 + whole[place + 90_000 :])
    clip = bag_clip(tmp_path / 'bag', '/image', '/truth')
    assert 9 <= clip.frame_count < 60
    assert clip.problems[0].startswith(f'only the first {clip.frame_count} images can be read: ')
    assert clip.problems[1].startswith('the masks after the first ')
    np.testing.assert_array_equal(clip.annotations[8](), rectangle(8, (120, 160)))
    # What lies before the damage tells the intrinsics.
    camera = clip.odometry(OdometryConfig()).camera((120, 160), (120, 160))
    assert camera.fx == pytest.approx(99)
