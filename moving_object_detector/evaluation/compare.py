"""Two runs side by side: by how much they differ on each sequence, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.options import flatten
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import RunResult, read_results
from moving_object_detector.evaluation.summary import Scores, Table, sequence_scores

METHOD: Final = (
    'Paired over the sequences that both runs have: sign-flip permutation test, and the 95 % interval of the means '
    'that it does not refuse.'
)
LEVEL: Final = 0.05
"""Of the test; the interval has one minus it."""
FEWEST: Final = 6
"""Pairs with which the test can find anything: 2 of 2^n signs are under the level."""
EXACT: Final = 14
"""Pairs up to which all signs are tried; above, 20,000 draws."""
_EQUAL: Final = 1e-12
"""Means closer to zero than this are zero: which way they were rounded is chance."""
_MADE_WITH: Final = ('engine', 'flow', 'revision', 'machine', 'versions')


class PairedDifference(NamedTuple):
    """What the differences of pairs come to.

    ``interval`` holds the mean with 95 %, ``p`` is the share of the signs with which the mean is as far from zero.
    There is no interval of fewer than :data:`FEWEST`.
    """

    pairs: int
    mean: float
    interval: tuple[float, float] | None
    p: float

    @property
    def clear(self) -> bool:
        """Whether it is more than the spread between the pairs."""
        return self.p <= LEVEL


def paired_difference(differences: Sequence[float]) -> PairedDifference:
    """Test by flipping signs whether differences of one or more pairs are on average other than zero.

    If there is no difference, then each is as likely the other way round. Of all ways of flipping the signs of some (a
    fixed sample above 14 pairs), counted are those whose mean is as far from zero as the true one (Fisher, The Design
    of Experiments, 1935). The sum with the signs of a subset flipped reaches the true one exactly if the subset's mean
    is not above zero; hence the interval of all means that the test does not refuse lies between two of the sorted
    means of subsets (Hartigan, Using subsample values as typical values, JASA 1969).
    """
    values = np.asarray(differences, np.float64)
    if values.size <= EXACT:
        inside = (np.arange(1, 2**values.size)[:, None] >> np.arange(values.size)) & 1
    else:
        inside = np.random.default_rng(0).integers(0, 2, (20_000, values.size))
        inside = inside[inside.any(1)]
    means = np.sort((inside @ values) / inside.sum(1))
    means[np.abs(means) < _EQUAL] = 0
    # One more for the signs as they are, whose subset is empty.
    total = len(means) + 1
    one_sided = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    place = math.floor(LEVEL / 2 * total)
    interval = (float(means[place - 1]), float(means[-place])) if place else None
    return PairedDifference(values.size, float(values.mean()), interval, min(1.0, 2 * one_sided / total))


@dataclass(frozen=True)
class Comparison:
    """Two runs, A and B, side by side; a difference is B minus A, and ``paired`` is about those of J.

    ``pairs`` are the scores of the sequences that both have; ``options`` what the runs differ in, with the values in A
    and B; ``notes`` sentences about what makes the comparison doubtful.
    """

    names: tuple[str, str]
    pairs: Mapping[str, tuple[Scores, Scores]]
    differences: Mapping[str, float]
    paired: PairedDifference
    options: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]

    @property
    def means(self) -> tuple[float | None, float | None]:
        """Mean J of A and of B over the sequences that were scored in both."""
        a, b = (mean([self.pairs[name][side].j_mean or 0.0 for name in self.differences]) for side in (0, 1))
        return a, b

    @property
    def sentence(self) -> str:
        """What it comes to, in words; B is what is spoken of, so that signs are those of the numbers."""
        (left, right), paired = self.names, self.paired
        sequences = f'{paired.pairs} sequence{"s" if paired.pairs != 1 else ""}'
        if not any(self.differences.values()):
            return f'{left} and {right} score the same on all {sequences}.'
        wins = sum(value > 0 for value in self.differences.values())
        start = f'{right} is {"better" if paired.mean > 0 else "worse"} than {left}: J {paired.mean:+.3f}, higher on'
        if paired.interval is None:
            return f'{start} {wins} of {sequences}; that is too few to tell it from chance, which takes {FEWEST}.'
        low, high = paired.interval
        than = 'more' if paired.clear else 'not more'
        words = f'95 % interval {low:+.3f} to {high:+.3f}: {than} than the spread between sequences explains.'
        return f'{start} {wins} of {sequences}; {words}'

    def table(self) -> Table:
        """Return J and F of each sequence in both runs, and the means of J."""
        heads = [('sequence', ''), ('frames', ',')]
        for score in 'JF':
            heads += [*((f'{score} {name}', '.3f') for name in self.names), (f'difference of {score}', '+.3f')]
        rows: list[list[float | str | None]] = []
        for name, (a, b) in self.pairs.items():
            rows.append([name, a.frames, a.j_mean, b.j_mean, _minus(b.j_mean, a.j_mean)])
            rows[-1] += [a.f_mean, b.f_mean, _minus(b.f_mean, a.f_mean)]
        return Table(heads, [*rows, ['mean', None, *self.means, self.paired.mean, None, None, None]])


def compare_runs(a: RunResult, b: RunResult, names: tuple[str, str] = ('A', 'B')) -> Comparison:
    """Put two runs side by side, each by the variant that counts.

    Raises UserError where the runs were scored by different protocols or have no scored sequence in common.
    """
    left, right = names = foreign(names[0]), foreign(names[1])
    if a.protocol != b.protocol:
        rules = f'{left} was scored by the rule of {a.protocol}, {right} by that of {b.protocol}'
        raise UserError(f'{rules}; compare runs of one data set')
    scores, others = (
        {item.name: sequence_scores(item, run.counting, run.protocol) for item in run.sequences} for run in (a, b)
    )
    pairs = {name: (one, others[name]) for name, one in scores.items() if name in others}
    found = {name: _minus(other.j_mean, one.j_mean) for name, (one, other) in pairs.items()}
    differences = {name: value for name, value in found.items() if value is not None}
    if not differences:
        raise UserError(f'{left} and {right} have no sequence in common that was scored; compare runs of one split')
    notes = [
        f'{foreign(name)}: {one.frames} frames were scored in {left}, {other.frames} in {right}'
        for name, (one, other) in pairs.items()
        if one.frames != other.frames
    ]
    for name, alone in ((left, scores.keys() - pairs.keys()), (right, others.keys() - pairs.keys())):
        notes += [f'only in {name}: {", ".join(map(foreign, sorted(alone)))}'] if alone else []
    paired = paired_difference(list(differences.values()))
    return Comparison(names, pairs, differences, paired, _options(a, b), tuple(notes))


def compare_folders(a: Path, b: Path) -> Comparison:
    """Compare the runs in two folders, called by these; raises UserError also where there is no run."""
    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b)) if str(a) != str(b) else ('A', 'B')
    return compare_runs(read_results(a), read_results(b), names)


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else b - a


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as lines of dotted name and value."""
    found = flatten(values)
    return [(name, ', '.join(map(str, one)) if isinstance(one, list | tuple) else str(one)) for name, one in found]


def _options(a: RunResult, b: RunResult) -> tuple[tuple[str, str, str], ...]:
    """Return the lines of two runs' settings that differ; an option that one does not have is a dash there."""

    def settings(run: RunResult) -> dict[str, str]:
        # The hash of a model counts, not its path.
        identity = {name: value for name, value in run.identity.items() if name not in {'root', 'variants'}}
        made_with = {name: run.details[name] for name in _MADE_WITH if name in run.details}
        variant = {'variant': run.counting}
        return dict(flat({**(identity.pop('configuration', None) or {}), **identity, **variant, **made_with}))

    one, other = settings(a), settings(b)
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return tuple((name, one.get(name, '-'), other.get(name, '-')) for name in names)


def text_comparison(comparison: Comparison) -> str:
    """Return the comparison for a terminal: a line for each sequence, and what it comes to."""
    lines = comparison.table().lines()
    lines.insert(len(lines) - 1, '-' * len(lines[0]))
    lines += [f'{foreign(name)}: {foreign(old)} -> {foreign(new)}' for name, old, new in comparison.options]
    return '\n'.join([*lines, *comparison.notes, '', comparison.sentence, METHOD, ''])
