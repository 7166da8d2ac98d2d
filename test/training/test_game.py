from __future__ import annotations

import pytest
import torch
from torch.utils.data import default_collate

from moving_object_detector.flow.base import motion_units
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.training.config import GameConfig
from moving_object_detector.training.game import Game, guess, revive
from moving_object_detector.training.pairs import CachedOptions, CachedPairs
from moving_object_detector.training.setup import Setup

SIZE = (32, 64)
pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture
def players():
    torch.manual_seed(3)
    return Generator(), Inpainter()


@pytest.fixture
def make_game(players, exact_clip):
    def make(precision='float32', **options):
        config = GameConfig(**{'steps': 40, 'batch': 2, 'learning_rate': 1e-3, **options})
        pairs = CachedPairs([exact_clip], 1, CachedOptions(SIZE, second_gap=config.consistency > 0))
        return Game(Setup(precision=precision), players, pairs, config, 'residual')

    return make


@pytest.fixture(scope='session')
def batch(exact_clip):
    pairs = CachedPairs([exact_clip], 5, CachedOptions(SIZE, second_gap=True))
    return default_collate([pairs[0], pairs[1]])


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def test_one_inpainter_update_then_three_of_the_generator(make_game, players, batch):
    game = make_game(generator_steps=3)
    moved = []
    for step in range(6):
        before = [weights(player) for player in players]
        values = game.step(step, batch)
        changed = [not torch.equal(weights(player), old) for player, old in zip(players, before, strict=True)]
        moved.append(dict(zip(('generator', 'inpainter'), changed, strict=True)))
        assert ('inpainter' in values, 'generator' in values) == (changed[1], changed[0])
    of_inpainter, of_generator = {'generator': False, 'inpainter': True}, {'generator': True, 'inpainter': False}
    assert moved == [of_inpainter, of_generator, of_generator, of_generator, of_inpainter, of_generator]


def test_each_player_lowers_its_own_loss(make_game, batch):
    """On one batch, the other player standing still."""
    game = make_game(generator_steps=100)
    # Steps 0, 101, 202, ... are the inpainter's.
    inpainter = [float(game.step(101 * k, batch)['inpainter']) for k in range(8)]
    generator = [float(game.step(1 + k, batch)['generator']) for k in range(8)]
    print(f'inpainter {inpainter[0]:.3f} to {inpainter[-1]:.3f}')
    print(f'generator {generator[0]:.3f} to {generator[-1]:.3f}')
    assert inpainter[-1] < 0.98 * inpainter[0]
    assert generator[-1] < generator[0]


@pytest.mark.parametrize(
    'options',
    [
        {'consistency': 0.5},
        {'adversarial': 0.0, 'consistency': 1.0},
        {'precision': 'bfloat16'},
    ],
    ids=str,
)
def test_every_form_runs(make_game, players, batch, options):
    game = make_game(**options)
    assert float(game.step(0, batch)['inpainter']) > 0
    before = weights(players[0])
    values = game.step(1, batch)
    expected = {'consistency'} if options.get('consistency') else set()
    expected |= {'generator'} if options.get('adversarial', 1.0) else set()
    assert set(values) == expected | {'area', 'revived'}
    assert all(torch.tensor(float(value)).isfinite() for value in values.values())
    assert 0 <= float(values['area']) <= 1
    assert not torch.equal(weights(players[0]), before)
    assert weights(players[0]).dtype == torch.float32


def test_mixed_precision_leaves_the_fit_of_the_camera_alone(players, batch):
    """The mask of mixed precision is that of full precision to within the networks' rounding."""
    image, prepared = batch[0], prepare_flow(batch[1], 'residual').flow
    masks = [Setup(precision=precision).run(players[0], image, prepared) for precision in ('float32', 'bfloat16')]
    exact = players[0](image, prepared)
    assert torch.equal(masks[0], exact)
    assert masks[1].dtype == torch.float32
    difference = (masks[1] - exact).abs().max()
    print(f'largest difference of a mask in mixed precision: {difference:.4f}')
    assert 0 < difference < 0.01


