from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from moving_object_detector.media.sources import open_source
from moving_object_detector.programs.commands import make_bag as main
from moving_object_detector.programs.commands import make_video

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_folder_becomes_a_bag(picture_folder, pictures, tmp_path, capsys, storage):
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--fps', '10', '--storage', storage]) == 0
    assert '12 frames' in capsys.readouterr().out
    source = open_source(tmp_path / 'bag', topic='/camera/image_raw')
    frames = list(source)
    assert [frame.stamp for frame in frames] == [10**9 + k * 10**8 for k in range(12)]
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)


def test_compressed_on_another_topic(picture_folder, pictures, tmp_path):
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--compressed', '--topic', 'left/image']) == 0
    frames = list(open_source(tmp_path / 'bag', topic='/left/image/compressed'))
    assert len(frames) == 12
    assert np.abs(frames[4].image.astype(int) - pictures[4]).mean() < 8


def test_a_bag_becomes_a_bag_and_keeps_its_stamps(picture_folder, tmp_path):
    assert main([str(picture_folder), str(tmp_path / 'one'), '--fps', '10']) == 0
    assert main([str(tmp_path / 'one'), str(tmp_path / 'two'), '--topic', '/again', '--storage', 'sqlite3']) == 0
    one, two = open_source(tmp_path / 'one'), open_source(tmp_path / 'two', topic='/again')
    assert [frame.stamp for frame in one] == [frame.stamp for frame in two]


@pytest.fixture
def masks(tmp_path):
    """Masks of frames 1, 2 and 10 of the pictures: a rectangle whose place is its own, of value 1 and 255."""
    folder = tmp_path / 'masks'
    folder.mkdir()
    for k in (1, 2, 10):
        mask = np.zeros((32, 48), np.uint8)
        mask[k : k + 5, 3:40] = 1 if k == 2 else 255
        cv2.imwrite(str(folder / f'frame{k}.png'), mask)
    return folder


def messages_of(path, topic):
    with AnyReader([path]) as bag:
        wanted = [connection for connection in bag.connections if connection.topic == topic]
        return [bag.deserialize(raw, connection.msgtype) for connection, _, raw in bag.messages(wanted)]


def rectangle(k):
    mask = np.zeros((32, 48), np.uint8)
    mask[k : k + 5, 3:40] = 255
    return mask


