from __future__ import annotations

import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.datasets.layouts import MaskFiles
from moving_object_detector.media.bags import is_bag
from moving_object_detector.programs.commands import make_bag, make_video


def frames(folder, count, size=(18, 24), suffix='.png'):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        cv2.imwrite(str(folder / f'{k}{suffix}'), np.full((*size, 3), 10 * k, np.uint8))
    return folder


def brightness(clip):
    """Return the first pixel of each frame, which tells which frame it is."""
    return [int(frame.image[0, 0, 0]) for frame in clip.source()]


@pytest.fixture
def davis(tmp_path):
    root = tmp_path / 'davis'
    for split, name in (('train', 'bear'), ('val', 'cow')):
        frames(root / 'JPEGImages' / '480p' / name, 3, suffix='.jpg')
        truth = frames(root / 'Annotations' / '480p' / name, 3)
        (truth / '1.png').unlink()
        listing = root / 'ImageSets' / '480p' / f'{split}.txt'
        listing.parent.mkdir(parents=True, exist_ok=True)
        rows = (f'/JPEGImages/480p/{name}/{k}.jpg /Annotations/480p/{name}/{k}.png' for k in range(3))
        listing.write_text('\n'.join(rows))
    return root


@pytest.fixture(scope='module')
def recordings(tmp_path_factory, picture_folder):
    """A folder with a video and a bag, each of the twelve pictures, made with the package's own programs."""
    root = tmp_path_factory.mktemp('recordings')
    assert make_video([str(picture_folder), str(root / 'drive.mp4')]) == 0
    assert make_bag([str(picture_folder), str(root / 'night'), '--topic', '/left']) == 0
    (root / 'notes.txt').write_text('rainy')
    return root


def test_everything_at_once(tmp_path, davis, recordings):
    loose = frames(tmp_path / 'loose', 11)
    many = tmp_path / 'many'
    frames(many / 'b10', 2)
    frames(many / 'b9', 2)
    segtrack = tmp_path / 'segtrack'
    frames(segtrack / 'JPEGImages' / 'worm', 2)
    frames(segtrack / 'GroundTruth' / 'worm', 2)
    fbms = tmp_path / 'fbms'
    frames(fbms / 'Trainingset' / 'cats01', 2)
    frames(fbms / 'Testset' / 'dogs01', 2)
    roots = [davis, f'{davis}@val', loose, many, segtrack, fbms, recordings, recordings / 'night']
    clips = find_clips([str(root) for root in roots], 'train')
    names = ['bear', 'cow', 'loose', 'b9', 'b10', 'worm', 'cats01', 'drive', 'night', 'night-2']
    assert [clip.name for clip in clips] == names
    assert [len(list(clip.source())) for clip in clips] == [3, 3, 11, 2, 2, 2, 2, 12, 12, 12]
    assert brightness(clips[2]) == [10 * k for k in range(11)]

    bear, _, loose_clip, *_, worm, cats, drive, night, _ = clips
    truth = davis / 'Annotations' / '480p' / 'bear'
    assert bear.annotations == (MaskFiles((truth / '0.png',)), None, MaskFiles((truth / '2.png',)))
    assert len(worm.annotations) == 2
    assert loose_clip.annotations == cats.annotations == drive.annotations == night.annotations == ()
    assert [file.name for file in loose_clip.files] == [f'{k}.png' for k in range(11)]
    assert [file.name for file in drive.files] == ['drive.mp4']
    assert [file.suffix for file in night.files] == ['.mcap']
    # Loaders of other processes take clips along.
    assert len(list(pickle.loads(pickle.dumps(night)).source())) == 12


def test_names_become_unique(tmp_path):
    for folder in ('x/a', 'y/a', 'y/a-2', 'z/a'):
        frames(tmp_path / folder, 2)
    roots = [str(tmp_path / folder) for folder in 'xyz']
    assert [clip.name for clip in find_clips(roots, 'train')] == ['a', 'a-3', 'a-2', 'a-4']


def test_a_topic_is_for_bags_alone(recordings, picture_folder):
    roots = [str(recordings), str(picture_folder)]
    drive, night, loose = find_clips(roots, 'train', '/left')
    assert (drive.topic, night.topic, loose.topic) == (None, '/left', None)
    assert len(list(drive.source())) == len(list(night.source())) == 12
    night = find_clips(roots, 'train', '/right')[1]
    with pytest.raises(UserError, match=r'/right; .*/left'):
        night.source()


