from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.sources import open_source
from moving_object_detector.tools.video import VideoWriter


@pytest.fixture(scope='module')
def video(tmp_path_factory, pictures):
    path = tmp_path_factory.mktemp('video') / 'clip.mp4'
    with VideoWriter(path, 12.5) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


def test_frames_come_in_order_with_the_files_timing(video, pictures):
    source = open_source(video)
    frames = list(source)
    assert (source.frame_count, source.size, source.fps) == (12, (32, 48), 12.5)
    assert [frame.stamp for frame in frames] == [k * 80_000_000 for k in range(12)]
    assert frames[3].name == '000003'
    for k, frame in enumerate(frames):
        errors = [np.abs(frame.image.astype(int) - picture).mean() for picture in pictures]
        assert np.argmin(errors) == k
        assert errors[k] < 12  # compression, and chroma at half resolution
    assert [frame.stamp for frame in source] == [frame.stamp for frame in frames]


def test_the_rate_can_be_given(video):
    source = open_source(video, fps=50)
    assert source.fps == 50
    assert [frame.stamp for frame in source][:3] == [0, 20_000_000, 40_000_000]


@pytest.mark.parametrize('content', [b'', b'no video at all' * 100])
def test_what_is_no_video(tmp_path, content):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(content)
    with pytest.raises(UserError, match=r'clip\.mp4: cannot be opened as a video'):
        open_source(path)


def test_a_video_whose_end_is_missing(tmp_path, caplog):
    rng = np.random.default_rng(1)
    path = tmp_path / 'clip.mp4'
    with VideoWriter(path, 24) as writer:
        for _ in range(24):
            writer.write(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert 0 < sum(1 for _ in source) < 20
    assert 'of the 24 frames' in caplog.text


def test_a_video_whose_start_alone_is_there(video, tmp_path):
    path = tmp_path / 'clip.mp4'
    path.write_bytes(video.read_bytes()[:400])
    with pytest.raises(UserError, match=r'clip\.mp4'):
        open_source(path)
