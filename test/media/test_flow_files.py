from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.media.pictures import read_flow, write_flow


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
    ('data', 'message'),
    [
        (b'', 'is not a .flo file'),
        (b'PIEH', 'is not a .flo file'),
        (b'\x89PNG' + bytes(40), 'is not a .flo file'),
        (b'PIEH' + struct.pack('<2i', 2, 2) + bytes(31), r'cut short: 2x2 takes 44 bytes, not 43'),
        (b'PIEH' + struct.pack('<2i', -2, -2) + bytes(32), 'cut short'),
        (b'PIEH' + struct.pack('<2i', 0, 2), 'cut short'),
        (b'PIEH' + struct.pack('<2i', 2**31 - 1, 2**31 - 1), 'cut short'),
    ],
)
def test_damaged_files(tmp_path, data, message):
    path = tmp_path / 'bad.flo'
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_flow(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r'none\.flo cannot be read: No such file'):
        read_flow(tmp_path / 'none.flo')
