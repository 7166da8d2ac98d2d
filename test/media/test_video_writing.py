"""What the video writer leaves, looked at with ffmpeg and OpenCV."""

from __future__ import annotations

import re
import subprocess

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.video import VideoWriter


def read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        found, image = capture.read()
        if not found:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(image[..., ::-1])


def test_a_browser_plays_it(tmp_path, pictures):
    path = tmp_path / 'new' / 'folder' / 'clip.mp4'
    with VideoWriter(path, 30000 / 1001) as video:
        for picture in pictures:
            video.write(picture)
    assert video.frame_count == 12
    stated = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(path)], capture_output=True, text=True, check=False
    ).stderr
    assert re.search(r'Video: h264 .*yuv420p.* 48x32', stated)
    assert '29.97 fps' in stated
    content = path.read_bytes()
    assert content.index(b'moov') < content.index(b'mdat')  # plays before all of it has come
    frames, _ = read(path)
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.astype(int) - picture).mean() < 12


def test_colours_keep_their_order(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 24) as video:
        video.write(np.full((32, 48, 3), (200, 60, 20), np.uint8))
    frames, _ = read(tmp_path / 'clip.mp4')
    assert np.abs(frames[0][8, 8].astype(int) - (200, 60, 20)).max() < 8


def test_odd_sizes_are_padded_and_other_sizes_fitted(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 24) as video:
        video.write(np.full((31, 47, 3), 200, np.uint8))
        video.write(np.full((64, 64, 3), 200, np.uint8))
        video.write(np.full((1, 1, 3), 200, np.uint8))
    frames, _ = read(tmp_path / 'clip.mp4')
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    assert all(np.abs(frame.astype(int) - 200).max() < 6 for frame in frames)


def test_an_error_leaves_a_complete_file(tmp_path, pictures):
    def interrupted():
        with VideoWriter(tmp_path / 'clip.mp4', 24) as video:
            for picture in pictures[:5]:
                video.write(picture)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(read(tmp_path / 'clip.mp4')[0]) == 5


def test_without_ffmpeg_it_is_said_before_anything_is_recorded(tmp_path, monkeypatch):
    def none():
        raise RuntimeError('nowhere')

    monkeypatch.setattr(imageio_ffmpeg, 'get_ffmpeg_exe', none)
    with pytest.raises(UserError, match='ffmpeg'):
        VideoWriter(tmp_path / 'clip.mp4', 12)


def test_nothing_is_written_before_the_first_frame(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 24):
        pass
    assert not (tmp_path / 'clip.mp4').exists()


def test_paths_that_cannot_be_used(tmp_path, pictures):
    with pytest.raises(UserError, match=r'ends in \.mp4'):
        VideoWriter(tmp_path / 'clip.avi', 24)
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='file'):
        VideoWriter(tmp_path / 'file' / 'clip.mp4', 24)
    (tmp_path / 'folder.mp4').mkdir()
    with VideoWriter(tmp_path / 'folder.mp4', 24) as video, pytest.raises(UserError, match=r'folder\.mp4'):
        video.write(pictures[0])


def test_an_encoder_that_dies_is_reported(tmp_path, pictures, monkeypatch):
    monkeypatch.setenv('IMAGEIO_FFMPEG_EXE', 'false')  # the program that fails at once
    video = VideoWriter(tmp_path / 'clip.mp4', 24)
    with pytest.raises(UserError, match=r'clip\.mp4: the video encoder'), video:  # noticed at once, or at the end
        video.write(pictures[0])


@pytest.mark.parametrize('count', [1, 5, 12])
def test_the_rate_is_that_of_the_stamps_where_none_is_given(tmp_path, pictures, count):
    """With two neighbours that have changed places."""
    stamps = [10**12 + k * 80_000_000 for k in range(count)]
    stamps[1:3] = stamps[2:0:-1] if count > 2 else stamps[1:3]
    with VideoWriter(tmp_path / 'clip.mp4', None) as video:
        for stamp, picture in zip(stamps, pictures, strict=False):
            video.write(picture, stamp)
    frames, fps = read(tmp_path / 'clip.mp4')
    assert (len(frames), fps) == (count, 12.5 if count > 1 else 24)
