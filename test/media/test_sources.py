"""Folders of frames, what opens a source, frames that cannot be read, and work ahead in a thread."""

from __future__ import annotations

import os
import shutil
import threading
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.frames import natural_key, prefetch, ros_stamp_offset
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.sources import ImageFiles, open_source, read_image
from moving_object_detector.media.video import VideoWriter


def test_frames_come_in_natural_order_with_even_stamps(picture_folder, pictures):
    source = open_source(picture_folder, fps=10)
    frames = list(source)
    assert [frame.name for frame in frames] == [f'frame{k}.png' for k in range(12)]
    assert [frame.stamp for frame in frames] == [k * 100_000_000 for k in range(12)]
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    assert (source.frame_count, source.size, source.fps) == (12, (32, 48), 10)


def test_a_source_can_be_read_again_and_runs_at_24_by_default(picture_folder):
    source = open_source(str(picture_folder))
    assert [frame.stamp for frame in source] == [frame.stamp for frame in source]
    assert source.fps == 24
    assert list(source)[11].stamp == 458_333_333  # 11 / 24 s


def test_natural_order():
    names = ['10.png', 'a2.png', '9.png', 'a10.png', '010.png', 'B1.png', '²3.png']
    assert sorted(names, key=natural_key) == ['9.png', '010.png', '10.png', 'a2.png', 'a10.png', 'B1.png', '²3.png']


def test_kinds_of_files(tmp_path):
    cv2.imwrite(str(tmp_path / '1.webp'), np.full((20, 24, 3), 128, np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 101])
    cv2.imwrite(str(tmp_path / '2.PNG'), np.full((20, 24), 128, np.uint8))
    cv2.imwrite(str(tmp_path / '3.tif'), np.full((40, 16, 3), (1, 2, 3), np.uint8))
    cv2.imwrite(str(tmp_path / '4.ppm'), np.full((20, 24, 3), (1, 2, 3), np.uint8))
    cv2.imwrite(str(tmp_path / '5.bmp'), np.full((20, 24, 3), (1, 2, 3), np.uint8))
    (tmp_path / 'readme.txt').write_text('not a frame')
    (tmp_path / '6.png').mkdir()
    images = [frame.image for frame in open_source(tmp_path)]
    assert [image.shape for image in images] == [(20, 24, 3), (20, 24, 3), (40, 16, 3), (20, 24, 3), (20, 24, 3)]
    assert [image[0, 0].tolist() for image in images] == [[128] * 3, [128] * 3, [3, 2, 1], [3, 2, 1], [3, 2, 1]]


def test_a_frame_that_cannot_be_read_is_named(picture_folder, tmp_path):
    folder = tmp_path / 'frames'
    shutil.copytree(picture_folder, folder)
    (folder / 'frame5.png').write_bytes(b'')
    source = open_source(folder)
    seen = []
    with pytest.raises(ImageError, match=r'frame5\.png'):
        seen.extend(frame.name for frame in source)
    (folder / 'frame0.png').write_bytes((folder / 'frame1.png').read_bytes()[:60])
    with pytest.raises(ImageError, match=r'frame0\.png'):
        next(iter(open_source(folder)))


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match='no image in this folder'):
        open_source(tmp_path)
    (tmp_path / 'left').mkdir()
    with pytest.raises(UserError, match='left'):
        open_source(tmp_path)


def test_no_such_path(tmp_path):
    with pytest.raises(UserError, match='nowhere'):
        open_source(tmp_path / 'nowhere')


def test_a_single_image(picture_folder):
    with pytest.raises(UserError, match='single image'):
        open_source(picture_folder / 'frame0.png')


def test_a_topic_needs_a_bag(picture_folder):
    with pytest.raises(UserError, match='/camera'):
        open_source(picture_folder, topic='/camera')


@pytest.mark.parametrize('fps', [0, -1, float('nan'), float('inf')])
def test_rates_that_are_none(picture_folder, fps):
    with pytest.raises(UserError, match='above 0'):
        open_source(picture_folder, fps=fps)


def test_stamps_for_ros_are_never_zero():
    assert ros_stamp_offset(0) == 1_000_000_000
    assert ros_stamp_offset(17) == 0


def write(path, kind, image, count):
    if kind == 'video':
        with VideoWriter(path.with_suffix('.mp4'), 24) as video:
            for _ in range(count):
                video.write(image)
        return path.with_suffix('.mp4')
    with BagWriter(path, storage=kind) as bag:
        for k in range(count):
            bag.write_image('/image', (k + 1) * 10**8, encode_image(image, 'rgb8'))
    return path


def peak_of_reading(path, count):
    source = open_source(path)
    tracemalloc.start()
    assert sum(1 for _ in source) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize('kind', ['mcap', 'sqlite3', 'video'])
def test_memory_does_not_grow_with_the_length(tmp_path, kind):
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    short = peak_of_reading(write(tmp_path / 'short', kind, image, 50), 50)
    long = peak_of_reading(write(tmp_path / 'long', kind, image, 100), 100)
    assert long < 1.1 * short