def nanoseconds(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_masks_go_to_a_topic_with_the_stamps_of_their_frames(picture_folder, masks, tmp_path, capsys):
    command = [str(picture_folder), str(tmp_path / 'bag'), '--fps', '10', '--masks', str(masks)]
    assert main([*command, '--mask-topic', 'gt']) == 0
    assert '12 frames, 3 masks' in capsys.readouterr().out
    found = messages_of(tmp_path / 'bag', '/gt')
    assert [nanoseconds(message) for message in found] == [10**9 + k * 10**8 for k in (1, 2, 10)]
    for k, message in zip((1, 2, 10), found, strict=True):
        assert (message.encoding, message.height, message.width) == ('mono8', 32, 48)
        np.testing.assert_array_equal(message.data.reshape(32, 48), rectangle(k))


def test_png_loses_nothing_of_frames_or_masks(picture_folder, pictures, masks, tmp_path):
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--png', '--masks', str(masks)]) == 0
    frames = list(open_source(tmp_path / 'bag', topic='/camera/image_raw/compressed'))
    for frame, picture in zip(frames, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    found = messages_of(tmp_path / 'bag', '/truth/compressed')
    assert {message.format for message in found} == {'png'}
    for k, message in zip((1, 2, 10), found, strict=True):
        np.testing.assert_array_equal(cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED), rectangle(k))


def test_inputs_follow_each_other_after_a_gap(picture_folder, pictures, masks, tmp_path):
    assert main([str(picture_folder), str(tmp_path / 'one'), '--fps', '10']) == 0
    empty = tmp_path / 'others'
    empty.mkdir()
    cv2.imwrite(str(empty / '000003.png'), rectangle(20))
    command = [str(picture_folder), str(tmp_path / 'one'), str(tmp_path / 'bag'), '--fps', '10']
    assert main([*command, '--masks', str(masks), '--masks', str(empty)]) == 0
    frames = list(open_source(tmp_path / 'bag', topic='/camera/image_raw'))
    # Twelve at 1.0 to 2.1 s, and twelve more ten seconds later.
    assert [frame.stamp for frame in frames] == [10**8 * (10 + k) for k in range(12)] + [
        10**8 * (121 + k) for k in range(12)
    ]
    for frame, picture in zip(frames, [*pictures, *pictures], strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    found = messages_of(tmp_path / 'bag', '/truth')
    assert [nanoseconds(message) for message in found] == [10**8 * k for k in (11, 12, 20, 124)]


def test_masks_that_fit_nothing(picture_folder, masks, tmp_path, capsys):
    (masks / 'frame1.png').rename(masks / 'image1.png')
    command = [str(picture_folder), str(tmp_path / 'bag'), '--masks']
    assert main([*command, str(masks)]) == 0
    captured = capsys.readouterr()
    assert '1 masks match no frame and are ignored, such as image1' in captured.err
    assert '2 masks' in captured.out
    for name in ('frame2.png', 'frame10.png'):
        (masks / name).unlink()
    assert main([*command, str(masks), '--overwrite']) == 2
    assert f'error: {masks}: no mask has the name of a frame of' in capsys.readouterr().err
    assert main([*command, str(masks / 'none'), '--overwrite']) == 2
    assert 'no such folder' in capsys.readouterr().err


def test_mistakes_are_told_in_one_line(picture_folder, tmp_path, capsys):
    assert main([str(tmp_path / 'nowhere'), str(tmp_path / 'bag')]) == 2
    assert capsys.readouterr().err == f'error: {tmp_path}/nowhere: no such file or folder\n'
    assert not (tmp_path / 'bag').exists()
    assert main([str(picture_folder), str(tmp_path / 'bag')]) == 0
    assert main([str(picture_folder), str(tmp_path / 'bag')]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--overwrite']) == 0


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['a'],
        ['a', 'b', '--fps', '0'],
        ['a', 'b', '--fps', 'x'],
        ['a', 'b', '--storage', 'z'],
        ['a', 'b', '--png', '--compressed'],
        ['a', 'b', 'c', '--masks', 'm'],
        ['a', 'b', '--mask-topic', '/gt'],
    ],
)
def test_arguments_that_are_wrong(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert 'usage: make_bag' in capsys.readouterr().err


def test_names_that_are_not_utf8(picture_folder, tmp_path):
    """From folder to bag to video, each with such a name, as a program of its own."""
    folder, bag, video = (os.fsdecode(bytes(tmp_path) + b'/fl\xfcge' + suffix) for suffix in (b'', b'-bag', b'.mp4'))
    shutil.copytree(picture_folder, folder)
    for program, *paths in (('make_bag', folder, bag), ('make_video', bag, video)):
        command = [sys.executable, '-m', 'moving_object_detector.programs', program, *paths]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
        assert (done.returncode, b'Traceback' in done.stderr) == (0, False), done.stderr.decode(errors='replace')
        assert b'fl\\udcfcge' in done.stdout
    assert len(list(open_source(video))) == 12


def test_a_mask_that_is_turned_against_its_frame(picture_folder, tmp_path, capsys):
    (tmp_path / 'masks').mkdir()
    cv2.imwrite(str(tmp_path / 'masks' / 'frame3.png'), np.full((48, 32), 255, np.uint8))
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--masks', str(tmp_path / 'masks')]) == 2
    assert 'frame3.png: this mask is 32x48, but its frame 48x32' in capsys.readouterr().err


def test_the_input_is_never_the_output(picture_folder, tmp_path, capsys):
    folder = tmp_path / 'one'
    assert main([str(picture_folder), str(folder), '--fps', '10']) == 0
    (file,) = folder.glob('*.mcap')
    content = file.read_bytes()
    for read in (folder, file):
        assert main([str(read), str(folder), '--compressed', '--overwrite']) == 2
        assert 'would be lost' in capsys.readouterr().err
        assert file.read_bytes() == content


@pytest.mark.parametrize('names', [('robot.yaml', 'camera.yaml'), ('monday.mcap', 'tuesday.mcap')])
def test_what_is_no_bag_is_not_overwritten(picture_folder, tmp_path, capsys, names):
    folder = tmp_path / 'things'
    folder.mkdir()
    for name in names:
        (folder / name).write_text('a: 1')
    assert main([str(picture_folder), str(folder), '--overwrite']) == 2
    assert 'it is not a bag' in capsys.readouterr().err
    assert {file.name for file in folder.iterdir()} == set(names)


def test_masks_of_a_video_that_match_no_frame_are_counted(picture_folder, tmp_path, capsys):
    assert make_video([str(picture_folder), str(tmp_path / 'clip.mp4')]) == 0
    (tmp_path / 'masks').mkdir()
    for name in ('00000.png', '000001.png'):
        cv2.imwrite(str(tmp_path / 'masks' / name), np.full((32, 48), 255, np.uint8))
    assert main([str(tmp_path / 'clip.mp4'), str(tmp_path / 'bag'), '--masks', str(tmp_path / 'masks')]) == 0
    printed = capsys.readouterr()
    assert '1 of 2 masks match no frame' in printed.err
    assert '1 masks' in printed.out
