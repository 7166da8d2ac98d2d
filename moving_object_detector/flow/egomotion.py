"""Robust fit of the camera's ego-motion to a flow field.

The flow that a moving camera induces on a distant or gently sloping scene is close to a quadratic
polynomial of the image position (exactly so for a plane under instantaneous motion, Longuet-Higgins
and Prazdny 1980). The residual is due to independent motion, nearness, or errors of the flow.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

FIT_GRID: Final = (24, 48)
# Terms of the polynomial in each round. Affine rounds come first, since a large object distorts a simpler motion less;
# each round starts from the weights of the one before.
FIT_TERMS: Final = (3, 3, 3, 3, 3, 6, 6, 6, 6, 6, 6)
# 95 % efficiency of the Cauchy weight on Gaussian noise (Holland and Welsch 1977).
CAUCHY_TUNING: Final = 2.385
# Median of |r| over the standard deviation of a component, for a two-dimensional Gaussian.
RAYLEIGH_MEDIAN: Final = 1.1774
# Floor of the scale in pixels, below which the residual is rounding error and weights would be arbitrary.
SCALE_FLOOR: Final = 1e-3
# Ridge on the diagonal, as a share of the sum of the weights.
RIDGE: Final = 4e-7


def quadratic_basis(height: int, width: int, device: torch.device) -> Tensor:
    """Return (6, height, width): 1, x, y, x^2, xy, y^2 at pixel centres, with the image scaled to [-1, 1]."""
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2.0 / height) - 1.0
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2.0 / width) - 1.0
    y, x = torch.meshgrid(ys, xs, indexing='ij')
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y))


def _cell_means(maps: Tensor) -> Tensor:
    """Average maps (..., C, H, W) over the cells of the fit's grid, to (..., C, cells)."""
    grid = (min(FIT_GRID[0], maps.shape[-2]), min(FIT_GRID[1], maps.shape[-1]))
    return functional.adaptive_avg_pool2d(maps, grid).flatten(-2)


@lru_cache(maxsize=16)
def _bases(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the polynomials at all pixels (6, height * width) and their means over the cells (6, cells)."""
    # Cached beyond the call, so they must not be inference tensors.
    with torch.inference_mode(False):
        polynomials = quadratic_basis(height, width, device)
        # Averaged like the flow, so that a polynomial flow is fitted exactly even with cells of different sizes.
        return polynomials.flatten(1), _cell_means(polynomials)


def _cauchy_weights(residual: Tensor) -> Tensor:
    """Return the weights of cells, (B, 1, cells), from their residuals, (B, 2, cells), pixels."""
    # Weights are constants of a round, and their gradient would be infinite at zero error.
    residual = residual.detach()
    # On a CPU several times as fast as a norm over two channels.
    error = torch.hypot(residual[:, :1], residual[:, 1:])
    sigma = error.median(2, keepdim=True).values / RAYLEIGH_MEDIAN
    return ((error / (CAUCHY_TUNING * sigma.clamp_min(SCALE_FLOOR))).square() + 1.0).reciprocal()


def fit_camera_motion(flow: Tensor) -> Tensor:
    """Fit a quadratic polynomial to each flow field by iteratively reweighted least squares.

    Cauchy weights on a grid of at most 24 x 48 cell means, starting from the median flow, first in affine rounds, then
    in quadratic ones. Both components share a weight, since independent motion affects both.

    Args:
        flow: (B, 2, H, W), pixels.

    Returns:
        (B, 2, H, W), the flow due to the camera's motion, pixels.

    """
    batch, _, height, width = flow.shape
    polynomials, basis = _bases(height, width, flow.device)
    cells = _cell_means(flow.float())
    # Basis and flow side by side, for the normal matrix and the right-hand side in one product.
    both = torch.cat((basis.expand(batch, -1, -1), cells), 1).mT
    ridge = RIDGE * torch.eye(len(basis), device=flow.device)
    weights = _cauchy_weights(cells - cells.median(2, keepdim=True).values)
    for terms in FIT_TERMS:
        rows = basis[:terms]
        products = (rows * weights) @ both
        # The first term is 1, so its product with itself is the sum of the weights.
        normal = torch.addcmul(products[..., :terms], ridge[:terms, :terms], products[:, :1, :1])
        # Unlike solve, no GPU synchronisation to check for singular matrices, which the ridge rules out.
        coefficients: Tensor = torch.linalg.solve_ex(normal, products[..., -2:]).result.mT
        weights = _cauchy_weights(torch.baddbmm(cells, coefficients, rows.expand(batch, -1, -1), alpha=-1))
    return (coefficients @ polynomials).reshape(batch, 2, height, width)
