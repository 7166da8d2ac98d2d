from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.media.pictures import draw_sheet, evenly_spaced
from moving_object_detector.programs.commands import contact_sheet as main


@pytest.mark.parametrize(
    ('total', 'wanted', 'expected'),
    [(80, 4, [0, 26, 53, 79]), (3, 12, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (10, 1, [0]), (11, 3, [0, 5, 10])],
)
def test_evenly_spaced(total, wanted, expected):
    assert evenly_spaced(total, wanted) == expected


def test_cells_show_their_images():
    images = [(k, np.full((40, 80, 3), (10 * k, 0, 250), np.uint8)) for k in range(5)]
    sheet = draw_sheet(images, columns=3, width=160)
    assert sheet.shape == (2 * 84 + 4, 3 * 164 + 4, 3)
    for k in range(5):
        row, column = divmod(k, 3)
        assert sheet[4 + row * 84 + 60, 4 + column * 164 + 120].tolist() == [10 * k, 0, 250]
    assert (sheet[4 + 84 + 60, 4 + 2 * 164 + 80] == 255).all()  # the sixth cell is empty


def test_labels_differ_from_cell_to_cell():
    images = [(k, np.zeros((90, 160, 3), np.uint8)) for k in (7, 42)]
    sheet = draw_sheet(images, columns=2, width=160)
    seven, forty_two = sheet[4:94, 4:164], sheet[4:94, 168:328]
    assert seven.max() > 200
    assert not np.array_equal(seven, forty_two)


def test_images_of_other_shapes_are_fitted():
    images = [(0, np.zeros((50, 100, 3), np.uint8)), (1, np.full((300, 100, 3), 9, np.uint8))]
    sheet = draw_sheet(images, columns=2, width=100)
    assert sheet.shape == (58, 212, 3)
    assert sheet[52, 108 + 8].tolist() == [9, 9, 9]
    assert (sheet[30, 108 + 30] == 255).all()


def test_the_program_writes_a_png(picture_folder, tmp_path, capsys):
    path = tmp_path / 'new' / 'sheet.png'
    assert main([str(picture_folder), str(path), '--columns', '3', '--frames', '6', '--width', '60']) == 0
    assert '6 frames' in capsys.readouterr().out
    assert cv2.imread(str(path)).shape == (2 * 44 + 4, 3 * 64 + 4, 3)


def test_mistakes_are_told(picture_folder, tmp_path, capsys):
    assert main([str(picture_folder), str(tmp_path / 'sheet.jpg')]) == 2
    assert 'ends in .png' in capsys.readouterr().err
    (tmp_path / 'file').write_text('')
    assert main([str(picture_folder), str(tmp_path / 'file' / 'sheet.png')]) == 2
    assert 'cannot be written' in capsys.readouterr().err
