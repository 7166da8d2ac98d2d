from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import ModelError
from moving_object_detector.evaluation.methods import Prediction
from moving_object_detector.evaluation.signals import SMALLEST_FLOW, InpaintingScore, Signals, information_reduction
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import load_network, save_network
from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene

SHIPPED = Path(__file__).parents[2] / 'models' / 'inpainter.safetensors'
METADATA = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}


def region(flow_inside, flow_outside, inside=1.0):
    """Flow of 4x6 pixels, the left half of which is under the mask."""
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., :3] = inside
    flow = torch.where(mask > 0, torch.tensor(flow_inside)[:, None, None], torch.tensor(flow_outside)[:, None, None])
    return flow, mask


def mean_of_the_outside(flow, mask):
    """What the best inpainter of constant motion guesses: the mean flow of what it sees, everywhere."""
    seen = 1 - mask
    return ((flow * seen).sum((2, 3), keepdim=True) / seen.sum()).expand_as(flow)


def test_hand_worked_numbers():
    """Inside (3, 0), outside (1, 1): the error is 4 + 1 of an energy of 9 in every pixel."""
    flow, mask = region((3.0, 0.0), (1.0, 1.0))
    rate = information_reduction(flow, mask, mean_of_the_outside(flow, mask))
    assert rate == pytest.approx(1 - 5 / (9 + SMALLEST_FLOW**2))


def test_what_moves_with_its_surroundings_is_told_and_what_moves_against_them_is_not():
    flow, mask = region((2.0, -1.0), (2.0, -1.0))
    assert information_reduction(flow, mask, mean_of_the_outside(flow, mask)) == pytest.approx(1)
    flow, mask = region((2.0, 0.0), (0.0, 0.0))
    assert information_reduction(flow, mask, mean_of_the_outside(flow, mask)) == pytest.approx(0, abs=1e-4)
    flow, mask = region((1.0, 0.0), (-3.0, 0.0))
    assert information_reduction(flow, mask, mean_of_the_outside(flow, mask)) == 0


def test_where_nothing_moves_all_is_told():
    flow, mask = region((0.0, 0.0), (0.0, 0.0))
    assert information_reduction(flow, mask, torch.zeros_like(flow)) == 1
    # The least that counts: a thousandth of the width, in units of 80 pixels at 640.
    assert pytest.approx(0.001 * 640 / 80) == SMALLEST_FLOW


def test_only_what_is_under_the_mask_counts_and_half_of_it_by_a_quarter():
    """The norm of chi (u - phi) squares chi too."""
    flow = torch.tensor([[[[2.0, 3.0, 100.0]], [[0.0, 0.0, 0.0]]]])
    mask = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    guess = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 5.0]]]])
    # Errors 1 and 10, energies 4 and 9; the second pixel counts a quarter.
    assert information_reduction(flow, mask, guess) == pytest.approx(1 - (1 + 10 / 4) / (4 + 9 / 4), rel=1e-4)


@pytest.fixture
def constant(tmp_path):
    """Makes an inpainter that guesses the same flow (motion units) whatever it sees."""

    def make(u, v, **metadata):
        inpainter = Inpainter()
        with torch.no_grad():
            for parameter in inpainter.parameters():
                parameter.zero_()
            inpainter.flow1.bias.copy_(torch.tensor((u, v)))
        path = tmp_path / 'constant.safetensors'
        save_network(inpainter, path, {**METADATA, **metadata})
        return path

    return make


def predicted(flow, mask, index=0, image=None):
    image = np.zeros((*mask.shape, 3), np.uint8) if image is None else image
    return Prediction(index, 'refined', image, mask.astype(np.uint8) * 255, flow=flow)


@pytest.mark.parametrize('size', [(32, 64), (64, 128), (48, 80)])
def test_units_do_not_depend_on_the_size_of_the_flow(constant, size):
    """Flow of 5 % of the width and 10 % of the height: 32 and 38.4 pixels of 640x384, in units of 80."""
    flow = np.broadcast_to(np.array((0.05 * size[1], 0.1 * size[0]), np.float32), (*size, 2))
    mask = np.zeros((96, 192), bool)
    mask[24:60, 48:96] = True
    u, v = 32 / 80, 38.4 / 80
    assert InpaintingScore(constant(u, v)).of(predicted(flow, mask)) == pytest.approx(1, abs=1e-5)
    assert InpaintingScore(constant(0.0, 0.0)).of(predicted(flow, mask)) == pytest.approx(0, abs=1e-3)
    expected = 1 - 0.1**2 / (u**2 + v**2)
    assert InpaintingScore(constant(u + 0.1, v)).of(predicted(flow, mask)) == pytest.approx(expected, abs=1e-3)


def test_an_inpainter_of_residual_flow_gets_such(constant):
    """Of what the camera's motion explains nothing is left, and no motion is the right guess."""
    flow = np.broadcast_to(np.array((3.0, -2.0), np.float32), (32, 64, 2))
    mask = np.zeros((32, 64), bool)
    mask[8:20, 16:32] = True
    raw, residual = constant(0.0, 0.0), {'game.target': 'residual'}
    assert InpaintingScore(raw).of(predicted(flow, mask)) < 0.01
    assert InpaintingScore(constant(0.0, 0.0, **residual)).of(predicted(flow, mask)) > 0.99


