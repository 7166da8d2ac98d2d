from __future__ import annotations

import cv2
import pytest

from moving_object_detector.bench.plot import check_plot, draw
from moving_object_detector.common.errors import UserError

pytest.importorskip('matplotlib', reason='matplotlib (requirements/report.txt) is not installed here')


def test_a_picture(frame_group, network_group, tmp_path):
    report = {'groups': [network_group, frame_group]}
    draw(report, tmp_path / 'bench.png')
    picture = cv2.imread(str(tmp_path / 'bench.png'))
    height, width = picture.shape[:2]
    assert width > 600
    assert height > 200
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)[::97]}) > 10
    draw(report, tmp_path / 'bench.svg')
    assert (tmp_path / 'bench.svg').read_text().count('<path') > 20


def test_mistakes_are_told_before_anything_is_measured(network_group, tmp_path):
    with pytest.raises(UserError, match=r'must end in \.png, \.svg, \.pdf'):
        check_plot(tmp_path / 'bench.gif')
    with pytest.raises(UserError, match='--only has chosen none'):
        draw({'groups': [network_group]}, tmp_path / 'bench.png')
    check_plot(tmp_path / 'bench.svg')
