"""Robust fit of the camera's motion to a flow field.

The flow that a moving camera induces on a distant or gently sloping scene is close to a quadratic
polynomial of the image position (exactly so for a plane under instantaneous motion, Longuet-Higgins
and Prazdny 1980). What the polynomial leaves over moves on its own, is near, or is an error of the flow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

FIT_GRID: Final = (24, 48)
# Terms of the polynomial in each round: a simpler motion bends round a large object less, so it comes first;
# the weights of a round go on to the next.
FIT_TERMS: Final = (3, 3, 3, 3, 3, 6, 6, 6, 6, 6, 6)
# 95 % efficiency of the Cauchy weight on Gaussian noise (Holland and Welsch 1977).
CAUCHY_TUNING: Final = 2.385
# Median of |r| to standard deviation, per component, of a two-dimensional Gaussian.
RAYLEIGH_MEDIAN: Final = 1.1774
# Floor of the scale in pixels: below it the residual is rounding, and its weights would be arbitrary.
SCALE_FLOOR: Final = 1e-3
# Share of the sum of the weights that is added to the diagonal.
RIDGE: Final = 4e-7


def quadratic_basis(height: int, width: int, device: torch.device) -> Tensor:
    """Return (6, height, width): 1, x, y, x^2, xy, y^2 at pixel centres scaled to [-1, 1]."""
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2.0 / height) - 1.0
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2.0 / width) - 1.0
    y, x = torch.meshgrid(ys, xs, indexing='ij')
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y))


def _cell_means(maps: Tensor) -> Tensor:
    """Return means over the cells of the fit's grid, (..., C, H, W) to (..., C, cells)."""
    grid = (min(FIT_GRID[0], maps.shape[-2]), min(FIT_GRID[1], maps.shape[-1]))
    return functional.adaptive_avg_pool2d(maps, grid).flatten(-2)


@lru_cache(maxsize=16)
def _bases(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the polynomials at all pixels (6, height * width) and their means over the cells (6, cells)."""
    # They outlive the call, which may be one without gradients.
    with torch.inference_mode(False):
        polynomials = quadratic_basis(height, width, device)
        # Averaged like the flow, a polynomial flow is met exactly, also where the size gives cells of several sizes.
        return polynomials.flatten(1), _cell_means(polynomials)


def _cauchy_weights(residual: Tensor) -> Tensor:
    """Return the weight of each cell, (B, 2, cells) pixels to (B, 1, cells)."""
    # A gradient would be infinite at no error, and weights are constants of a round.
    residual = residual.detach()
    # On a CPU several times as fast as the norm over so short a dimension.
    error = torch.hypot(residual[:, :1], residual[:, 1:])
    sigma = error.median(2, keepdim=True).values / RAYLEIGH_MEDIAN
    return ((error / (CAUCHY_TUNING * sigma.clamp_min(SCALE_FLOOR))).square() + 1.0).reciprocal()


def fit_camera_motion(flow: Tensor) -> Tensor:
    """Fit a quadratic polynomial to each flow field by iteratively reweighted least squares.

    Cauchy weights on a grid of at most 24 x 48 cell means, from the median flow by affine rounds to quadratic
    ones; both components share a weight, since a pixel that moves on its own does so in both.

    Args:
        flow: (B, 2, H, W), pixels.

    Returns:
        (B, 2, H, W), the flow of the camera's motion alone, pixels.

    """
    batch, _, height, width = flow.shape
    polynomials, basis = _bases(height, width, flow.device)
    cells = _cell_means(flow.float())
    # What the weighted basis is multiplied by, the basis and the flow, in one product.
    both = torch.cat((basis.expand(batch, -1, -1), cells), 1).mT
    ridge = RIDGE * torch.eye(len(basis), device=flow.device)
    weights = _cauchy_weights(cells - cells.median(2, keepdim=True).values)
    for terms in FIT_TERMS:
        rows = basis[:terms]
        products = (rows * weights) @ both
        # The first term is 1, so its product with itself is the sum of the weights.
        normal = torch.addcmul(products[..., :terms], ridge[:terms, :terms], products[:, :1, :1])
        # Unlike solve it does not wait for a GPU to say whether a matrix was singular, which the ridge rules out.
        coefficients: Tensor = torch.linalg.solve_ex(normal, products[..., -2:]).result.mT
        weights = _cauchy_weights(torch.baddbmm(cells, coefficients, rows.expand(batch, -1, -1), alpha=-1))
    return (coefficients @ polynomials).reshape(batch, 2, height, width)
