"""Flow in files and as colours."""

from __future__ import annotations

import colorsys
import math
import struct

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.pictures import flow_colours, read_flow, write_flow


@pytest.fixture
def flow():
    return np.random.default_rng(1).normal(0, 20, (5, 7, 2)).astype(np.float32)


def test_round_trip(tmp_path, flow):
    write_flow(tmp_path / 'a.flo', flow)
    again = read_flow(tmp_path / 'a.flo')
    assert again.dtype == np.float32
    assert np.array_equal(again, flow)
    again[0, 0] = 5  # the array owns its memory


def test_opencv_reads_what_was_written_and_the_other_way_round(tmp_path, flow):
    write_flow(tmp_path / 'a.flo', flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / 'a.flo')), flow)
    cv2.writeOpticalFlow(str(tmp_path / 'b.flo'), flow)
    assert np.array_equal(read_flow(tmp_path / 'b.flo'), flow)


def test_bytes_by_hand(tmp_path):
    write_flow(tmp_path / 'a.flo', np.array([[[1.0, 2.0]], [[3.0, 4.0]]], np.float32))
    assert (tmp_path / 'a.flo').read_bytes() == b'PIEH' + struct.pack('<2i4f', 1, 2, 1, 2, 3, 4)


def test_strided_and_double_fields(tmp_path, flow):
    write_flow(tmp_path / 'a.flo', flow.astype(np.float64)[::2, ::-1])
    assert np.array_equal(read_flow(tmp_path / 'a.flo'), flow[::2, ::-1])


def test_a_published_file(shared):
    pair = shared / 'data' / 'flow' / 'rubberwhale'
    flow = read_flow(pair / 'flow.flo')
    assert flow.shape == (*cv2.imread(str(pair / 'frame1.png')).shape[:2], 2)
    # Motions of this pair reach 4.6 pixels; 1e9 marks what is not known.
    known = np.abs(flow).max(2) < 1e8
    assert 0.9 < known.mean() < 1
    assert 2 < np.linalg.norm(flow[known], axis=1).max() < 6


@pytest.mark.parametrize(
    'data',
    [
        None,
        b'',
        b'PIEH',
        b'\x89PNG' + bytes(40),
        b'PIEH' + struct.pack('<2i', 2, 2) + bytes(31),
        b'PIEH' + struct.pack('<2i', -2, -2) + bytes(32),
        b'PIEH' + struct.pack('<2i', 0, 2),
        b'PIEH' + struct.pack('<2i', 2**31 - 1, 2**31 - 1),
    ],
)
def test_damaged_and_missing_files(tmp_path, data):
    path = tmp_path / 'bad.flo'
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=r'bad\.flo'):
        read_flow(path)


def test_colours_are_those_of_the_standard_library():
    flow = np.random.default_rng(3).normal(0, 5, (9, 11, 2)).astype(np.float32)
    expected = np.zeros((9, 11, 3))
    for (y, x), speed in np.ndenumerate(np.hypot(flow[:, :, 0], flow[:, :, 1]) / 8.0):
        hue = math.atan2(flow[y, x, 1], flow[y, x, 0]) / math.tau % 1
        expected[y, x] = colorsys.hsv_to_rgb(hue, min(speed, 1), 1 if speed <= 1 else 0.75)
    assert np.abs(flow_colours(flow, 8.0) - 255 * expected).max() <= 1


@pytest.mark.parametrize(
    ('vector', 'strong', 'weak'),
    [((1, 0), 'r', 'gb'), ((0, 1), 'g', 'b'), ((-1, 0), 'gb', 'r'), ((0, -1), 'b', 'g')],
)
def test_directions(vector, strong, weak):
    pixel = flow_colours(np.full((1, 1, 2), vector, np.float32), 1.0)[0, 0]
    channels = dict(zip('rgb', pixel.tolist(), strict=True))
    assert all(channels[name] > 190 for name in strong)
    assert all(channels[name] < 60 for name in weak)


def test_stillness_is_white_and_the_unknown_black():
    flow = np.zeros((2, 2, 2), np.float32)
    assert (flow_colours(flow) == 255).all()
    flow[0, 0], flow[1, 1, 0] = 2e9, np.nan
    colours = flow_colours(flow)
    assert (colours[0, 0] == 0).all()
    assert (colours[1, 1] == 0).all()
    assert (colours[0, 1] == 255).all()


def test_full_colour_is_at_the_99th_percentile():
    flow = np.zeros((10, 100, 2), np.float32)
    flow[:, :, 0] = np.linspace(0, 100, 1000).reshape(10, 100)
    assert np.array_equal(flow_colours(flow), flow_colours(flow, 99.0))
