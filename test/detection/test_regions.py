from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.detection.config import MaskConfig
from moving_object_detector.detection.regions import TINT, Region, draw_overlay, find_regions


def test_boxes_areas_and_scores() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[2:6, 3:8] = 0.8
    probability[10:18, 20:30] = 0.6
    probability[11, 21] = 1.0
    mask, regions = find_regions(probability, MaskConfig(threshold=0.5, min_area=0.01))
    assert regions == [
        Region(x=20, y=10, width=10, height=8, area=80, score=pytest.approx((79 * 0.6 + 1) / 80)),
        Region(x=3, y=2, width=5, height=4, area=20, score=pytest.approx(0.8)),
    ]
    assert np.array_equal(mask, np.where(probability > 0, 255, 0))


def test_a_score_is_asked_for_each_region_at_its_place() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[4:9, 5:12] = probability[12:15, 20:28] = 0.7
    seen = []

    def score(region: np.ndarray) -> float:
        seen.append(region)
        return 0.9 if region[5, 6] else 0.1

    mask, regions = find_regions(probability, MaskConfig(), score, 0.5)
    assert [(found.dtype, found.sum()) for found in seen] == [(np.bool_, 35), (np.bool_, 24)]
    assert np.array_equal(seen[0] | seen[1], probability > 0)
    assert [(region.x, region.y, region.score) for region in regions] == [(5, 4, 0.9)]
    assert mask[4:9, 5:12].all()
    assert mask.astype(bool).sum() == 35


def test_specks_are_neither_in_the_mask_nor_a_region() -> None:
    probability = np.zeros((20, 30), np.float32)
    probability[0, 0] = probability[5:8, 5:8] = 0.9
    mask, regions = find_regions(probability, MaskConfig(min_area=9 / 600))
    assert [region.area for region in regions] == [9]
    assert mask[0, 0] == 0
    assert mask[6, 6] == 255


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    probability = np.zeros((8, 8), np.float32)
    probability[1, 1] = probability[2, 2] = 1.0
    _, regions = find_regions(probability, MaskConfig(min_area=0.0))
    assert [(region.area, region.width, region.height) for region in regions] == [(2, 2, 2)]


def test_the_threshold_itself_is_inside() -> None:
    probability = np.full((4, 4), 0.5, np.float32)
    assert find_regions(probability, MaskConfig(threshold=0.5))[0].all()
    assert not find_regions(probability, MaskConfig(threshold=0.51))[0].any()


def test_the_overlay_tints_the_mask_and_leaves_the_rest() -> None:
    image = np.full((100, 200, 3), 100, np.uint8)
    mask = np.zeros((100, 200), np.uint8)
    mask[30:70, 50:150] = 255
    picture = draw_overlay(image, mask)
    assert (image == 100).all()
    assert np.array_equal(picture[50, 100], np.round(0.55 * 100 + 0.45 * np.array(TINT)).astype(np.uint8))
    outside = np.ones_like(mask, bool)
    outside[28:72, 48:152] = False
    assert (picture[outside] == 100).all()
