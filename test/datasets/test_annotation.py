from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.datasets.annotation import MaskFiles, RegionFile
from moving_object_detector.errors import UserError


@pytest.mark.parametrize('kind', ['grey', 'colour', 'transparent', 'sixteen bit', 'one'])
def test_any_value_but_zero_is_object(tmp_path, kind):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    pixels = {
        'grey': mask * np.uint8(255),
        'one': mask * np.uint8(1),
        'sixteen bit': mask * np.uint16(300),
        'colour': np.stack((mask * 0, mask * 0, mask * 128), -1).astype(np.uint8),
        'transparent': np.stack((mask * 0, mask * 9, mask * 0, mask * 0 + 255), -1).astype(np.uint8),
    }[kind]
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    found = MaskFiles((tmp_path / 'a.png',)).read()
    assert found.dtype == bool
    assert np.array_equal(found, mask)


def test_several_masks_are_united(tmp_path):
    for name, columns in (('a', slice(0, 2)), ('b', slice(1, 3)), ('c', slice(6, 6))):
        mask = np.zeros((4, 8), np.uint8)
        mask[:, columns] = 255
        cv2.imwrite(str(tmp_path / f'{name}.png'), mask)
    found = MaskFiles(tuple(tmp_path / f'{name}.png' for name in 'abc')).read()
    assert found[0].tolist() == [True] * 3 + [False] * 5


def test_masks_of_different_sizes(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((4, 8), np.uint8))
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((4, 9), np.uint8))
    with pytest.raises(UserError, match=r'b\.png is 9x4, but .*a\.png is not'):
        MaskFiles((tmp_path / 'a.png', tmp_path / 'b.png')).read()


def test_annotations_that_cannot_be_read(tmp_path):
    (tmp_path / 'a.png').write_text('no picture')
    (tmp_path / 'b.png').write_text('')
    for name, reason in (('a', 'as an image'), ('b', 'as an image'), ('none', 'No such file')):
        for annotation in (MaskFiles((tmp_path / f'{name}.png',)), RegionFile(tmp_path / f'{name}.png', 0)):
            with pytest.raises(UserError, match=rf'{name}\.png cannot be read.*{reason}'):
                annotation.read()


def test_regions_by_grey_value(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.pgm'), np.array([[255, 0], [127, 255]], np.uint8))
    assert RegionFile(tmp_path / 'a.pgm', 255).read().tolist() == [[False, True], [True, False]]


def test_regions_by_colour(tmp_path):
    # Written by hand, so that the order of the channels is the format's: red, green, blue.
    pixels = bytes([1, 2, 3, 255, 255, 255, 3, 2, 1, 0, 0, 0])
    (tmp_path / 'a.ppm').write_bytes(b'P6\n2 2\n255\n' + pixels)
    assert RegionFile(tmp_path / 'a.ppm', 1 * 65536 + 2 * 256 + 3).read().tolist() == [[False, True], [True, True]]
    assert RegionFile(tmp_path / 'a.ppm', 16777215).read().tolist() == [[True, False], [True, True]]
