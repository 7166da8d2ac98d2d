from __future__ import annotations

import os
import subprocess
from contextlib import suppress

import imageio_ffmpeg
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.sources import open_source
from moving_object_detector.media.video import VideoWriter

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


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
    with pytest.raises(UserError, match=r'clip\.mp4'):
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


def write_with_times(path, times, size='64x48'):
    """Make a video of gradients whose frames have these times in milliseconds, by ffmpeg alone."""
    picked = ''.join(f'if(eq(N,{k}),{time / 1000},' for k, time in enumerate(times))
    setpts = f"setpts='({picked}0{')' * len(times)})/TB'"
    source = ('-f', 'lavfi', '-i', f'testsrc2=size={size}:rate=1000:duration={len(times) / 1000}')
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        '-y',
        '-v',
        'error',
        *source,
        '-vf',
        setpts,
        '-fps_mode',
        'passthrough',
        str(path),
    ]
    subprocess.run(command, check=True)


@pytest.mark.parametrize('suffix', ['mp4', 'mkv', 'mov'])
def test_a_variable_frame_rate_keeps_its_times(tmp_path, suffix):
    """25 frames a second, a pause of two seconds, then half the rate."""
    times = [40 * k for k in range(20)] + [2800 + 80 * k for k in range(12)]
    write_with_times(tmp_path / f'clip.{suffix}', times)
    source = open_source(tmp_path / f'clip.{suffix}')
    assert [frame.stamp for frame in source] == pytest.approx([time * 1_000_000 for time in times], abs=1_000_000)
    assert source.fps == pytest.approx(25, rel=0.01)
    # Evenly where a rate is given.
    assert [frame.stamp for frame in open_source(tmp_path / f'clip.{suffix}', fps=10)][-1] == 3_100_000_000


def test_a_constant_rate_in_whole_milliseconds(tmp_path):
    """Matroska's times are 0, 42, 83, 125 ms: still 24 frames a second."""
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        '-v',
        'error',
        '-f',
        'lavfi',
        '-i',
        'testsrc2=size=64x48:rate=24:duration=1',
    ]
    subprocess.run([*command, str(tmp_path / 'clip.mkv')], check=True)
    source = open_source(tmp_path / 'clip.mkv')
    assert source.fps == 24
    assert [frame.stamp for frame in source] == pytest.approx([k * 1e9 / 24 for k in range(24)], abs=600_000)


def test_frames_that_are_too_large_or_too_small(tmp_path):
    for size in ('4112x64', '64x14'):
        write_with_times(tmp_path / 'clip.mkv', [0, 40], size)
        with pytest.raises(UserError, match=rf'clip\.mkv: size {size}'):
            open_source(tmp_path / 'clip.mkv')


def test_names_that_look_like_protocols_or_are_not_utf8(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('2026-11-25T22:35.mp4', 'pipe:1.mp4', os.fsdecode(b'fl\xfcge.mp4')):
        (tmp_path / name).write_bytes(video.read_bytes())
        assert len(list(open_source(name))) == 12
        with VideoWriter(f'written-{name}', 10) as writer:
            for frame in open_source(name):
                writer.write(frame.image)
        assert len(list(open_source(f'written-{name}'))) == 12


def test_a_playlist_is_no_video(video, tmp_path):
    """FFmpeg would open what it names, also over the network."""
    lists = {
        'list.mp4': f"ffconcat version 1.0\nfile '{video}'\n",
        'list.m3u8': f'#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nhttp://127.0.0.1:9/{video.name}\n#EXT-X-ENDLIST\n',
    }
    for name, content in lists.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match='cannot be opened as a video'):
            open_source(tmp_path / name)


def test_nothing_is_written_to_stderr_for_a_damaged_video(video, tmp_path, capfd):
    damaged = bytearray(video.read_bytes())
    damaged[2000:2400] = bytes(400)
    (tmp_path / 'clip.mp4').write_bytes(damaged)
    with suppress(UserError):
        list(open_source(tmp_path / 'clip.mp4'))
    assert capfd.readouterr().err == ''
