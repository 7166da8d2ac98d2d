"""Refinement of a coarse probability to the edges of the image by a CRF."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.detection.config import RefinementConfig, check_refinement
from moving_object_detector.media.frames import resize_image

# Bilateral term of the paper's released CRF, for a width of 384.
CRF_POSITION: Final = 25.0
CRF_COLOUR: Final = 5.0
CRF_COMPATIBILITY: Final = 5.0
CRF_REFERENCE_WIDTH: Final = 384
LEAST_PEAK: Final = 0.8
"""Least divisor when a mask is scaled to maximum 1; the released code has none and turns mere doubt into a mask."""
SLOPE: Final = 0.7
"""Factor on the log-odds before ``grid_crf`` (Platt 1999), since the generator is overconfident."""
PRIOR: Final = 0.5
"""Added to them, since the CRF erodes small regions; choice of both: docs/experiments.md, CRF and calibration."""


def dense_crf(probability: NDArray[np.float32], image: NDArray[np.uint8], iterations: int) -> NDArray[np.float32]:
    """Run mean-field inference in a fully connected CRF (Kraehenbuehl and Koltun, NIPS 2011).

    Unary -log of the probability (H, W), divided by its peak or :data:`LEAST_PEAK`; one bilateral term over the image
    (H, W, 3), as in the paper's released code. Raises UserError if pydensecrf2 is not installed.
    """
    check_refinement('crf')
    from pydensecrf import densecrf

    height, width = probability.shape
    if not probability.any():
        return probability
    peak = max(float(probability.max()), LEAST_PEAK)
    inside = np.clip(probability / peak, 1e-6, 1 - 1e-6)
    unary = -np.log(np.stack((1 - inside, inside)).reshape(2, -1))
    crf = densecrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    position = CRF_POSITION * width / CRF_REFERENCE_WIDTH
    crf.addPairwiseBilateral(sxy=position, srgb=CRF_COLOUR, rgbim=np.ascontiguousarray(image), compat=CRF_COMPATIBILITY)
    marginals = np.asarray(crf.inference(iterations), np.float32).reshape(2, height, width)
    return np.ascontiguousarray(marginals[1])


class _Cells:
    """The occupied cells of a bilateral grid (Chen et al., SIGGRAPH 2007) over x, y, r, g, b.

    A cell is ``position`` pixels and ``colour`` levels long.
    """

    def __init__(self, image: NDArray[np.uint8], position: float, colour: float) -> None:
        # A margin of one cell at either end of each axis, so that neighbour indices never wrap into another row.
        height, width = image.shape[:2]
        rows, columns, levels = (
            np.rint(np.arange(length) / step).astype(np.int32) + 1
            for length, step in ((height, position), (width, position), (256, colour))
        )
        counts = [int(axis[-1]) + 2 for axis in (levels, levels, levels, rows, columns)]
        steps = [int(np.prod(counts[axis + 1 :])) for axis in range(5)]
        places = rows[:, None] * steps[3] + columns * steps[4]
        # A fifth of NumPy's time.
        for channel, step in zip(cv2.split(image), steps, strict=False):
            places += np.asarray(cv2.LUT(channel, levels * step), np.int32)
        keys = places.ravel().astype(np.intp)
        # A table of all cells, one or two million: sorting the pixels would take half of the refinement's time.
        filled = np.zeros(int(np.prod(counts)), np.bool_)
        filled[keys] = True
        cells = np.flatnonzero(filled)
        numbers = np.zeros(filled.size, np.int32)
        numbers[cells] = np.arange(1, len(cells) + 1)
        self.of_pixels = np.take(numbers, keys).astype(np.intp)
        """(H * W,), the cell of each pixel; the empty cell 0 stands for missing neighbours."""
        self._count = len(cells) + 1
        self._neighbours = [[np.take(numbers, cells + way).astype(np.intp) for way in (step, -step)] for step in steps]

    def sums(self, values: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
        """Return for each cell the sum of the pixels' values (H * W,), or their count, blurred over the neighbours."""
        total = np.bincount(self.of_pixels, values, self._count).astype(np.float64)
        for after, before in self._neighbours:
            total[1:] += 0.5 * (total.take(after) + total.take(before))
        return total


def grid_crf(probability: NDArray[np.float32], image: NDArray[np.uint8], iterations: int) -> NDArray[np.float32]:
    """Run the mean field of :func:`dense_crf` on a bilateral grid, in a tenth of the time.

    A cell is two standard deviations of the kernel long; neighbouring cells weigh half.
    """
    if not probability.any():
        return probability
    peak = max(float(probability.max()), LEAST_PEAK)
    cells = _Cells(image, 2 * CRF_POSITION * image.shape[1] / CRF_REFERENCE_WIDTH, 2 * CRF_COLOUR)
    inside = np.clip(probability.ravel() / peak, 1e-6, 1 - 1e-6)
    against = np.log((1 - inside) / inside)
    # Against division by zero in cell 0, which is not read.
    number = np.maximum(cells.sums(), 1.0)
    for _ in range(iterations):
        message = CRF_COMPATIBILITY * (1.0 - 2.0 * cells.sums(inside) / number)
        # In place, with OpenCV's exponential: NumPy's would take half of the time on a CPU without AVX-512.
        inside = message.astype(np.float32).take(cells.of_pixels)
        inside += against
        cv2.exp(inside, inside)
        inside += 1
        np.reciprocal(inside, out=inside)
    return inside.reshape(probability.shape)


def calibrated(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities with their log-odds scaled by :data:`SLOPE` and shifted by :data:`PRIOR`."""
    inside = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(1 / (1 + np.exp(-PRIOR) * (1 / inside - 1) ** SLOPE), np.float32)


def refine(probability: NDArray[np.float32], image: NDArray[np.uint8], config: RefinementConfig) -> NDArray[np.float32]:
    """Refine a probability (h, w) at the configured size, at most the image's; return it at image size, (H, W)."""
    height, width = image.shape[:2]
    if config.method != 'none' and probability.any():
        size = (min(config.width, width), min(config.height, height))
        # ``crf`` stays as in the paper.
        probability = calibrated(probability) if config.method == 'grid_crf' else probability
        probability = np.asarray(cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR), np.float32)
        small = resize_image(image, (size[1], size[0]))
        crf = grid_crf if config.method == 'grid_crf' else dense_crf
        probability = crf(probability, small, config.iterations)
    return np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
