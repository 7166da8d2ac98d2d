import shutil

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.media.pictures import write_flow
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.training.flow_pairs import FlowPairOptions
from moving_object_detector.training.flow_training import (
    Errors,
    Sample,
    average,
    compare,
    folder_samples,
    held_out_samples,
    network_error,
    sample_error,
)


@pytest.fixture
def pair(tmp_path):
    """A folder with one pair, whose flow is (3, 4) and not known in the first row."""
    folder = tmp_path / 'pairs' / 'one'
    folder.mkdir(parents=True)
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ('frame1.png', 'frame2.png'):
        cv2.imwrite(str(folder / name), image)
    flow = np.full((64, 64, 2), (3, 4), np.float32)
    flow[0] = 1e10
    write_flow(folder / 'flow.flo', flow)
    return folder


def test_errors_by_hand(pair):
    """The frames are the same: DIS finds no motion and is wrong by 5, as is a network that finds none."""
    (sample,) = folder_samples(pair.parent)
    assert sample.name == 'one'
    assert sample.size == (64, 64)
    network = PWCNet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    (errors,) = compare(network, [sample], torch.device('cpu'))
    assert errors.network == pytest.approx(5)
    assert errors.dis == pytest.approx(5, abs=0.05)
    assert errors.still == pytest.approx(5)
    with torch.no_grad():
        # The last layer's bias is the flow / 20: (3, 1) is 3 off.
        network.dc_conv7.bias.copy_(torch.tensor((3 / 20, 1 / 20)))
    assert network_error(network, sample, torch.device('cpu')) == pytest.approx(3, abs=1e-4)


def test_the_mean_over_samples():
    errors = [Errors('a', 1, 2, 3), Errors('b', 3, 6, 9)]
    assert average(errors, 'both') == Errors('both', 2, 4, 6)


def test_wrong_folders(pair, tmp_path):
    with pytest.raises(UserError, match='no such folder'):
        folder_samples(tmp_path / 'missing')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no pair here'):
        folder_samples(tmp_path / 'empty')
    shutil.copytree(pair, pair.parent / 'two')
    (pair.parent / 'two' / 'frame2.png').unlink()
    with pytest.raises(UserError, match=r'two: has 0 of frame2'):
        folder_samples(pair.parent)
    cv2.imwrite(str(pair.parent / 'two' / 'frame2.png'), np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(UserError, match=r'\(64, 64\) and \(32, 64\)'):
        folder_samples(pair.parent)


def test_held_out_scenes():
    options = FlowPairOptions((64, 64))
    samples = held_out_samples(1, 3, options)
    again = held_out_samples(1, 2, options)
    assert all(np.array_equal(a.first, b.first) for a, b in zip(samples, again, strict=False))
    # Every sample is of a scene of its own.
    assert len({sample.flow.tobytes() for sample in samples}) == 3
    assert all(isinstance(sample, Sample) and sample.first.shape == (64, 64, 3) for sample in samples)


def test_published_pairs(shared):
    """The errors of DIS on the published pairs, as measured with another program."""
    known = {'chairs1': 1.59, 'chairs2': 3.45, 'chairs3': 1.32, 'chairs4': 2.67, 'rubberwhale': 0.23}
    samples = {sample.name: sample for sample in folder_samples(shared / 'data' / 'flow')}
    assert known.keys() <= samples.keys()
    for name, expected in known.items():
        found = sample_error(DisFlow(samples[name].size), samples[name])
        print(f'{name}: DIS {found:.2f}, known {expected:.2f}')
        assert found == pytest.approx(expected, rel=0.04)
