"""Losses of the adversarial game, of the inpainter on boxes and of masks, as functions of tensors.

Flow is in "motion units" (`flow.base`), masks are (B, 1, H, W) in [0, 1]. Losses do not depend on the image size: sums
over pixels are means, and epsilon is per pixel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CHARBONNIER: Final = 0.001
# The released code has 75 for a sum over its 192 x 384 pixels.
EPSILON: Final = 75.0 / (192 * 384)
FULL_SHARE: Final = 0.03
"""Share of the image from which an object has weight 1."""
HEAVIEST: Final = 4.0
MARGIN: Final = 3
"""Pixels around an object that have its weight."""


class Guesses(NamedTuple):
    """The inpainter's predictions of a flow field, each (B, 2, H, W) in motion units."""

    inside: Tensor
    """phi(chi, u_out, I): inside the mask, from the flow outside."""
    outside: Tensor
    """phi(1 - chi, u_in, I): outside the mask, from the flow inside."""
    alone: Tensor
    """phi(Omega, 0, I): everywhere, from the image alone."""


def charbonnier(difference: Tensor) -> Tensor:
    """Return the released code's norm, (d^2 + 0.001^2)^0.5 summed over components, (B, 2, H, W) to (B, 1, H, W)."""
    return (difference.square() + CHARBONNIER**2).sqrt().sum(1, keepdim=True)


def _mean(values: Tensor) -> Tensor:
    return values.mean((1, 2, 3))


def region_errors(flow: Tensor, mask: Tensor, guesses: Guesses) -> tuple[Tensor, Tensor]:
    """Return the terms of equation 9 inside and outside, (B,) each: near 0 if the other side predicts the flow.

    As in the released code, the denominator uses the prediction from the image alone, which the paper sets to 0.
    """
    unknown = charbonnier(flow - guesses.alone)
    inside, outside = (
        _mean(side * charbonnier(flow - guess)) / (_mean(side * unknown) + EPSILON)
        for side, guess in ((mask, guesses.inside), (1.0 - mask, guesses.outside))
    )
    return inside, outside


def generator_loss(flow: Tensor, mask: Tensor, guesses: Guesses) -> Tensor:
    """Return (1 - r_in / d_in) + (1 - r_out / d_out), the mean over the batch: equation 7, 2 - L."""
    inside, outside = region_errors(flow, mask, guesses)
    return (2.0 - inside - outside).mean()


def inpainter_loss(flow: Tensor, mask: Tensor, guesses: Guesses) -> Tensor:
    """Return the inpainter's loss, its errors per pixel, as in the released code."""
    error = mask * charbonnier(flow - guesses.inside) + (1.0 - mask) * charbonnier(flow - guesses.outside)
    return (error + charbonnier(flow - guesses.alone)).mean()


def box_loss(flow: Tensor, mask: Tensor, guess: Tensor) -> Tensor:
    """Return the loss of pretraining on boxes: the Charbonnier error per masked pixel, averaged over the batch."""
    return (_mean(mask * charbonnier(flow - guess)) / _mean(mask).clamp_min(1e-6)).mean()


def object_weights(mask: Tensor) -> Tensor:
    """Return pixel weights for :func:`mask_loss` that make small objects count more, (B, 1, H, W).

    A connected region of ``mask`` with less than :data:`FULL_SHARE` of the image, and :data:`MARGIN` pixels around it,
    weigh the root of the ratio of the areas, at most :data:`HEAVIEST`. Otherwise a network may miss all small objects
    at hardly any loss.
    """
    weights = np.ones((len(mask), *mask.shape[2:]), np.float32)
    around = np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8)
    for weight, found in zip(weights, (mask[:, 0] > 0.5).cpu(), strict=True):
        objects = found.numpy().astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(objects)
        for label in range(1, count):
            heavy = min((FULL_SHARE * objects.size / int(stats[label, cv2.CC_STAT_AREA])) ** 0.5, HEAVIEST)
            if heavy > 1:
                near = cv2.dilate((labels == label).astype(np.uint8), around)
                np.maximum(weight, heavy * near, out=weight)
    return torch.from_numpy(weights)[:, None].to(mask.device)


def mask_loss(logits: Tensor, mask: Tensor, certain: Tensor | None = None) -> Tensor:
    """Return binary cross-entropy plus soft Dice loss, a scalar, with pixels weighted by ``certain``, at least 0.

    It takes logits, (B, 1, H, W), since probabilities round to 0 or 1 (in bfloat16 from 0.998 on), and confident errors
    would have no gradient.
    """
    probability = logits.sigmoid()
    if certain is None:
        entropy = functional.binary_cross_entropy_with_logits(logits, mask)
    else:
        entropy = functional.binary_cross_entropy_with_logits(logits, mask, certain, reduction='sum')
        entropy = entropy / certain.sum().clamp_min(1.0)
        probability, mask = probability * certain, mask * certain
    overlap = (probability * mask).sum((1, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
    return entropy + dice.mean()
