"""Runs of the program ``train`` in which the inpainter alone is trained."""

from __future__ import annotations

import pytest
import torch
from training_runs import SMALL

from moving_object_detector.networks.weights import load_weights
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.run import make_networks
from moving_object_detector.training.train import main

ALONE = [*SMALL, 'rendered.steps=0', 'game.steps=0', 'run.threads=0']


@pytest.mark.parametrize('on', ['rendered scenes', 'footage'])
def test_it_leaves_an_inpainter_and_nothing_else(on, footage, tmp_path, capsys):
    more = [f'data.root={footage}'] if on == 'footage' else []
    assert main(['--out', str(tmp_path), '--set', *ALONE, *more]) == 0
    model = tmp_path / 'generator-inpainter.safetensors'
    assert capsys.readouterr().out.splitlines() == [str(model), str(model.with_suffix('.md'))]
    assert [path.name for path in tmp_path.glob('*.safetensors')] == [model.name]
    found, metadata = load_weights(model, 'inpainter')
    assert (metadata['height'], metadata['width']) == ('32', '64')
    _, start = make_networks(TrainConfig())
    assert not any(torch.equal(found[name], tensor) for name, tensor in start.state_dict().items() if 'weight' in name)
    card = model.with_suffix('.md').read_text()
    footage_row = {'rendered scenes': 'none: rendered scenes', 'footage': '1 clips, 8 frames: walk'}
    assert f'| unlabelled video | {footage_row[on]} |' in card
    assert '| stage inpainter | 3 steps of 2 pairs |' in card
    assert 'ros2 run moving_object_detector train --out' in card
