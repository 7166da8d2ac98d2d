from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.layouts import clip_annotations


def mask(path, column):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((4, 6), np.uint8)
    pixels[:, column] = 255
    cv2.imwrite(str(path), pixels)


def columns(annotations):
    return [None if item is None else np.flatnonzero(item().all(0)).tolist() for item in annotations]


def folder_annotations(images, masks):
    """Those of one clip, whose masks lie in the folder itself."""
    return clip_annotations({'clip': images}, masks)['clip']


def frames(folder, count=3):
    """Paths of frames; masks are matched by name, so the files need not be there."""
    return [folder / f'{k:05d}.jpg' for k in range(count)]


def test_masks_are_matched_by_name_whatever_their_suffix(tmp_path):
    mask(tmp_path / '00000.png', 2)
    mask(tmp_path / '00002.bmp', 4)
    mask(tmp_path / '00007.png', 1)
    (tmp_path / 'notes.txt').write_text('drawn by hand')
    assert columns(folder_annotations(frames(tmp_path / 'clip'), tmp_path)) == [[2], None, [4]]


def test_names_that_do_not_fit(tmp_path):
    for k in range(5):
        mask(tmp_path / f'mask_{k}.png', 0)
    with pytest.raises(UserError, match=r'00000, 00001, 00002, .*mask_0, mask_1, mask_2, \.\.\.'):
        folder_annotations(frames(tmp_path / 'clip'), tmp_path)


def test_two_masks_of_a_frame(tmp_path):
    mask(tmp_path / '00001.png', 0)
    mask(tmp_path / '00001.bmp', 0)
    with pytest.raises(UserError, match=r'00001\.bmp and 00001\.png'):
        folder_annotations(frames(tmp_path / 'clip'), tmp_path)


def test_folders_without_masks(tmp_path):
    with pytest.raises(UserError, match='none: '):
        folder_annotations(frames(tmp_path), tmp_path / 'none')
    with pytest.raises(UserError, match='no image'):
        folder_annotations(frames(tmp_path), tmp_path)


def test_one_clip_takes_the_folder_itself_or_the_one_of_its_name(tmp_path):
    mask(tmp_path / 'flat' / '00001.png', 3)
    mask(tmp_path / 'deep' / 'yard' / '00002.png', 3)
    clips = {'yard': frames(tmp_path / 'yard')}
    assert columns(clip_annotations(clips, tmp_path / 'flat')['yard']) == [None, [3], None]
    assert columns(clip_annotations(clips, tmp_path / 'deep')['yard']) == [None, None, [3]]


def test_several_clips_have_a_folder_each(tmp_path):
    """Masks beside the folders are of no clip: with several there is no telling of which."""
    mask(tmp_path / '00000.png', 0)
    mask(tmp_path / 'yard' / '00000.png', 1)
    mask(tmp_path / 'street' / '00001.png', 2)
    clips = {name: frames(tmp_path / name, 2) for name in ('street', 'yard', 'forest')}
    found = clip_annotations(clips, tmp_path)
    assert {name: columns(item) for name, item in found.items()} == {
        'street': [None, [2]],
        'yard': [[1], None],
        'forest': [None, None],
    }


def test_several_clips_and_no_folder_of_their_names(tmp_path):
    mask(tmp_path / 'masks' / '00000.png', 0)
    clips = {name: frames(tmp_path / name) for name in ('street', 'yard')}
    with pytest.raises(UserError, match=r'masks: .*\(street, yard\).*00000\.png'):
        clip_annotations(clips, tmp_path / 'masks')
    with pytest.raises(UserError, match=r'none: .*street'):
        clip_annotations(clips, tmp_path / 'none')
