"""The levels of 16-bit images are set alike in every program that reads footage."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pytest

from moving_object_detector.bench.measure import _clip as clip
from moving_object_detector.evaluation.clips import open_clips
from moving_object_detector.evaluation.options import add_flags, read_flags
from moving_object_detector.training.config import DataConfig
from moving_object_detector.training.flow_cache import _clip_key
from moving_object_detector.training.run import clips_of

BLACK, WHITE = 1000, 1000 + 255 * 8
EXPECTED = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def folder(tmp_path):
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), (BLACK + EXPECTED.astype(np.uint16) * 8))
    return tmp_path


def test_evaluate(folder):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    words = ['--dataset', 'folder', '--root', str(folder), '--black', str(BLACK), '--white', str(WHITE)]
    (found,), _ = open_clips(read_flags(parser.parse_args(words)))
    assert all(np.array_equal(frame.image[:, :, 1], EXPECTED) for frame in found.open())


def test_train_and_its_cache(folder):
    (found,) = clips_of(DataConfig(root=str(folder), black=BLACK, white=WHITE))
    assert all(np.array_equal(frame.image[:, :, 1], EXPECTED) for frame in found.source())
    (automatic,) = clips_of(DataConfig(root=str(folder)))
    assert _clip_key(found, {}) != _clip_key(automatic, {})


def test_bench(folder):
    assert np.array_equal(clip(str(folder), 1, (BLACK, WHITE))[0, :, :, 1], EXPECTED)