def test_paths_with_an_at_sign(tmp_path):
    frames(tmp_path / 'a@b', 2)
    assert [clip.name for clip in find_clips([str(tmp_path / 'a@b')], 'train')] == ['a@b']


def test_a_cover_picture_beside_clips(tmp_path):
    frames(tmp_path, 1)
    frames(tmp_path / 'clip', 2)
    assert [clip.name for clip in find_clips([str(tmp_path)], 'train')] == ['clip']


def test_stills_beside_videos_are_not_taken_for_the_footage(tmp_path, recordings):
    """As on the card of a camera that takes both."""
    frames(tmp_path / 'card', 3)
    shutil.copytree(next(path for path in recordings.iterdir() if is_bag(path)), tmp_path / 'card' / 'bag')
    with pytest.raises(UserError, match=r'images .* recordings'):
        find_clips([str(tmp_path / 'card')], 'train')


def test_what_can_be_wrong(tmp_path, davis):
    def error(*roots, split='train'):
        with pytest.raises(UserError) as raised:
            find_clips([str(root) for root in roots], split)
        return str(raised.value)

    assert error() == 'no data was given; name a data set, a folder of frames, a video or a bag'
    assert error(tmp_path / 'nowhere') == f'{tmp_path}/nowhere: no such file or folder'
    assert error(f'{tmp_path}/nowhere@val') == f'{tmp_path}/nowhere: no such file or folder'
    assert 'no split test here; there is train, val' in error(davis, split='test')
    assert 'no split old here' in error(f'{davis}@old')
    shutil.rmtree(davis / 'ImageSets')
    assert 'ImageSets/480p/train.txt is missing' in error(davis)

    empty = tmp_path / 'empty'
    empty.mkdir()
    assert error(empty).startswith(f'{empty}: nothing to read here; it is empty, looked for DAVIS 2016')
    (empty / 'notes.txt').write_text('')
    assert 'it holds notes.txt, looked for DAVIS 2016' in error(empty)
    loose = frames(tmp_path / 'loose', 2)
    assert error(f'{loose}@val') == f'{loose}@val: only DAVIS 2016 and FBMS-59 have splits; leave @val out'
    (loose / '0.png').unlink()
    assert error(loose) == f'{loose}: one frame only; flow takes a pair of frames'


def test_the_content_of_a_compressed_bag_is_its_compressed_files(tmp_path):
    (tmp_path / 'metadata.yaml').write_text('')
    for name in ('bag_0.db3.zstd', 'bag_1.db3.zstd', 'notes.txt'):
        (tmp_path / name).write_text(name)
    (clip,) = find_clips([str(tmp_path)], 'train')
    assert [path.name for path in clip.files] == ['bag_0.db3.zstd', 'bag_1.db3.zstd']


def test_a_listed_frame_that_is_missing(davis):
    (davis / 'JPEGImages' / '480p' / 'bear' / '1.jpg').unlink()
    with pytest.raises(UserError, match=r'bear/1\.jpg'):
        find_clips([str(davis)], 'train')


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    frames(tmp_path / 'clip', 2)

    def refuse(path):
        raise PermissionError(13, 'Permission denied', str(path))

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr('pathlib.Path.iterdir', refuse)
    with pytest.raises(UserError, match='Permission denied'):
        find_clips([str(tmp_path)], 'train')


def test_a_folder_with_one_frame_is_left_out_and_said(tmp_path, caplog):
    frames(tmp_path / 'data' / 'long', 3)
    lonely = frames(tmp_path / 'data' / 'lonely', 1)
    assert [clip.name for clip in find_clips([str(tmp_path / 'data')], 'train')] == ['long']
    assert 'lonely: one frame only' in caplog.text
    with pytest.raises(UserError, match='one frame only'):
        find_clips([str(lonely)], 'train')


def test_a_name_that_is_not_utf8_becomes_one_that_any_file_can_hold(tmp_path):
    frames(tmp_path / 'data' / 'plain', 2).rename(tmp_path / 'data' / os.fsdecode(b'fl\xfcge'))
    frames(tmp_path / 'data' / 'Flüge', 2)
    frames(tmp_path / 'data' / 'a\x1b[31m\nroot: b', 2)
    names = [clip.name for clip in find_clips([str(tmp_path / 'data')], 'train')]
    assert set(names) == {'fl_udcfcge', 'Flüge', 'a_x1b[31m_nroot: b'}
    assert ''.join(names).encode()
