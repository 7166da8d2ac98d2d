"""Whether a difference between two methods is more than the spread between the sequences that both were tried on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVEL: Final = 0.05
"""Of the test; the interval has one minus it."""
FEWEST: Final = 6
"""Pairs with which the test can find anything: 2 of 2^n signs are under the level."""
EXACT: Final = 14
"""Pairs up to which all signs are tried."""
_DRAWS: Final = 20_000
_SEED: Final = 0
_EQUAL: Final = 1e-12
"""Means closer to zero than this are zero: which way they were rounded is chance."""


@dataclass(frozen=True)
class PairedDifference:
    """What the differences of pairs come to."""

    count: int
    mean: float
    standard_error: float | None
    """Of the mean; None for fewer than two pairs."""
    interval: tuple[float, float] | None
    """In which the mean lies with 95 %; None for fewer than :data:`FEWEST` pairs."""
    p: float
    """Share of the signs with which the mean is as far from zero."""

    @property
    def clear(self) -> bool:
        """Whether it is more than the spread between the pairs."""
        return self.p <= LEVEL


def paired_difference(differences: Sequence[float]) -> PairedDifference:
    """Test by flipping signs whether differences of pairs are on average other than zero.

    If there is no difference, then each is as likely the other way round. Of all ways of flipping the signs of some (a
    fixed sample of 20,000 above 14 pairs), counted are those whose mean is as far from zero as the true one (Fisher,
    The Design of Experiments, 1935). The sum with the signs of a subset flipped reaches the true one exactly if the
    subset's mean is not above zero; hence the interval of all means that the test does not refuse lies between two of
    the sorted means of subsets (Hartigan, Using subsample values as typical values, JASA 1969).

    Args:
        differences: One or more.

    Raises:
        ValueError: There is none.

    """
    values = np.asarray(differences, np.float64)
    if not values.size:
        raise ValueError('no differences')
    means = np.sort(_subset_means(values))
    means[np.abs(means) < _EQUAL] = 0
    # One more for the signs as they are, whose subset is empty.
    total = len(means) + 1
    one_sided = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    place = math.floor(LEVEL / 2 * total)
    return PairedDifference(
        count=values.size,
        mean=float(values.mean()),
        standard_error=float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else None,
        interval=(float(means[place - 1]), float(means[-place])) if place else None,
        p=min(1.0, 2 * one_sided / total),
    )


def _subset_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of all subsets but the empty one, or of many drawn at random."""
    if values.size <= EXACT:
        numbers = np.arange(1, 2**values.size)
        inside = (numbers[:, None] >> np.arange(values.size)) & 1
    else:
        inside = np.random.default_rng(_SEED).integers(0, 2, (_DRAWS, values.size))
        inside = inside[inside.any(1)]
    return np.asarray((inside @ values) / inside.sum(1), np.float64)
