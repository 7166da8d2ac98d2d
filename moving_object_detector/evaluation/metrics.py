"""Scores of a mask against an annotation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def jaccard(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Jaccard index J: intersection over union, 1 where both are empty.

    Args:
        prediction: (H, W), True on the object.
        truth: (H, W), the same size.

    Raises:
        ValueError: The sizes differ.

    """
    if prediction.shape != truth.shape:
        raise ValueError(f'prediction is {prediction.shape}, truth is {truth.shape}')
    union = int(np.count_nonzero(prediction | truth))
    return int(np.count_nonzero(prediction & truth)) / union if union else 1.0


def davis_mean(scores: Sequence[float | None]) -> float:
    """Return a sequence's mean by the rule of DAVIS 2016: its first and last frame are not scored.

    Args:
        scores: Of each frame in order; None where a frame has no annotation.

    Raises:
        ValueError: There is none to score.

    """
    scored = [score for score in scores[1:-1] if score is not None]
    if not scored:
        raise ValueError(f'a sequence of {len(scores)} frames has none left to score')
    return float(np.mean(scored))
