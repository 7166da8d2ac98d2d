"""Two runs side by side: by how much they differ on each sequence, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.options import flatten
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import RunResult
from moving_object_detector.evaluation.summary import Scores, run_scores, sequence_scores, text_number, text_rows

METHOD: Final = (
    'Paired over the sequences that both runs have: sign-flip permutation test, and the 95 % interval of the means '
    'that it does not refuse.'
)
LEVEL: Final = 0.05
"""Of the test; the interval has one minus it."""
FEWEST: Final = 6
"""Pairs with which the test can find anything: 2 of 2^n signs are under the level."""
EXACT: Final = 14
"""Pairs up to which all signs are tried."""
_DRAWS: Final = 20_000
_EQUAL: Final = 1e-12
"""Means closer to zero than this are zero: which way they were rounded is chance."""
_APART: Final = ('root', 'variants')
_MADE_WITH: Final = ('engine', 'flow', 'revision', 'machine', 'versions')


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

    Raises:
        ValueError: There is no difference.

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
        inside = np.random.default_rng(0).integers(0, 2, (_DRAWS, values.size))
        inside = inside[inside.any(1)]
    return np.asarray((inside @ values) / inside.sum(1), np.float64)


@dataclass(frozen=True)
class Pair:
    """A sequence that both runs have."""

    name: str
    a: Scores
    b: Scores
    difference: float | None
    """J of B minus J of A; None where either has none."""
    f_difference: float | None


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side; a difference is B minus A."""

    names: tuple[str, str]
    variants: tuple[str, str]
    runs: tuple[RunResult, RunResult]
    scores: tuple[Scores, Scores]
    """Of each whole run, by its protocol."""
    pairs: tuple[Pair, ...]
    """In A's order."""
    only: tuple[tuple[str, ...], tuple[str, ...]]
    """Sequences that A, or B, alone has."""
    paired: PairedDifference
    """Of J."""
    options: tuple[tuple[str, str, str], ...]
    """What the runs differ in: name, value in A, value in B."""
    notes: tuple[str, ...]
    """Sentences about what makes the comparison doubtful."""

    @property
    def differences(self) -> dict[str, float]:
        """The differences of J by sequence."""
        return {pair.name: pair.difference for pair in self.pairs if pair.difference is not None}

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Mean J of A and of B over the sequences that were scored in both."""
        scored = [pair for pair in self.pairs if pair.difference is not None]
        return mean([pair.a.j_mean or 0.0 for pair in scored]), mean([pair.b.j_mean or 0.0 for pair in scored])

    @property
    def sentence(self) -> str:
        """What it comes to, in words; B is what is spoken of, so that signs are those of the numbers."""
        count, difference = self.paired.count, self.paired.mean
        sequences = f'{count} sequence{"s" if count != 1 else ""}'
        if not any(self.differences.values()):
            return f'{self.names[0]} and {self.names[1]} score the same on all {sequences}.'
        wins = sum(value > 0 for value in self.differences.values())
        worse = 'better' if difference > 0 else 'worse'
        start = (
            f'{self.names[1]} is {worse} than {self.names[0]}: J {difference:+.3f}, higher on {wins} of {sequences}; '
        )
        if self.paired.interval is None:
            return f'{start}that is too few to tell it from chance, which takes {FEWEST}.'
        low, high = self.paired.interval
        than = 'more' if self.paired.clear else 'not more'
        return f'{start}95 % interval {low:+.3f} to {high:+.3f}: {than} than the spread between sequences explains.'


def compare(
    a: RunResult,
    b: RunResult,
    names: tuple[str, str] = ('A', 'B'),
    variants: tuple[str | None, str | None] = (None, None),
) -> Comparison:
    """Put two runs side by side.

    Args:
        a: One run.
        b: The other.
        names: Of the runs, for people.
        variants: Of each run; None: the one that counts.

    Raises:
        UserError: The runs were scored by different protocols, have no scored sequence in common, or do not have the
            variant.

    """
    names = (foreign(names[0]), foreign(names[1]))
    if a.protocol != b.protocol:
        raise UserError(
            f'{names[0]} was scored by the rule of {a.protocol}, {names[1]} by that of {b.protocol}; compare runs of '
            'one data set'
        )
    chosen = _variant(a, names[0], variants[0]), _variant(b, names[1], variants[1])
    pairs, notes = _pairs(a, b, names, chosen)
    differences = [pair.difference for pair in pairs if pair.difference is not None]
    if not differences:
        raise UserError(
            f'{names[0]} and {names[1]} have no sequence in common that was scored against a truth; compare runs of '
            'one data set and split'
        )
    there = tuple({sequence.name for sequence in run.sequences} for run in (a, b))
    return Comparison(
        names=names,
        variants=chosen,
        runs=(a, b),
        scores=(run_scores(a, chosen[0]), run_scores(b, chosen[1])),
        pairs=tuple(pairs),
        only=(
            tuple(sequence.name for sequence in a.sequences if sequence.name not in there[1]),
            tuple(sequence.name for sequence in b.sequences if sequence.name not in there[0]),
        ),
        paired=paired_difference(differences),
        options=_options(a, b),
        notes=tuple(notes),
    )


def _variant(run: RunResult, name: str, wanted: str | None) -> str:
    if wanted is not None and wanted not in run.variants:
        raise UserError(f'{name} has no variant {wanted}; it has {", ".join(run.variants)}')
    return wanted or run.variants[-1]


def _pairs(
    a: RunResult, b: RunResult, names: tuple[str, str], variants: tuple[str, str]
) -> tuple[list[Pair], list[str]]:
    others = {sequence.name: sequence for sequence in b.sequences}
    pairs, notes = [], []
    for sequence in a.sequences:
        other = others.get(sequence.name)
        if other is None:
            continue
        left, right = (
            sequence_scores(item, variant, a.protocol)
            for item, variant in zip((sequence, other), variants, strict=True)
        )
        if left.frames != right.frames:
            notes.append(
                f'{sequence.name}: {left.frames} frames were scored in {names[0]}, {right.frames} in {names[1]}'
            )
        j, f = _difference(left.j_mean, right.j_mean), _difference(left.f_mean, right.f_mean)
        pairs.append(Pair(sequence.name, left, right, j, f))
    return pairs, notes


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as lines of dotted name and value."""
    return [
        (name, ', '.join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in flatten(values)
    ]


def _options(a: RunResult, b: RunResult) -> tuple[tuple[str, str, str], ...]:
    """Return the lines of two runs' settings that differ; an option that one does not have is a dash there."""
    left, right = (dict(flat(_settings(run))) for run in (a, b))
    names = dict.fromkeys((*left, *right))
    return tuple(
        (name, left.get(name, '-'), right.get(name, '-')) for name in names if left.get(name) != right.get(name)
    )


def _settings(run: RunResult) -> Mapping[str, Any]:
    identity = {name: value for name, value in run.identity.items() if name not in _APART}
    options = identity.pop('configuration', None) or {}
    # The hash of a model counts, not its path.
    return {**options, **identity, **{name: run.details[name] for name in _MADE_WITH if name in run.details}}


def text_table(comparison: Comparison) -> str:
    """Return the comparison for a terminal: a line for each sequence, and what it comes to."""
    names, paired = comparison.names, comparison.paired
    rows = [('', f'J {names[0]}', f'J {names[1]}', 'difference')]
    rows += [
        (
            foreign(pair.name),
            text_number(pair.a.j_mean),
            text_number(pair.b.j_mean),
            text_number(pair.difference, sign='+'),
        )
        for pair in comparison.pairs
    ]
    left, right = comparison.means
    rows.append(('mean', text_number(left), text_number(right), text_number(paired.mean, sign='+')))
    lines = text_rows(rows)
    lines.insert(len(lines) - 1, '-' * len(lines[0]))
    if comparison.variants[0] != comparison.variants[1]:
        lines.append(f'variants: {names[0]} {comparison.variants[0]}, {names[1]} {comparison.variants[1]}')
    lines += [
        f'only in {name}: {", ".join(map(foreign, only))}'
        for name, only in zip(names, comparison.only, strict=True)
        if only
    ]
    lines += [f'{foreign(name)}: {foreign(old)} -> {foreign(new)}' for name, old, new in comparison.options]
    lines += comparison.notes
    error = '' if paired.standard_error is None else f' Standard error of the mean {paired.standard_error:.3f}.'
    lines += ['', comparison.sentence, f'{METHOD}{error}']
    return '\n'.join(lines) + '\n'
