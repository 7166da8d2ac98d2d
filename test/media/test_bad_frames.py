"""A frame that cannot be read is lost, not what follows it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.sources import ImageFiles, open_source


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
    with pytest.raises(ImageError, match=r'/i, message 1: data has 99 bytes'):
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
