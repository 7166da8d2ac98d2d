from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from moving_object_detector.datasets.davis import read_davis
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.evaluation.baselines import homography_residual, otsu, residual_magnitude
from moving_object_detector.evaluation.evaluate import main
from moving_object_detector.evaluation.run import score_sequence

HEIGHT, WIDTH = 64, 96


def camera_flow(homography):
    """The flow of a homography, by its definition, pixel by pixel."""
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            px, py, pw = homography @ (x, y, 1)
            flow[y, x] = px / pw - x, py / pw - y
    return flow


CAMERA = np.array(((1.01, 0.02, -3.0), (-0.015, 0.99, 2.0), (1e-4, -5e-5, 1.0)))


def test_what_is_left_is_the_objects_own_motion():
    flow = camera_flow(CAMERA)
    assert residual_magnitude(flow).max() < 0.01
    flow[20:50, 30:60] += (3, -4)
    left = residual_magnitude(flow)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[20:50, 30:60] = True
    assert np.abs(left[inside] - 5).max() < 0.05
    assert left[~inside].max() < 0.05


@pytest.mark.parametrize('value', [0, 7])
def test_flow_that_is_the_same_everywhere_leaves_nothing(value):
    assert residual_magnitude(np.full((HEIGHT, WIDTH, 2), value, np.float32)).max() < 1e-3


def test_flow_that_leads_to_one_point_is_measured_from_rest():
    """No homography leads all points to one: then nothing is taken off."""
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    left = residual_magnitude(np.stack((-xs, -ys), 2))
    assert np.isfinite(left).all()


def exhaustive_otsu(values):
    """The partition into low and high that has the largest variance between the classes, trying every value."""
    best, threshold = -1.0, 0.0
    for candidate in np.unique(values)[:-1]:
        low, high = values[values <= candidate], values[values > candidate]
        between = low.size * high.size * (low.mean() - high.mean()) ** 2
        if between > best:
            best, threshold = between, candidate
    return values > threshold


def test_otsu_against_trying_every_threshold():
    rng = np.random.default_rng(3)
    for share in (0.05, 0.3, 0.7):
        values = np.where(rng.random((30, 40)) < share, rng.normal(5, 0.7, (30, 40)), rng.normal(1, 0.5, (30, 40)))
        values = np.abs(values).astype(np.float32)
        found = otsu(values)
        assert set(np.unique(found)) == {0, 255}
        assert np.mean((found > 0) != exhaustive_otsu(values)) < 0.002
    assert not otsu(np.zeros((4, 5), np.float32)).any()


def test_every_frame_gets_a_mask_on_its_object(davis):
    wander = read_davis(davis, 'val')[0]
    findings = list(homography_residual(wander))
    assert [finding.index for finding in findings] == list(range(6))
    assert np.array_equal(findings[0].image[:, :, ::-1], cv2.imread(str(wander.images[0])))
    for finding, annotation in zip(findings, wander.annotations, strict=True):
        truth = annotation.read()
        assert finding.mask.shape == truth.shape
        assert (finding.mask[truth] > 0).mean() > 0.6
        assert (finding.mask[~truth] > 0).mean() < 0.2
    score = score_sequence(homography_residual, wander, lambda _: None)
    assert score.mean > 0.5


def test_short_sequences(davis):
    wander = read_davis(davis, 'val')[0]
    assert not list(homography_residual(Sequence('none', (), ())))
    assert not list(homography_residual(Sequence('one', wander.images[:1], (None,))))
    assert [f.index for f in homography_residual(Sequence('two', wander.images[:2], (None, None)))] == [0, 1]


def test_the_baseline_is_scored_by_the_same_program(davis, tmp_path, capsys):
    assert main(['--root', str(davis), '--baseline', 'homography', '--out', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    last = re.fullmatch(r'J (\d\.\d{3}) frames 12 fps \d+\.\d\d', out.splitlines()[-1])
    report = json.loads((tmp_path / 'results.json').read_text())
    assert report['baseline'] == 'homography'
    assert last[1] == f'{report["mean J"]:.3f}'
    for name in ('wander', 'blink'):
        scores = report['sequences'][name]
        assert scores['mean J'] == pytest.approx(sum(scores['frames'][1:-1]) / 4)
        assert cv2.imread(str(tmp_path / f'{name}.png')).std() > 5


@pytest.mark.parametrize('more', [['--set', 'window.past=1'], ['--config', 'x.yaml'], ['--estimate', 'zero_lag']])
def test_the_detectors_options_are_not_the_baselines(davis, more, capsys):
    assert main(['--root', str(davis), '--baseline', 'homography', *more]) == 2
    assert 'error: the baseline homography takes no --config, --set or --estimate' in capsys.readouterr().err
