from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.frames import natural_key
from moving_object_detector.media.sources import open_source


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
