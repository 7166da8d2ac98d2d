from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.frames import ros_stamp_offset
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.sources import open_source, read_image
from moving_object_detector.media.video import VideoWriter


def test_no_such_path(tmp_path):
    with pytest.raises(UserError, match='nowhere: no such file or folder'):
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
    with pytest.raises(ImageError, match='larger than any image'):
        read_image(tmp_path / 'sparse.png')
