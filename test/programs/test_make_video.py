from __future__ import annotations

import numpy as np

from moving_object_detector.media.sources import open_source
from moving_object_detector.programs.commands import make_bag
from moving_object_detector.programs.commands import make_video as main


def test_a_bag_becomes_a_video_with_its_rate(picture_folder, pictures, tmp_path, capsys):
    assert make_bag([str(picture_folder), str(tmp_path / 'bag'), '--fps', '10']) == 0
    assert main([str(tmp_path / 'bag'), str(tmp_path / 'clip.mp4')]) == 0
    assert '12 frames at 10 frames/s' in capsys.readouterr().out
    source = open_source(tmp_path / 'clip.mp4')
    assert source.fps == 10
    for frame, picture in zip(source, pictures, strict=True):
        assert np.abs(frame.image.astype(int) - picture).mean() < 12


def test_mistakes_are_told(picture_folder, tmp_path, capsys):
    assert main([str(picture_folder), str(tmp_path / 'clip.gif')]) == 2
    assert 'ends in .mp4' in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / 'clip.mp4')]) == 2
    assert 'no image in this folder' in capsys.readouterr().err
    assert not (tmp_path / 'clip.mp4').exists()


def test_a_video_is_not_written_over_itself(picture_folder, tmp_path, capsys):
    clip = tmp_path / 'clip.mp4'
    assert main([str(picture_folder), str(clip)]) == 0
    content = clip.read_bytes()
    assert main([str(clip), str(clip)]) == 2
    assert 'would be lost' in capsys.readouterr().err
    assert clip.read_bytes() == content
