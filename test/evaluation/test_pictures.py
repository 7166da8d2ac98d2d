from __future__ import annotations

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.evaluation.run import TRUTH, FramePicker, draw_judged

GREY = np.full((60, 100, 3), 128, np.uint8)


def square(top, left, side=20, shape=(60, 100)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = 255
    return mask


def blue(picture):
    """Where the truth's outline is drawn."""
    red, green, blue = np.moveaxis(picture.astype(int), 2, 0)
    assert TRUTH[2] > TRUTH[1] > TRUTH[0]
    return (blue > green + 20) & (green > red + 20)


def test_mask_is_tinted_and_truth_outlined():
    mask, truth = square(20, 10), square(20, 60) > 0
    image, kept = GREY.copy(), (GREY.copy(), mask.copy(), truth.copy())
    picture = draw_judged(image, mask, truth)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    red, green, _ = picture[30, 20].astype(int)
    assert red > green + 40
    assert (picture[30, 70] == 128).all()  # the truth's inside stays as it was
    outline = blue(picture)
    assert outline[20, 60:80].all()
    assert outline[20:40, 79].all()
    assert not outline[:, :55].any()
    assert (picture[5, 5] == 128).all()
    for before, now in zip(kept, (image, mask, truth), strict=True):
        assert np.array_equal(before, now)


def test_without_truth_nothing_is_blue():
    assert not blue(draw_judged(GREY, square(20, 10), None)).any()


def test_outlines_grow_with_the_image():
    large = np.full((1200, 2000, 3), 128, np.uint8)
    truth = square(400, 1200, 400, (1200, 2000)) > 0
    wide = blue(draw_judged(large, np.zeros((1200, 2000), np.uint8), truth))[600, 1100:1300].sum()
    thin = blue(draw_judged(GREY, np.zeros((60, 100), np.uint8), square(20, 60) > 0))[30, 55:65].sum()
    assert wide >= 2 * thin > 0


@pytest.mark.parametrize('scale', [0.5, 2])
def test_masks_of_another_size_are_fitted(scale):
    mask, truth = (cv2.resize(square(20, left), None, fx=scale, fy=scale, interpolation=0) for left in (10, 60))
    expected = draw_judged(GREY, square(20, 10), square(20, 60) > 0)
    assert np.array_equal(draw_judged(GREY, mask, truth > 0), expected)


def shade(index):
    """An image that tells its number by its brightness."""
    return np.full((36, 64, 3), index % 256, np.uint8)


def pick(scores):
    picker, drawn = FramePicker(len(scores)), []

    def draw(index):
        drawn.append(index)
        return shade(index)

    for index, j in enumerate(scores):
        picker.take(index, j, lambda index=index: draw(index))
    return picker, drawn


def test_best_and_worst_of_the_scored_frames(tmp_path):
    picker, _ = pick([None, 0.5, 0.9, 0.2, 0.9, 0.2, None])
    pictures = picker.write(tmp_path, 'car-turn')
    found = {picture.kind: picture for picture in pictures if picture.kind != 'spread'}
    assert (found['best'].frame, found['best'].file) == (2, 'pictures/car-turn/best.jpg')
    assert (found['worst'].frame, found['worst'].file) == (3, 'pictures/car-turn/worst.jpg')
    for picture in pictures:
        image = cv2.imread(str(tmp_path / picture.file))
        assert image.shape == (36, 64, 3)
        assert abs(int(image.mean()) - picture.frame) <= 2
    assert [p.frame for p in pictures if p.kind == 'spread'] == list(range(7))


def test_no_score_no_best(tmp_path):
    picker, _ = pick([None] * 5)
    assert {picture.kind for picture in picker.write(tmp_path, 'a')} == {'spread'}
    assert FramePicker(5).write(tmp_path, 'b') == ()


def test_one_frame_is_not_shown_as_best_and_worst(tmp_path):
    picker, _ = pick([None, 0.4, 0.4, None])
    assert [(p.kind, p.frame) for p in picker.write(tmp_path, 'a')][:2] == [('best', 1), ('spread', 0)]


@pytest.mark.parametrize('length', [8, 9, 31, 64, 65, 200, 1000])
def test_the_contact_sheet_is_evenly_spread_whatever_the_length(tmp_path, length):
    picker, drawn = pick([None] * length)
    frames = [picture.frame for picture in picker.write(tmp_path, 'a') if picture.kind == 'spread']
    assert (len(frames), frames[0], frames[-1]) == (8, 0, length - 1)
    gaps = np.diff(frames)
    assert gaps.max() - gaps.min() <= 1
    assert drawn == frames  # what is not kept is not drawn


def test_a_frame_without_a_mask_gives_way_to_the_next(tmp_path):
    picker = FramePicker(15)
    for index in (1, 2, 3, 9, 10):
        picker.take(index, None, lambda index=index: shade(index))
    assert [picture.frame for picture in picker.write(tmp_path, 'a')] == [1, 2, 9, 10]


def test_wide_frames_are_reduced(tmp_path):
    picker = FramePicker(1)
    picker.take(0, 0.5, lambda: np.zeros((720, 1280, 3), np.uint8))
    best, spread = picker.write(tmp_path, 'a')
    assert cv2.imread(str(tmp_path / best.file)).shape == (360, 640, 3)
    assert cv2.imread(str(tmp_path / spread.file)).shape == (180, 320, 3)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'pictures').write_text('a file')
    picker, _ = pick([0.5])
    with pytest.raises(UserError, match='pictures'):
        picker.write(tmp_path, 'a')