def test_against_the_network_called_by_hand(tmp_path):
    torch.manual_seed(2)
    path = tmp_path / 'random.safetensors'
    inpainter = Inpainter()
    with torch.no_grad():
        inpainter.flow1.weight *= 0.1
        inpainter.flow1.bias.copy_(torch.tensor((0.5, 0.3)))
    save_network(inpainter, path, METADATA)
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (32, 64, 3), np.uint8)
    flow = rng.normal((4, 2), 1, (32, 64, 2)).astype(np.float32)
    mask = np.zeros((32, 64), bool)
    mask[5:20, 30:50] = True
    found = InpaintingScore(path).of(predicted(flow, mask, image=image))

    network, _ = load_network(path, 'inpainter')
    units = flow * np.array((640 / 64, 384 / 32), np.float32) / 80
    hidden = np.where(mask[..., None], 0, units).astype(np.float32)
    with torch.no_grad():
        guess = network(
            torch.from_numpy(image.transpose(2, 0, 1)[None] / 255 - 0.5).float(),
            torch.from_numpy(hidden.transpose(2, 0, 1)[None]),
            torch.from_numpy(mask[None, None].astype(np.float32)),
        )[0].numpy()
    error = ((units - guess.transpose(1, 2, 0))[mask] ** 2).sum()
    energy = (units[mask] ** 2).sum() + SMALLEST_FLOW**2 * mask.sum()
    assert 0.2 < found < 0.95
    assert found == pytest.approx(1 - error / energy, rel=1e-3)


def test_what_has_no_rate(constant):
    information = InpaintingScore(constant(0.0, 0.0))
    flow = np.ones((32, 64, 2), np.float32)
    mask = np.zeros((32, 64), bool)
    mask[8:20, 16:32] = True
    assert information.of(predicted(flow, mask)) is not None
    assert information.of(predicted(None, mask)) is None
    assert information.of(predicted(flow, np.zeros_like(mask))) is None
    assert information.of(predicted(flow, np.ones_like(mask))) is None


def test_a_column_of_every_third_frame(constant):
    information = InpaintingScore(constant(0.0, 0.0), every=3)
    signals = Signals(information)
    flow = np.full((32, 64, 2), 4.0, np.float32)
    mask = np.zeros((32, 64), bool)
    mask[8:20, 16:32] = True
    for index in range(7):
        signals.add(predicted(flow, mask, index))
    column = signals.columns(8)['information']
    assert [value is not None for value in column] == [True, False, False, True, False, False, True, False]


def test_its_identity_is_the_files_content(constant):
    path = constant(0.0, 0.0)
    identity = InpaintingScore(path, 5).identity
    assert identity == {'inpainter': hashlib.sha256(path.read_bytes()).hexdigest(), 'inpainter_every': 5}
    assert InpaintingScore(constant(0.1, 0.0), 5).identity != identity


def test_files_that_are_no_inpainter(tmp_path):
    with pytest.raises(ModelError, match='no such model file'):
        InpaintingScore(tmp_path / 'missing.safetensors')
    save_network(Generator(), tmp_path / 'generator.safetensors', METADATA)
    with pytest.raises(ModelError, match='generator where inpainter'):
        InpaintingScore(tmp_path / 'generator.safetensors')


@pytest.mark.skipif(not SHIPPED.is_file(), reason='models/inpainter.safetensors is not there')
def test_the_shipped_inpainter_tells_background_from_what_moves_on_its_own():
    """Scenes that it has not seen, with exact flow: the object's own region against one like it on moving ground."""
    information = InpaintingScore(SHIPPED)
    objects, grounds = [], []
    for seed in range(40):
        scene = random_scene((77, seed), SceneOptions(objects=(1, 1), standing=(0, 0), object_extent=(0.3, 0.5)))
        mask, flow = scene.mask(5), scene.flow(5, 7)
        away = np.roll(mask, mask.shape[1] // 2, 1) & ~mask
        if not (0.02 < mask.mean() < 0.3 and away.sum() > 0.7 * mask.sum()):
            continue
        of_ground, of_object = np.linalg.norm(flow[away], axis=1).mean(), np.linalg.norm(flow[mask], axis=1).mean()
        own = np.linalg.norm(flow[mask].mean(0) - flow[away].mean(0))
        # What goes along with a fast camera is told by the ground, and of ground that stands there is nothing to tell.
        if of_ground < 2 or own < 0.7 * of_object:
            continue
        image = scene.image(5)
        objects.append(information.of(predicted(flow, mask, image=image)))
        grounds.append(information.of(predicted(flow, away, image=image)))
    print(f'{len(objects)} scenes: objects {np.median(objects):.2f}, background {np.median(grounds):.2f}')
    assert len(objects) > 10
    assert np.median(grounds) > 0.75
    assert np.median(objects) < 0.6
    assert np.mean(np.less(objects, grounds)) > 0.75
