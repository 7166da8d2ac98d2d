"""The first two stages alone; the game has tests of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.data import default_collate

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import share_folder
from moving_object_detector.common.options import with_values
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import load_network, save_network
from moving_object_detector.synthetic.random_scene import SceneOptions
from moving_object_detector.training.config import InpainterConfig, RenderedConfig, TrainConfig
from moving_object_detector.training.losses import mask_loss
from moving_object_detector.training.pairs import CachedOptions, CachedPairs
from moving_object_detector.training.rendered import RenderedOptions, RenderedPairs
from moving_object_detector.training.run import make_networks
from moving_object_detector.training.setup import Setup
from moving_object_detector.training.stages import InpainterStage, MaskStage, learning_rate

SIZE = (32, 64)
pytestmark = pytest.mark.usefixtures('one_thread')


def test_learning_rate_by_hand():
    config = RenderedConfig(steps=40, learning_rate=2e-3)
    # Two steps up, then half a cosine over 38 steps, down to a hundredth.
    assert learning_rate(0, config) == pytest.approx(1e-3)
    assert learning_rate(1, config) == pytest.approx(2e-3)
    assert learning_rate(2, config) == pytest.approx(2e-3)
    assert learning_rate(21, config) == pytest.approx(2e-3 * 0.505)
    assert learning_rate(39, config) == pytest.approx(2e-3 * (0.01 + 0.99 * 0.5 * (1 - math.cos(math.pi / 38))))
    assert learning_rate(0, RenderedConfig(steps=1, learning_rate=2e-3)) == pytest.approx(2e-3)


def test_the_generator_learns_from_rendered_scenes():
    """After some steps the loss on pairs that training never saw is lower than that of any constant mask."""
    options = RenderedOptions(size=SIZE, scene=SceneOptions(size=(64, 128), textures=4))
    config = with_values(TrainConfig(), {'network.height': SIZE[0], 'network.width': SIZE[1]})
    generator, _ = make_networks(config)
    stage = MaskStage(Setup(), generator, RenderedPairs(1, options), RenderedConfig(steps=40, batch=4), 'residual')
    for step, batch in enumerate(stage.batches(0)):
        stage.step(step, batch)
    stage.load_state_dict(stage.state_dict())

    pairs = RenderedPairs(99, options)
    image, flow, mask = default_collate([pairs[k] for k in range(24)])
    with torch.no_grad():
        loss = float(mask_loss(generator.mask_logits(image, prepare_flow(flow, 'residual').flow), mask))
        constants = [float(mask_loss(torch.full_like(mask, p), mask)) for p in torch.linspace(-5, 5, 50).tolist()]
    print(f'loss {loss:.3f}, best constant {min(constants):.3f}')
    assert loss < min(constants)


@pytest.mark.parametrize('flow_input', ['residual', 'both_sides'])
def test_a_teacher_pulls_the_rendered_stage_toward_its_own_masks(flow_input):
    """A teacher that finds nothing anywhere leaves a generator with smaller masks than the exact ones alone."""
    options = RenderedOptions(size=SIZE, scene=SceneOptions(size=(64, 128), textures=4), flow_input=flow_input)
    # Of both sides it teaches what shows one alone.
    rendered = RenderedPairs(1, replace(options, one_side=1.0))
    pairs = [rendered[k] for k in range(48)]
    # Of both sides it sees one at a time.
    blind = Generator(2 if flow_input == 'residual' else 8)
    with torch.no_grad():
        blind.conv17.gamma.zero_()
        blind.conv17.beta.copy_(torch.tensor((-50.0, 50.0)))
    areas = []
    for teacher in (None, blind):
        torch.manual_seed(1)
        sizes = {'network__height': SIZE[0], 'network__width': SIZE[1]}
        generator = make_networks(configured(**sizes, network__flow_input=flow_input))[0]
        config = RenderedConfig(steps=12, batch=4)
        stage = MaskStage(Setup(), generator, pairs, config, flow_input, teacher)
        for step, batch in enumerate(stage.batches(0)):
            stage.step(step, batch)
        image, flow, _ = default_collate(pairs[:8])
        with torch.no_grad():
            areas.append(float(generator(image, prepare_flow(flow, flow_input).flow).mean()))
    assert areas[1] < 0.9 * areas[0]


def test_a_teacher_of_one_side_says_nothing_where_its_pupil_sees_both():
    options = RenderedOptions(size=SIZE, scene=SceneOptions(size=(64, 128), textures=4), flow_input='both_sides')
    losses = []
    for one_side, teacher in ((0.0, None), (0.0, Generator(8)), (1.0, Generator(8))):
        torch.manual_seed(1)
        sizes = {'network__height': SIZE[0], 'network__width': SIZE[1]}
        generator = make_networks(configured(**sizes, network__flow_input='both_sides'))[0]
        pairs = RenderedPairs(1, replace(options, one_side=one_side))
        stage = MaskStage(Setup(), generator, pairs, RenderedConfig(steps=1, batch=2), 'both_sides', teacher)
        losses.append(stage.step(0, default_collate([pairs[k] for k in range(2)]))['loss'])
    assert losses[0] == losses[1]
    assert losses[2] != losses[0]


def test_the_rendered_stage_leaves_the_averaged_weights():
    torch.manual_seed(1)
    generator = Generator()
    pairs = RenderedPairs(1, RenderedOptions(size=SIZE, scene=SceneOptions(size=(64, 128), textures=4)))
    stage = MaskStage(Setup(), generator, pairs, RenderedConfig(steps=3, batch=1, average=0.5), 'residual')
    passed = []
    for step, batch in enumerate(stage.batches(0)):
        stage.step(step, batch)
        passed.append(generator.conv1.conv.weight.detach().clone())
    stage.finish()
    assert torch.allclose(generator.conv1.conv.weight, 0.25 * passed[0] + 0.25 * passed[1] + 0.5 * passed[2], atol=1e-7)


@pytest.fixture
def make_inpainter_stage(exact_clip):
    def make(precision='float32'):
        torch.manual_seed(2)
        pairs = CachedPairs([exact_clip], 1, CachedOptions(SIZE))
        setup = Setup(precision=precision)
        config = InpainterConfig(steps=30, batch=2, learning_rate=1e-3)
        return InpainterStage(setup, Inpainter(), pairs, config)

    return make


def test_the_inpainter_learns_to_fill_boxes(make_inpainter_stage):
    stage = make_inpainter_stage()
    losses = [float(stage.step(step, batch)['loss']) for step, batch in enumerate(stage.batches(0))]
    print(f'{sum(losses[:5]) / 5:.3f} to {sum(losses[-5:]) / 5:.3f}')
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_inpainter_runs_in_mixed_precision(make_inpainter_stage):
    stage = make_inpainter_stage(precision='bfloat16')
    exact = make_inpainter_stage()
    batch = next(iter(stage.batches(0)))
    assert float(stage.step(0, batch)['loss']) == pytest.approx(float(exact.step(0, batch)['loss']), rel=0.02)


def configured(**values):
    return with_values(TrainConfig(), {name.replace('__', '.'): value for name, value in values.items()})


def test_networks_are_a_function_of_the_seed():
    first, again, other = (make_networks(configured(run__seed=seed)) for seed in (1, 1, 2))
    for one, two, three in zip(first, again, other, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True))


def test_a_run_starts_from_the_files_that_it_is_given(tmp_path):
    about = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}
    generator, inpainter = make_networks(configured(run__seed=5))
    save_network(generator, tmp_path / 'g.safetensors', about)
    save_network(inpainter, tmp_path / 'i.safetensors', about)
    start = {'start__model': str(tmp_path / 'g.safetensors'), 'start__inpainter': str(tmp_path / 'i.safetensors')}
    for made, given in zip(make_networks(configured(**start)), (generator, inpainter), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(made.parameters(), given.parameters(), strict=True))
    with pytest.raises(UserError, match='inpainter where generator'):
        make_networks(configured(start__model=start['start__inpainter']))


def test_the_inpainter_of_the_package_to_start_from():
    _, inpainter = make_networks(configured(start__inpainter='default'))
    shipped = load_network(share_folder() / 'models' / 'inpainter.safetensors', 'inpainter')[0].state_dict()
    assert all(torch.equal(weight, shipped[name]) for name, weight in inpainter.state_dict().items())