def test_gradients_are_clipped_by_value(make_game, players, batch):
    limit = 1e-6
    free, clipped = make_game(clip=1e6), make_game(clip=limit)
    for step, player in ((0, players[1]), (1, players[0])):
        free.step(step, batch)
        assert max(parameter.grad.abs().max() for parameter in player.parameters()) > 10 * limit
    for step, player in ((0, players[1]), (1, players[0])):
        clipped.step(step, batch)
        assert max(parameter.grad.abs().max() for parameter in player.parameters()) <= 1.001 * limit


def test_the_average_follows_and_is_what_the_game_leaves(make_game, players, batch):
    game = make_game(average=0.75)
    generator = players[0]
    game.step(0, batch)
    game.step(1, batch)
    expected = weights(generator)
    for step in (2, 3):
        game.step(step, batch)
        expected = 0.75 * expected + 0.25 * weights(generator)
    game.finish()
    assert torch.allclose(weights(generator), expected, atol=1e-7)


def test_the_average_begins_with_what_the_stages_before_have_left(make_game, players, batch):
    game = make_game(steps=1)
    with torch.no_grad():
        for parameter in players[0].parameters():
            parameter.add_(1.0)
    game.begin()
    assert torch.equal(weights(game.candidate), weights(players[0]))
    game.step(0, batch)
    assert torch.equal(weights(game.candidate), weights(players[0]))


def test_a_state_brings_everything_back(make_game, batch):
    game = make_game()
    for step in range(3):
        game.step(step, batch)
    state = torch.load(_stored(game.state_dict()), weights_only=True)
    expected = [float(next(iter(game.step(step, batch).values()))) for step in (3, 4, 5)]
    game.load_state_dict(state)
    assert [float(next(iter(game.step(step, batch).values()))) for step in (3, 4, 5)] == expected


def _stored(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def test_the_inpainter_sees_nothing_of_what_it_guesses(players, batch):
    """Flow under the mask changes no guess inside, flow outside of it no guess outside, and neither one from alone."""
    image, flow = batch[0], motion_units(batch[1])
    mask = torch.zeros(2, 1, *SIZE)
    mask[:, :, 8:20, 10:40] = 1
    with torch.no_grad():
        base = guess(players[1], image, flow, mask)
        under = guess(players[1], image, flow + 3 * mask, mask)
        around = guess(players[1], image, flow + 3 * (1 - mask), mask)
    assert torch.equal(base.inside, under.inside)
    assert not torch.equal(base.outside, under.outside)
    assert torch.equal(base.outside, around.outside)
    assert not torch.equal(base.inside, around.inside)
    assert torch.equal(base.alone, under.alone)
    assert torch.equal(base.alone, around.alone)


def gradients(scale):
    parameters = [torch.nn.Parameter(torch.zeros(100)), torch.nn.Parameter(torch.zeros(3, 5))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, scale)
    return parameters


def test_vanished_gradients_are_replaced_by_positive_noise():
    parameters = gradients(-0.9e-5)
    assert revive(parameters, 0.2, (1, 7))
    noise = torch.cat([parameter.grad.flatten() for parameter in parameters])
    assert 0 <= noise.min() < noise.max() <= 0.2
    assert noise.mean() == pytest.approx(0.1, abs=0.02)
    # The same at the same step, and another at another.
    again, other = gradients(0.0), gradients(0.0)
    assert revive(again, 0.2, (1, 7))
    assert revive(other, 0.2, (1, 8))
    assert torch.equal(again[0].grad, parameters[0].grad)
    assert not torch.equal(other[0].grad, parameters[0].grad)


@pytest.mark.parametrize('scale', [-1.1e-5, 0.3, float('nan')])
def test_other_gradients_are_left_alone(scale):
    parameters = gradients(scale)
    assert not revive(parameters, 0.2, (1, 7))
    assert torch.equal(parameters[1].grad.nan_to_num(), torch.full((3, 5), scale).nan_to_num())
