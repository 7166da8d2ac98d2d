from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.datasets.sources import open_source
from moving_object_detector.tools.make_bag import main


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


def test_mistakes_are_told_in_one_line(picture_folder, tmp_path, capsys):
    assert main([str(tmp_path / 'nowhere'), str(tmp_path / 'bag')]) == 2
    assert capsys.readouterr().err == f'error: {tmp_path}/nowhere: no such file or folder\n'
    assert not (tmp_path / 'bag').exists()
    assert main([str(picture_folder), str(tmp_path / 'bag')]) == 0
    assert main([str(picture_folder), str(tmp_path / 'bag')]) == 2
    assert 'exists already' in capsys.readouterr().err
    assert main([str(picture_folder), str(tmp_path / 'bag'), '--overwrite']) == 0


@pytest.mark.parametrize(
    'arguments', [[], ['a', 'b', '--fps', '0'], ['a', 'b', '--fps', 'x'], ['a', 'b', '--storage', 'z']]
)
def test_arguments_that_are_wrong(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert 'usage: make_bag' in capsys.readouterr().err
