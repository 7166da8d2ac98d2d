"""Two runs side by side: by how much they differ on each sequence, and whether it means anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.paired import FEWEST, PairedDifference, paired_difference
from moving_object_detector.evaluation.report.template import NOTHING, flat
from moving_object_detector.evaluation.results import RunResult, read_results
from moving_object_detector.evaluation.summary import Scores, run_scores, sequence_scores

METHOD: Final = (
    'Paired over the sequences that both runs have: sign-flip permutation test, and the 95 % interval of the means '
    'that it does not refuse.'
)
_APART: Final = ('root', 'variants')
_MADE_WITH: Final = ('engine', 'flow', 'revision', 'machine', 'versions')


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
        """What it comes to, in words."""
        count, difference = self.paired.count, self.paired.mean
        plural = 's' if count != 1 else ''
        better = self.names[difference > 0]
        sign = 1 if difference > 0 else -1
        wins = sum(sign * value > 0 for value in self.differences.values())
        if not any(self.differences.values()):
            return f'{self.names[0]} and {self.names[1]} score the same on all {count} sequence{plural}.'
        if self.paired.interval is None:
            return (
                f'{better} is better by {abs(difference):.3f}, on {wins} of {count} sequence{plural}; that is too few '
                f'to tell it from chance, which takes {FEWEST}.'
            )
        low, high = sorted(sign * bound for bound in self.paired.interval)
        than = 'more' if self.paired.clear else 'not more'
        return (
            f'{better} is better by {abs(difference):.3f}, on {wins} of {count} sequences; 95 % interval {low:.3f} to '
            f'{high:.3f}: {than} than the spread between sequences explains.'
        )


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


def _options(a: RunResult, b: RunResult) -> tuple[tuple[str, str, str], ...]:
    """Return the lines of two runs' settings that differ; an option that one does not have is a dash there."""
    left, right = (dict(flat(_settings(run))) for run in (a, b))
    names = dict.fromkeys((*left, *right))
    return tuple(
        (name, left.get(name, NOTHING), right.get(name, NOTHING)) for name in names if left.get(name) != right.get(name)
    )


def _settings(run: RunResult) -> Mapping[str, Any]:
    identity = {name: value for name, value in run.identity.items() if name not in _APART}
    options = identity.pop('configuration', None) or {}
    return {**identity, **options, **{name: run.details[name] for name in _MADE_WITH if name in run.details}}


def text_table(comparison: Comparison) -> str:
    """Return the comparison for a terminal: a line for each sequence, and what it comes to."""
    names, paired = comparison.names, comparison.paired
    rows = [('', f'J {names[0]}', f'J {names[1]}', 'difference')]
    rows += [
        (pair.name, _number(pair.a.j_mean), _number(pair.b.j_mean), _number(pair.difference, '+'))
        for pair in comparison.pairs
    ]
    left, right = comparison.means
    rows.append(('mean', _number(left), _number(right), _number(paired.mean, '+')))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f'{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}' for row in rows
    ]
    lines.insert(len(lines) - 1, '-' * len(lines[0]))
    if comparison.variants[0] != comparison.variants[1]:
        lines.append(f'variants: {names[0]} {comparison.variants[0]}, {names[1]} {comparison.variants[1]}')
    lines += [f'only in {name}: {", ".join(only)}' for name, only in zip(names, comparison.only, strict=True) if only]
    lines += [f'{name}: {before} -> {after}' for name, before, after in comparison.options]
    lines += comparison.notes
    error = '' if paired.standard_error is None else f' Standard error of the mean {paired.standard_error:.3f}.'
    lines += ['', comparison.sentence, f'{METHOD}{error}']
    return '\n'.join(lines) + '\n'


def _number(value: float | None, sign: str = '') -> str:
    return '-' if value is None else f'{value:{sign}.3f}'


def compare_folders(
    a: Path, b: Path, out: Path | None = None, variants: tuple[str | None, str | None] = (None, None)
) -> str:
    """Compare the runs in two folders.

    Args:
        a: Folder of one run.
        b: Folder of the other.
        out: HTML file to write; None: none.
        variants: Of each run; None: the one that counts.

    Returns:
        Text for the terminal.

    Raises:
        UserError: There are no results, they cannot be compared, or the file cannot be written.

    """
    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b)) if str(a) != str(b) else ('A', 'B')
    comparison = compare(read_results(a), read_results(b), names, variants)
    if out is not None:
        from moving_object_detector.evaluation.report.comparison import write_comparison

        write_comparison(out, comparison, (a, b))
    return text_table(comparison)
