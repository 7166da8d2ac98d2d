from __future__ import annotations

import math

import pytest
import torch

from moving_object_detector.flow.generator_input import coherent_motion, prepare_flow, stays_in_view


def block_flow(height, width, share_height, share_width, u, v=0.0):
    """A block at a place off the middle moves by (u, v); the rest stands still."""
    flow = torch.zeros(1, 2, height, width)
    rows, columns = height // share_height, width // share_width
    flow[:, 0, height // 8 : height // 8 + rows, width // 2 : width // 2 + columns] = u
    flow[:, 1, height // 8 : height // 8 + rows, width // 2 : width // 2 + columns] = v
    return flow


def test_normalised_by_hand():
    flow = torch.tensor([[[[0.0, 2.0], [4.0, 6.0]], [[3.0, 3.0], [3.0, 3.0]]]])
    # u has mean 3 and variance (9 + 1 + 1 + 9) / 4 = 5; v has no spread.
    expected = torch.tensor([[[[-3.0, -1.0], [1.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]]) / math.sqrt(5)
    assert torch.allclose(prepare_flow(flow, 'normalised').flow, expected, atol=1e-6)


def test_normalised_has_zero_mean_and_unit_variance_in_each_field_and_component():
    rng = torch.Generator().manual_seed(1)
    flow = torch.randn(3, 2, 48, 96, generator=rng) * torch.tensor((5.0, 0.1))[:, None, None] + 40
    prepared = prepare_flow(flow, 'normalised').flow
    assert prepared.mean((2, 3)).abs().max() < 1e-3
    assert torch.allclose(prepared.var((2, 3), unbiased=False), torch.ones(3, 2), atol=1e-3)


def test_residual_by_hand():
    # A sixteenth of the pixels moves (3, 4): the mean of u^2 and v^2 is (9 + 16) / 2 / 16.
    prepared = prepare_flow(block_flow(96, 192, 4, 4, 3.0, 4.0), 'residual').flow
    spread = 5.0 / math.sqrt(2 * 16)
    inside = prepared[0, :, 20, 110]
    assert torch.allclose(inside, torch.tensor((3.0, 4.0)) / spread, rtol=0.01)
    assert prepared[0, :, 60, 30].abs().max() < 0.01


@pytest.mark.parametrize(('height', 'width'), [(96, 192), (192, 384), (48, 96)])
@pytest.mark.parametrize(('u', 'v'), [(8.0, 0.0), (-2.0, 0.0), (0.3, 0.4)])
def test_motion_is_in_thousandths_of_the_width(height, width, u, v):
    for kind in ('residual', 'normalised'):
        motion = prepare_flow(block_flow(height, width, 4, 8, u, v), kind).motion
        assert motion.shape == (1,)
        assert float(motion) == pytest.approx(1000 / width * math.hypot(u, v), rel=0.02)


@pytest.mark.parametrize(
    ('rows', 'columns', 'expected'),
    [
        (8, 16, 0.0),  # two cells of 8 x 8 pixels: too small to count
        (8, 24, 6.0),  # three cells
        (8, 20, 3.0),  # the third cell is half covered: its mean is half the motion
        (2, 24, 1.5),  # three cells covered to a quarter
    ],
)
def test_motion_is_that_of_the_third_strongest_cell(rows, columns, expected):
    residual = torch.zeros(1, 2, 96, 192)
    residual[:, 1, 40 : 40 + rows, 80 : 80 + columns] = -6.0
    motion = coherent_motion(residual, torch.zeros_like(residual))
    assert float(motion) == pytest.approx(1000 / 192 * expected)


def test_noise_does_not_pass_for_motion():
    noise = torch.randn(1, 2, 96, 192, generator=torch.Generator().manual_seed(4))
    assert float(prepare_flow(noise, 'residual').motion) * 192 / 1000 < 0.5
    moving = block_flow(96, 192, 4, 4, 1.0, 1.0)
    assert float(noise.square().mean()) > 15 * float(moving.square().mean())
    assert float(prepare_flow(moving, 'residual').motion) * 192 / 1000 > 1.4


def test_what_leaves_the_view_does_not_count():
    # Everything moves 12.5 px left: what was in the 13 leftmost columns cannot be found again.
    camera = torch.zeros(1, 2, 96, 192)
    camera[:, 0] = -12.5
    inside = stays_in_view(camera)[0, 0]
    assert not inside[:, :13].any()
    assert inside[:, 13:].all()
    residual = torch.zeros(1, 2, 96, 192)
    residual[:, 0, :, :13] = 30.0
    assert float(coherent_motion(residual, camera)) == 0
    assert float(coherent_motion(residual, torch.zeros_like(camera))) == pytest.approx(1000 / 192 * 30)


@pytest.mark.parametrize(
    ('u', 'v', 'inside'),
    [(1.0, 0.0, [1, 1, 0]), (-2.0, 0.0, [0, 0, 1]), (0.0, 0.5, [0, 0, 0]), (0.1, 0.0, [1, 1, 0]), (0.0, 0.0, [1] * 3)],
)
def test_in_view_means_between_pixel_centres(u, v, inside):
    flow = torch.zeros(1, 2, 1, 3)
    flow[:, 0], flow[:, 1] = u, v
    assert stays_in_view(flow)[0, 0].tolist() == [inside]


@pytest.mark.parametrize('kind', ['residual', 'normalised'])
def test_a_still_scene_gives_zeros(kind):
    prepared = prepare_flow(torch.zeros(2, 2, 24, 48), kind)
    assert not prepared.flow.any()
    assert not prepared.motion.any()


def test_rounding_is_not_blown_up():
    constant = torch.full((1, 2, 96, 192), 33.3)
    for kind in ('residual', 'normalised'):
        prepared = prepare_flow(constant, kind)
        assert prepared.flow.abs().max() < 0.2
        assert float(prepared.motion) < 0.01


def test_residual_has_unit_root_mean_square_whatever_the_camera_and_the_speed():
    rng = torch.Generator().manual_seed(2)
    for scale in (0.05, 1.0, 30.0):
        flow = scale * torch.randn(2, 2, 48, 96, generator=rng) + 20
        prepared = prepare_flow(flow, 'residual').flow
        assert torch.allclose(prepared.square().mean((1, 2, 3)), torch.ones(2), rtol=1e-4)


def test_the_motion_of_the_camera_alone_does_not_count():
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 192), indexing='ij')
    u = 8 + 3 * columns - 2 * rows + columns * columns - 0.5 * columns * rows
    v = -5 + 2 * columns + 3 * rows - 0.5 * rows * rows + columns * rows
    camera = torch.stack((u, v))[None]
    assert float(prepare_flow(camera, 'residual').motion) < 0.01
    with_object = prepare_flow(camera + block_flow(96, 192, 4, 4, 8.0), 'residual')
    alone = prepare_flow(block_flow(96, 192, 4, 4, 8.0), 'residual')
    assert torch.allclose(with_object.motion, alone.motion, rtol=0.01)
    assert torch.allclose(with_object.flow, alone.flow, atol=0.05)


def test_fields_of_a_batch_are_prepared_alone():
    fields = torch.cat((block_flow(48, 96, 4, 4, 2.0), 100 * block_flow(48, 96, 2, 4, 1.0), torch.zeros(1, 2, 48, 96)))
    for kind in ('residual', 'normalised'):
        together = prepare_flow(fields, kind)
        for index in range(3):
            alone = prepare_flow(fields[index : index + 1], kind)
            assert torch.allclose(together.flow[index], alone.flow[0], atol=1e-4)
            assert torch.allclose(together.motion[index], alone.motion[0], rtol=1e-4, atol=1e-6)


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"unknown flow input 'raw'.*normalised, residual"):
        prepare_flow(torch.zeros(1, 2, 8, 8), 'raw')
