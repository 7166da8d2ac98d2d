"""A minute of training on rendered clips: both players learn."""

from __future__ import annotations

import cv2
import pytest
import torch
from torch.utils.data import default_collate

from moving_object_detector.common.parameter_files import load_config, load_plain_config
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.flow.base import motion_units
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.weights import load_network
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.training.config import TrainConfig
from moving_object_detector.training.game import guess
from moving_object_detector.training.loop import read_log
from moving_object_detector.training.losses import generator_loss
from moving_object_detector.training.pairs import CachedOptions, CachedPairs
from moving_object_detector.training.run import open_footage
from moving_object_detector.training.setup import Setup
from moving_object_detector.training.train import main

SEEDS = (7, 11)
OPTIONS = [
    'data.height=64', 'data.width=128', 'data.largest_gap=2', 'flow.height=96', 'flow.width=192', 'network.height=48',
    'network.width=96', 'rendered.steps=16', 'rendered.batch=4', 'inpainter.steps=32', 'inpainter.batch=4',
    'inpainter.learning_rate=0.001', 'game.steps=60', 'game.batch=4', 'game.learning_rate=0.0003', 'run.candidates=2',
    'run.device=cpu',
]  # fmt: skip


def generator_losses(config, out):
    """Return the generator's loss before and after the game, both against the inpainter that the game has left.

    In the log it rises while the inpainter becomes better.
    """
    footage = open_footage(config, out, Setup())
    pairs = CachedPairs(footage.clips, 0, CachedOptions((48, 96)))
    image, flow = default_collate([pairs[number] for number in range(16)])[:2]
    prepared, target = prepare_flow(flow, 'residual').flow, motion_units(flow)
    inpainter = load_network(out / 'generator-inpainter.safetensors', 'inpainter')[0]
    found = []
    with torch.inference_mode():
        for step in (0, config.game.steps):
            mask = load_network(out / 'candidates' / f'game-{step:06d}.safetensors')[0](image, prepared)
            found.append(float(generator_loss(target, mask, guess(inpainter, image, target, mask))))
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_players_learn(tmp_path, capsys):
    clips = [tmp_path / f'clip{seed}' for seed in SEEDS]
    for seed, clip in zip(SEEDS, clips, strict=True):
        (clip / 'frames').mkdir(parents=True)
        scene = clip_scene(seed, SceneOptions((96, 192), (1, 1)))
        for time in range(12):
            cv2.imwrite(str(clip / 'frames' / f'{time:05d}.png'), scene.image(time)[..., ::-1])
    options = [*OPTIONS, 'data.root=' + ','.join(str(clip / 'frames') for clip in clips)]
    out = tmp_path / 'run'
    assert main(['--out', str(out), '--set', *options]) == 0
    boxes = [line['loss'] for line in read_log(out / 'log.jsonl') if line['stage'] == 'inpainter']
    first, last = sum(boxes[:8]) / 8, sum(boxes[-8:]) / 8
    before, after = generator_losses(load_plain_config(TrainConfig(), None, options), out)
    print(f'boxes {first:.3f} to {last:.3f}, generator {before:.3f} to {after:.3f}')
    assert last < first
    assert after < before
    told = capsys.readouterr().out
    for word in ('agreement of masks', 'empty masks', 'before.png', 'after.png', 'ros2 run', '-p model:='):
        assert word in told
    assert (out / 'before.png').is_file()
    assert (out / 'after.png').is_file()


def test_a_generator_of_both_sides_goes_through_every_stage(footage, tmp_path):
    """From the package's of one side, which teaches it too; what comes out is one that the detector runs."""
    teacher = tmp_path / 'teacher.yaml'
    teacher.write_text('/**: {ros__parameters: {engine: torch, flow.preset: fast, window.past: 1, window.future: 1}}')
    values = [
        *OPTIONS, f'data.root={footage.parent}', f'data.cache={tmp_path / "cache"}', 'flow.preset=fast',
        'network.flow_input=both_sides', 'start.model=default', 'rendered.teacher=default', 'rendered.steps=2',
        'rendered.kept=32', 'inpainter.steps=1', 'game.steps=4', 'game.consistency=0', 'teacher.steps=2',
        'teacher.batch=2', f'teacher.detector={teacher}', 'run.threads=1', 'run.workers=0',
    ]  # fmt: skip
    assert main(['--out', str(tmp_path / 'out'), '--set', *values]) == 0
    model = tmp_path / 'out' / 'generator.safetensors'
    network, about = load_network(model)
    assert (network.flow_channels, about['flow_input']) == (16, 'both_sides')
    stages = [line['stage'] for line in read_log(tmp_path / 'out' / 'log.jsonl')]
    assert list(dict.fromkeys(stages)) == ['rendered', 'inpainter', 'game', 'teacher']
    options = ['device=cpu', 'engine=torch', f'model={model}', 'window.past=1', 'window.future=1']
    detector = build_detector(load_config(DetectorConfig(), None, options))
    scene = clip_scene(5, SceneOptions(size=(64, 128), textures=4))
    results = [result for k in range(3) for result in detector.step(scene.image(k), k * 40_000_000).results]
    assert {result.estimate for result in results} == {'zero_lag', 'refined'}
    assert all(result.mask.shape == (64, 128) for result in results)
