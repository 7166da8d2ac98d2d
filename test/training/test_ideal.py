from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.parameter_files import load_plain_config
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.base import motion_units
from moving_object_detector.networks.weights import load_network
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.ideal import (
    IDEAL_WARNING,
    IdealPairs,
    annotated_frames,
    constant_flows,
    ideal_masks,
    ideal_scores,
)
from moving_object_detector.training.run import run_training

SIZE = (32, 64)


@pytest.fixture
def davis(tmp_path, write_davis):
    """DAVIS 2016 in small: ``walk`` with an object in five frames, and in none of its sixth; ``still`` without any."""
    rng = np.random.default_rng(4)

    def frame(number, there):
        image = cv2.resize(rng.integers(0, 256, (8, 16, 3), np.uint8), (128, 64), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((64, 128), np.uint8)
        mask[16:48, 20 + 8 * number : 60 + 8 * number] = 255 if there else 0
        return image, mask

    sequences = {name: [frame(k, name == 'walk' and k < 5) for k in range(6)] for name in ('walk', 'still')}
    return write_davis(tmp_path / 'davis', 'train', sequences)


@pytest.fixture
def frames(davis):
    return annotated_frames(find_clips([str(davis)], 'train', None), SIZE)


def test_frames_with_object_and_background_are_read(frames):
    assert [(frame.clip, frame.number) for frame in frames] == [(0, number) for number in range(5)]
    for frame in frames:
        expected = np.zeros(SIZE, bool)
        expected[8:24, 10 + 4 * frame.number : 30 + 4 * frame.number] = True
        assert np.array_equal(frame.mask, expected)
        assert frame.image.shape == (*SIZE, 3)
        assert frame.annotation.read().shape == (64, 128)


def test_frames_are_spread_and_bounded(davis):
    clips = find_clips([str(davis)], 'train', None)
    assert [frame.number for frame in annotated_frames(clips, SIZE, most=6)] == [0, 2]  # 0, 2 and 5 of both clips
    with pytest.raises(UserError, match=r'--ideal .* with objects'):
        annotated_frames(clips[1:], SIZE)
    with pytest.raises(UserError, match=r'--ideal .* with objects'):
        annotated_frames([replace(clips[0], annotations=())], SIZE)


def test_flow_is_one_constant_inside_and_another_outside():
    """Uniform within plus and minus an eighth of the width, whatever the size; all four numbers independent."""
    rng = np.random.default_rng(1)
    mask = torch.zeros(1, 32, 64)
    mask[:, 4:20, 30:50] = 1
    inside = (mask > 0.5).expand(2, -1, -1)
    numbers = []
    for _ in range(600):
        flow = constant_flows(rng, mask)
        units = motion_units(flow[None])[0]
        values = [units[:, 4, 30], units[:, 0, 0]]
        assert torch.equal(units[inside], values[0].repeat_interleave(16 * 20))
        assert torch.equal(units[~inside], values[1].repeat_interleave(32 * 64 - 16 * 20))
        numbers.append(torch.cat(values).numpy())
    numbers = np.array(numbers)
    assert np.abs(numbers).max() <= 1
    assert np.allclose(numbers.mean(0), 0, atol=0.1)
    assert np.allclose(numbers.std(0), 3**-0.5, atol=0.05)  # of a uniform variable within plus and minus 1
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.15


def test_pairs_are_views_of_the_frames(frames):
    pairs = IdealPairs(frames, 5, 0.6)
    seen = Counter()
    for k in range(60):
        image, flow, (clip, number, _) = pairs[k]
        assert image.shape == (3, *SIZE)
        assert -0.5001 < image.min() < image.max() < 0.5001
        assert 1 <= len(flow.flatten(1).unique(dim=1)[0]) <= 2
        seen[int(clip), int(number)] += 1
    assert set(seen) == {(0, number) for number in range(5)}
    again = IdealPairs(frames, 5, 0.6)
    assert all(torch.equal(a, b) for a, b in zip(pairs[33], again[33], strict=True))
    assert not torch.equal(pairs[33][1], IdealPairs(frames, 6, 0.6)[33][1])


def test_image_and_mask_are_cut_and_mirrored_alike(frames):
    """A frame whose image is its mask: the flow's region is where the picture is bright, in any view."""
    bright = [replace(frame, image=np.repeat(frame.mask[:, :, None], 3, 2).astype(np.uint8) * 255) for frame in frames]
    places = set()
    for k in range(40):
        image, flow, _ = IdealPairs(bright, 7, 0.6)[k]
        region = image[0] > 0
        if not region.any():
            continue
        assert len(flow[:, region].unique(dim=1)[0]) == 1
        assert len(flow[:, ~region].unique(dim=1)[0]) == 1
        rows, columns = torch.nonzero(region, as_tuple=True)
        places.add((bool(columns.float().mean() > 32), bool(rows.float().mean() > 15.5)))
    assert len(places) == 4


class Border(torch.nn.Module):
    """A generator that says 0.9 where the flow is not that of the upper left corner."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.9))

    def forward(self, image, flow):
        differs = (flow - flow[:, :, :1, :1]).abs().sum(1, keepdim=True) > 1e-3
        return self.gain * differs


@pytest.mark.parametrize('flow_input', ['normalised', 'residual'])
def test_a_perfect_and_an_empty_generator_by_hand(frames, flow_input):
    masks = ideal_masks(Border(), frames, flow_input, seed=3)
    for frame, mask in zip(frames, masks, strict=True):
        assert np.array_equal(mask > 0.5, frame.mask)
    # Edges of the masks are on whole pixels of the network's size, so nothing but their rounded corners is lost.
    assert ideal_scores(frames, masks)[0] == pytest.approx(1, abs=0.02)
    assert ideal_scores(frames, [np.zeros(SIZE, np.float32)] * 5) == {0: 0}
    left = [np.where(np.arange(64) < 20 + 4 * frame.number, mask, 0) for frame, mask in zip(frames, masks, strict=True)]
    assert ideal_scores(frames, left)[0] == pytest.approx(0.5, abs=0.02)


OPTIONS = [
    'network.height=32',
    'network.width=64',
    'data.workers=0',
    'inpainter.steps=2',
    'inpainter.batch=2',
    'game.steps=5',
    'game.batch=2',
    'run.device=cpu',
    'name=check',
]


def test_a_run_says_that_the_truth_was_in_it(davis, tmp_path, capsys):
    config = load_plain_config(TrainConfig(), None, [*OPTIONS, f'data.root={davis}'])
    out = tmp_path / 'new' / 'run'
    outcome = run_training(config, out, ['--ideal', *OPTIONS], ideal=True)
    model, told = outcome.model, outcome.told
    printed = capsys.readouterr()
    assert printed.err.startswith(IDEAL_WARNING)
    last = re.fullmatch(r'J (\d\.\d{3}) frames 5', told[-1])
    assert told[-2] == IDEAL_WARNING
    assert re.search(rf'walk +J {last[1]}', '\n'.join(told))
    card = model.with_suffix('.md').read_text()
    assert 'truth entered this training' in card
    assert 'No annotated frame was used' not in card
    assert f'Mean J under ideal conditions: {last[1]}' in card
    assert cv2.imread(str(out / 'ideal.png')).shape == (3 * (32 + 4) + 4, 4 * (64 + 4) + 4, 3)
    generator, _ = load_network(model, 'generator')
    frames = annotated_frames(find_clips([str(davis)], 'train', None), SIZE)
    masks = ideal_masks(generator, frames, config.network.flow_input, config.run.seed)
    assert f'{ideal_scores(frames, masks)[0]:.3f}' == last[1]


def test_footage_is_needed(tmp_path):
    with pytest.raises(UserError, match=r'--ideal .*; give data\.root'):
        run_training(TrainConfig(), tmp_path, [], ideal=True)