def test_what_is_no_file_and_what_is_too_large(tmp_path):
    os.mkfifo(tmp_path / 'pipe.mp4')
    for path in (tmp_path / 'pipe.mp4', '/dev/zero'):
        with pytest.raises(UserError, match='neither a file nor a folder'):
            open_source(path)
    (tmp_path / 'sparse.png').touch()
    os.truncate(tmp_path / 'sparse.png', 10**12)
    with pytest.raises(ImageError, match='larger than'):
        read_image(tmp_path / 'sparse.png')


def ask(frames):
    """What the next asking brings: the frame's stamp, None for an error, 'end' at the end."""
    try:
        frame = next(frames, None)
    except ImageError:
        return None
    return 'end' if frame is None else frame.stamp


def outcomes(source):
    frames = iter(source)
    return [ask(frames) for _ in range(source.frame_count + 1)]


def test_a_folder_goes_on_after_files_that_cannot_be_read(picture_folder, tmp_path):
    folder = tmp_path / 'frames'
    shutil.copytree(picture_folder, folder)
    (folder / 'frame3.png').write_bytes(b'')
    (folder / 'frame4.png').write_bytes((folder / 'frame5.png').read_bytes()[:80])
    (folder / 'frame11.png').write_bytes(b'not a picture')
    expected = [k * 100_000_000 for k in range(12)]
    expected[3] = expected[4] = expected[11] = None
    assert outcomes(open_source(folder, fps=10)) == [*expected, 'end']
    files = [folder / f'frame{k}.png' for k in (2, 3, 5)]
    assert outcomes(ImageFiles('three', files, fps=10)) == [0, None, 200_000_000, 'end']


def test_the_first_file_may_be_the_broken_one(picture_folder, tmp_path):
    folder = tmp_path / 'frames'
    shutil.copytree(picture_folder, folder)
    (folder / 'frame0.png').write_bytes(b'')
    source = ImageFiles('clip', [folder / 'frame0.png', folder / 'frame5.png'], fps=10)
    assert source.size == (32, 48)
    assert outcomes(source) == [None, 100_000_000, 'end']
    with pytest.raises(ImageError, match='frame0'):
        ImageFiles('clip', [folder / 'frame0.png'])
    with pytest.raises(UserError, match='clip: no frame there'):
        ImageFiles('clip', [])


@pytest.mark.parametrize('fps', [None, 10])
def test_a_bag_goes_on_after_images_that_do_not_decode(tmp_path, pictures, fps):
    stamps = [10**9 + k * 50_000_000 for k in range(12)]
    with BagWriter(tmp_path / 'bag') as bag:
        for k, (stamp, picture) in enumerate(zip(stamps, pictures, strict=True)):
            image = encode_image(picture, 'rgb8')
            bag.write_image('/i', stamp, image._replace(data=image.data[:99]) if k in {1, 11} else image)
    expected = list(stamps) if fps is None else [10**9 + k * 100_000_000 for k in range(12)]
    expected[1] = expected[11] = None
    source = open_source(tmp_path / 'bag', fps=fps)
    assert outcomes(source) == [*expected, 'end']
    # Who does not catch the error ends with it, as ever.
    with pytest.raises(ImageError, match=r'/i, message 1.*99 bytes'):
        list(source)


def test_damage_of_the_bag_itself_comes_after_what_could_be_read_and_is_the_end(tmp_path):
    rng = np.random.default_rng(3)
    stamps = [10**9 + k * 50_000_000 for k in range(60)]
    with BagWriter(tmp_path / 'bag') as bag:
        for stamp in stamps:
            bag.write_image('/i', stamp, encode_image(rng.integers(0, 256, (120, 160, 3), np.uint8), 'rgb8'))
    (file,) = (tmp_path / 'bag').glob('*.mcap')
    whole = file.read_bytes()
    # Longer than a picture's data, so that the records around it suffer.
    place, length = len(whole) * 7 // 10, 70_000
    file.write_bytes(whole[:place] + b'\xff' * length + whole[place + length :])
    frames = iter(open_source(tmp_path / 'bag'))
    read = []
    with pytest.raises(UserError, match='damaged or cut short') as caught:
        read.extend(frame.stamp for frame in frames)
    assert not isinstance(caught.value, ImageError)
    assert 9 <= len(read) < 60
    assert read == stamps[: len(read)]
    assert next(frames, None) is None


def test_items_come_in_order():
    with prefetch(iter(range(100)), depth=3) as items:
        assert list(items) == list(range(100))


def test_no_more_than_depth_items_are_made_ahead():
    made = []

    def produce():
        for k in range(50):
            made.append(k)
            yield k

    with prefetch(produce(), depth=4) as items:
        first = next(iter(items))
        deadline = time.monotonic() + 5
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # One taken, four waiting.
        assert (first, len(made)) == (0, 5)


def test_an_error_comes_after_the_items_before_it():
    def produce():
        yield 1
        raise OSError('disk')

    seen = []
    with prefetch(produce()) as items, pytest.raises(OSError, match='disk'):
        seen.extend(items)
    assert seen == [1]


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    with prefetch(iter(range(10**9)), depth=2) as items:
        assert next(iter(items)) == 0
    assert threading.active_count() == before
