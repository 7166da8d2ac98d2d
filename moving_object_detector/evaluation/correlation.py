"""How well signals that need no annotation foretell the score, over sequences that have both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import Column, RunResult, SequenceResult
from moving_object_detector.evaluation.summary import sequence_scores

FEWEST: Final = 3
"""Sequences of which a rank correlation says anything."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a signal with J."""

    rho: float
    """From -1 to 1; above 0: sequences with more of the signal score higher."""
    count: int
    """Sequences that have both."""


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the rank of each value, the least has 1; equal values share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], np.float64)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the correlation of the ranks of two equally long lists; None where one is the same throughout."""
    a, b = (ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def area_change(area: Column) -> float | None:
    """Return by which share of the larger one the mask's areas of two frames in a row differ, on average.

    Frames without a mask, and pairs of empty ones, are passed over; None where nothing is left.
    """
    pairs = [(a, b) for a, b in pairwise(area) if a is not None and b is not None and max(a, b) > 0]
    return mean([abs(a - b) / max(a, b) for a, b in pairs])


def sequence_signals(sequence: SequenceResult, variant: str, protocol: str) -> Mapping[str, float | None]:
    """Return what is known of a sequence without its annotations.

    Returns:
        The mean of each signal, ``empty`` (share of empty masks) and ``area_change``; None where there is nothing to
        take it of.

    """
    signals = {
        name: mean([value for value in column if value is not None]) for name, column in sequence.signals.items()
    }
    return {
        **signals,
        'empty': sequence_scores(sequence, variant, protocol).empty,
        'area_change': area_change(sequence.variants[variant].area),
    }


def correlations(run: RunResult) -> dict[str, Correlation]:
    """Return how each signal goes with mean J over the run's sequences, for the variant that counts.

    Signals that fewer than :data:`FEWEST` sequences with annotations have, or that are the same in all, are left out.

    Raises:
        UserError: The run's protocol is not known.

    """
    variant = run.variants[-1]
    found: dict[str, list[tuple[float, float]]] = {}
    for sequence in run.sequences:
        score = sequence_scores(sequence, variant, run.protocol).j_mean
        for name, value in sequence_signals(sequence, variant, run.protocol).items():
            pairs = found.setdefault(name, [])
            if value is not None and score is not None:
                pairs.append((value, score))
    result = {}
    for name, pairs in found.items():
        if len(pairs) < FEWEST:
            continue
        rho = spearman([value for value, _ in pairs], [score for _, score in pairs])
        if rho is not None:
            result[name] = Correlation(rho, len(pairs))
    return result
