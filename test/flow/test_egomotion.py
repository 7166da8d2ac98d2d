from __future__ import annotations

import numpy as np
import pytest
import torch

from moving_object_detector.flow.egomotion import fit_camera_motion

BACKGROUND = np.array(((6.0, -3.0, 2.0, 1.5, -0.7, 0.4), (-4.0, 1.0, 2.5, -0.6, 0.9, 1.1)))


def terms(height, width):
    """1, x, y, x^2, xy, y^2 over the image, with x and y as shares of its sides: (H * W, 6) float64."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    x, y = 2 * columns / width - 1, 2 * rows / height - 1
    return np.stack((np.ones_like(x), x, y, x * x, x * y, y * y), -1).reshape(-1, 6)


def polynomial(height, width, coefficients=BACKGROUND):
    return torch.from_numpy((terms(height, width) @ coefficients.T).T.reshape(1, 2, height, width)).float()


def least_squares(flow):
    """The plain fit over all pixels, in float64."""
    height, width = flow.shape[-2:]
    basis = terms(height, width)
    values = flow[0].double().numpy().reshape(2, -1).T
    solution = np.linalg.lstsq(basis, values, rcond=None)[0]
    return torch.from_numpy((basis @ solution).T.reshape(1, 2, height, width)).float()


def root_mean_square(x):
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize('size', [(96, 192), (192, 384), (100, 201), (97, 193), (60, 90), (24, 48), (20, 30), (7, 9)])
def test_a_quadratic_flow_is_fitted_as_by_least_squares(size):
    flow = polynomial(*size)
    truth = least_squares(flow)
    assert torch.allclose(truth, flow, atol=1e-4)
    assert torch.allclose(fit_camera_motion(flow), truth, atol=1e-3)
    assert (flow - fit_camera_motion(flow)).abs().max() < 1e-3


def test_noise_moves_the_fit_no_more_than_that_of_least_squares():
    rng = torch.Generator().manual_seed(1)
    clean = polynomial(96, 192)
    flow = clean + 0.3 * torch.randn(clean.shape, generator=rng)
    ours, theirs = (root_mean_square(fit - clean) for fit in (fit_camera_motion(flow), least_squares(flow)))
    assert ours < 1.1 * theirs


@pytest.mark.parametrize('kind', ['constant', 'affine'])
def test_simpler_motions_are_fitted_too(kind):
    coefficients = BACKGROUND.copy()
    coefficients[:, 1 if kind == 'constant' else 3 :] = 0
    flow = polynomial(48, 96, coefficients)
    assert torch.allclose(fit_camera_motion(flow), flow, atol=1e-4)


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (9, 1), (2, 2), (2, 3), (3, 3), (5, 4)])
def test_fields_smaller_than_the_grid(size):
    constant = torch.full((1, 2, *size), 7.0)
    assert torch.allclose(fit_camera_motion(constant), constant, atol=1e-4)
    noisy = torch.rand((1, 2, *size), generator=torch.Generator().manual_seed(2)) * 10
    fit = fit_camera_motion(noisy)
    assert fit.shape == noisy.shape
    assert fit.isfinite().all()
    assert fit.abs().max() < 30


def test_an_object_of_an_eighth_of_the_image_does_not_bend_the_fit():
    background = polynomial(96, 192)
    flow = background.clone()
    flow[:, :, 20:68, 60:108] += torch.tensor((12.0, -7.0))[:, None, None]
    assert root_mean_square(least_squares(flow) - background) > 1  # one that is not robust
    assert (fit_camera_motion(flow) - background).abs().max() < 0.05


def test_an_object_of_a_quarter_of_the_image_does_not_bend_the_fit():
    """Here the camera moves gently, as it does over five frames of most video."""
    background = polynomial(96, 192, BACKGROUND * (1, 0.5, 0.5, 0.2, 0.2, 0.2))
    flow = background.clone()
    flow[:, :, 20:68, 60:156] += torch.tensor((4.0, -3.0))[:, None, None]
    assert root_mean_square(least_squares(flow) - background) > 1
    assert (fit_camera_motion(flow) - background).abs().max() < 0.05


def test_a_quarter_of_the_image_in_scattered_pieces_does_not_bend_the_fit():
    background = polynomial(96, 192)
    flow = background.clone()
    pieces = torch.zeros(96, 192, dtype=torch.bool)
    for row in range(4, 96, 24):
        for column in range(4, 192, 24):
            pieces[row : row + 12, column : column + 12] = True
    assert pieces.float().mean() == 0.25
    flow[:, :, pieces] += torch.tensor((12.0, -7.0))[:, None]
    assert root_mean_square(least_squares(flow) - background) > 1
    assert (fit_camera_motion(flow) - background).abs().max() < 0.05


def test_the_motion_of_a_plane_before_a_moving_camera_leaves_nothing():
    """Longuet-Higgins and Prazdny: u = (x T_z - T_x) / Z + xy O_x - (1 + x^2) O_y + y O_z, with 1 / Z linear."""
    rows, columns = np.mgrid[0:96, 0:192]
    focal = 160.0
    x, y = (columns - 95.5) / focal, (rows - 47.5) / focal
    inverse_depth = 0.2 + 0.08 * x - 0.05 * y
    (tx, ty, tz), (ox, oy, oz) = (0.3, -0.1, 0.4), (0.01, -0.02, 0.03)
    u = (x * tz - tx) * inverse_depth + x * y * ox - (1 + x * x) * oy + y * oz
    v = (y * tz - ty) * inverse_depth + (1 + y * y) * ox - x * y * oy - x * oz
    flow = torch.from_numpy(focal * np.stack((u, v)))[None].float()
    assert root_mean_square(flow) > 4
    assert (flow - fit_camera_motion(flow)).abs().max() < 1e-3


def test_fields_of_a_batch_do_not_influence_each_other():
    rng = torch.Generator().manual_seed(3)
    fields = [20 * torch.rand(1, 2, 48, 96, generator=rng), polynomial(48, 96), torch.zeros(1, 2, 48, 96)]
    fields.append(1e4 * torch.rand(1, 2, 48, 96, generator=rng))
    together = fit_camera_motion(torch.cat(fields))
    for fit, field in zip(together, fields, strict=True):
        assert torch.allclose(fit, fit_camera_motion(field)[0], rtol=1e-4, atol=1e-4)


def test_half_precision_flow_is_fitted_in_single():
    flow = polynomial(48, 96).half()
    fit = fit_camera_motion(flow)
    assert fit.dtype == torch.float32
    assert torch.allclose(fit, flow.float(), atol=0.02)
