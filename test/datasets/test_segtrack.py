"""A miniature of SegTrack v2 in its published layout."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import read_segtrack


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 6), value, np.uint8))


def mask(path, column):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, column] = 255
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def root(tmp_path):
    """``girl`` has one object and bmp files, ``bmx`` two objects, of which the second comes later."""
    root = tmp_path / 'SegTrackv2'
    for k in (9, 10, 11):
        picture(root / 'JPEGImages' / 'girl' / f'girl_{k}.bmp')
        mask(root / 'GroundTruth' / 'girl' / f'girl_{k}.bmp', 0)
    (root / 'JPEGImages' / 'girl' / 'Thumbs.db').write_bytes(b'x')
    for k in range(3):
        picture(root / 'JPEGImages' / 'bmx' / f'bmx_{k:05d}.png')
        mask(root / 'GroundTruth' / 'bmx' / '1' / f'bmx_{k:05d}.png', 1)
    mask(root / 'GroundTruth' / 'bmx' / '2' / 'bmx_00002.png', 4)
    sets = root / 'ImageSets'
    sets.mkdir()
    (sets / 'all.txt').write_text('*girl\n*bmx\n')
    (sets / 'girl.txt').write_text('girl\ngirl_9\ngirl_10\ngirl_11\n')
    (sets / 'bmx.txt').write_text('bmx/\r\nbmx_00000\r\nbmx_00001\r\nbmx_00002\r\n')
    return root


def columns(annotation):
    return np.flatnonzero(annotation().all(0)).tolist()


def test_published_layout(root):
    girl, bmx = read_segtrack(root)
    assert (girl.name, bmx.name) == ('girl', 'bmx')
    assert [image.name for image in girl.files] == ['girl_9.bmp', 'girl_10.bmp', 'girl_11.bmp']
    assert [columns(annotation) for annotation in girl.annotations] == [[0], [0], [0]]
    assert [image.name for image in bmx.files] == [f'bmx_0000{k}.png' for k in range(3)]
    assert [columns(annotation) for annotation in bmx.annotations] == [[1], [1], [1, 4]]


def test_formats_of_masks_and_masks_of_no_frame(root):
    """As published: the objects of ``cheetah`` are bmp and png, and ``worm`` has a mask too many."""
    truth = root / 'GroundTruth' / 'bmx'
    for k in range(3):
        (truth / '1' / f'bmx_{k:05d}.png').unlink()
        mask(truth / '1' / f'bmx_{k:05d}.bmp', 0)
        mask(truth / '2' / f'bmx_{k:05d}.png', 3)
    mask(root / 'GroundTruth' / 'girl' / '0000000000.png', 5)
    girl, bmx = read_segtrack(root)
    assert [columns(annotation) for annotation in girl.annotations] == [[0], [0], [0]]
    assert [columns(annotation) for annotation in bmx.annotations] == [[0, 3]] * 3


def test_folders_that_are_no_objects(root):
    (root / 'GroundTruth' / 'girl' / '.svn').mkdir()
    (root / 'GroundTruth' / 'girl' / '.svn' / 'entries').write_text('12')
    (root / 'GroundTruth' / 'bmx' / 'notes').mkdir()
    girl, bmx = read_segtrack(root)
    assert [columns(annotation) for annotation in girl.annotations] == [[0], [0], [0]]
    assert columns(bmx.annotations[2]) == [1, 4]


def test_an_object_whose_masks_have_other_names_goes_by_order(root):
    truth = root / 'GroundTruth' / 'bmx' / '2'
    (truth / 'bmx_00002.png').unlink()
    for k, column in ((8, 3), (9, 4), (10, 5)):
        mask(truth / f'second{k}.png', column)
    bmx = read_segtrack(root)[1]
    assert [columns(annotation) for annotation in bmx.annotations] == [[1, 3], [1, 4], [1, 5]]
    (truth / 'second9.png').unlink()
    with pytest.raises(UserError, match=r'bmx/2: .*bmx_00000, .*second8'):
        read_segtrack(root)


def test_without_lists_the_folders_count(root):
    shutil.rmtree(root / 'ImageSets')
    bmx, girl = read_segtrack(root)
    assert (bmx.name, girl.name) == ('bmx', 'girl')
    assert [image.name for image in girl.files] == ['girl_9.bmp', 'girl_10.bmp', 'girl_11.bmp']


def test_the_list_decides_which_frames(root):
    (root / 'ImageSets' / 'girl.txt').write_text('girl\ngirl_11\ngirl_9\n')
    girl = read_segtrack(root)[0]
    assert [image.name for image in girl.files] == ['girl_11.bmp', 'girl_9.bmp']


def test_annotations_may_be_missing(root):
    (root / 'GroundTruth' / 'girl' / 'girl_10.bmp').unlink()
    shutil.rmtree(root / 'GroundTruth' / 'bmx')
    girl, bmx = read_segtrack(root)
    assert [annotation is None for annotation in girl.annotations] == [False, True, False]
    assert bmx.annotations == ()


def test_what_can_be_wrong(root, tmp_path):
    with pytest.raises(UserError, match=r'nowhere/JPEGImages'):
        read_segtrack(tmp_path / 'nowhere')
    (root / 'ImageSets' / 'girl.txt').write_text('girl\ngirl_9\ngirl_12\n')
    with pytest.raises(UserError, match=r'girl\.txt.* girl_12,'):
        read_segtrack(root)
    (root / 'ImageSets' / 'all.txt').write_text('*worm\n')
    with pytest.raises(UserError, match=r'JPEGImages/worm'):
        read_segtrack(root)
    (root / 'ImageSets' / 'all.txt').write_text('')
    with pytest.raises(UserError, match='no sequence'):
        read_segtrack(root)
