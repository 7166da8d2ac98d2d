"""Comparison of two runs: differences per sequence, and their significance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.options import flatten
from moving_object_detector.evaluation.metrics import mean
from moving_object_detector.evaluation.results import RunResult, Table, known, read_results, scores_of

EXACT: Final = 14
"""Largest number of pairs for which all sign flips are enumerated; beyond it, 20,000 are sampled."""
_EQUAL: Final = 1e-12
"""Sums closer than this are equal up to rounding."""
_MADE_WITH: Final = ('engine', 'flow', 'revision', 'machine', 'versions')


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of paired differences by a sign-flip permutation test.

    Under the null hypothesis each difference is as likely to have the other sign. The p-value is the share of all sign
    flips (above 14 pairs of a fixed sample) whose mean is as far from zero (Fisher, The Design of Experiments, 1935).
    """
    values = np.asarray(differences, np.float64)
    if values.size <= EXACT:
        flipped = (np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, (20_000, values.size))
        flipped[0] = 0  # the observed signs
    sums = (1 - 2 * flipped) @ values
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - _EQUAL))


class Comparison(NamedTuple):
    """A comparison of two runs A and B; differences are B minus A.

    ``differences`` are those of J by sequence, ``p`` is their p-value by :func:`sign_flip_p`; ``options`` are the
    settings that differ, with the values in A and B; ``notes`` are reasons to doubt the comparison.
    """

    names: tuple[str, str]
    table: Table
    differences: Mapping[str, float]
    p: float
    options: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the comparison for a terminal: a line for each sequence, and the result."""
        lines = self.table.lines()
        lines.insert(len(lines) - 1, '-' * len(lines[0]))
        lines += [f'{foreign(name)}: {foreign(old)} -> {foreign(new)}' for name, old, new in self.options]
        (left, right), values = self.names, self.differences.values()
        wins = sum(value > 0 for value in values)
        sentence = f'{right} minus {left}: J {mean([*values]) or 0:+.3f}, higher on {wins} of {len(values)} sequences'
        test = f'p = {self.p:.3f} for a difference as large by chance (sign-flip permutation test over the sequences)'
        return '\n'.join([*lines, *self.notes, '', f'{sentence}; {test}.', ''])


def compare_runs(a: RunResult, b: RunResult, names: tuple[str, str] = ('A', 'B')) -> Comparison:
    """Compare two runs, each by its scored variant.

    Raises UserError if the runs were scored by different protocols or have no scored sequence in common.
    """
    left, right = names = foreign(names[0]), foreign(names[1])
    if a.protocol != b.protocol:
        rules = f'{left} was scored by the rule of {a.protocol}, {right} by that of {b.protocol}'
        raise UserError(f'{rules}; compare runs of one data set')
    scores, others = (
        {item.name: scores_of([item], run.counting, run.protocol) for item in run.sequences} for run in (a, b)
    )
    heads = [('sequence', ''), ('frames', ',')]
    for score in 'JF':
        heads += [*((f'{score} {name}', '.3f') for name in names), (f'difference of {score}', '+.3f')]
    rows: list[list[float | str | None]] = []
    notes, differences = [], {}
    for name in [name for name in scores if name in others]:
        one, other = scores[name], others[name]
        apart = _minus(other.j_mean, one.j_mean)
        row = [one.frames, one.j_mean, other.j_mean, apart]
        rows.append([name, *row, one.f_mean, other.f_mean, _minus(other.f_mean, one.f_mean)])
        if one.frames != other.frames:
            notes.append(f'{foreign(name)}: {one.frames} frames were scored in {left}, {other.frames} in {right}')
        if apart is not None:
            differences[name] = apart
    if not differences:
        raise UserError(f'{left} and {right} have no sequence in common that was scored; compare runs of one split')
    for name, alone in ((left, scores.keys() - others.keys()), (right, others.keys() - scores.keys())):
        notes += [f'only in {name}: {", ".join(map(foreign, sorted(alone)))}'] if alone else []
    last = [mean(known(run[name].j_mean for name in differences)) for run in (scores, others)]
    rows.append(['mean', None, *last, mean([*differences.values()]), None, None, None])
    p = sign_flip_p([*differences.values()])
    return Comparison(names, Table(heads, rows), differences, p, _options(a, b), tuple(notes))


def compare_folders(a: Path, b: Path) -> Comparison:
    """Compare the runs in two folders, named after these; raises UserError also if a folder holds no run."""
    names = (a.resolve().name, b.resolve().name)
    if names[0] == names[1]:
        names = (str(a), str(b)) if str(a) != str(b) else ('A', 'B')
    return compare_runs(read_results(a), read_results(b), names)


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else b - a


def flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as pairs of dotted name and value."""
    found = flatten(values)
    return [(name, ', '.join(map(str, one)) if isinstance(one, list | tuple) else str(one)) for name, one in found]


def _options(a: RunResult, b: RunResult) -> tuple[tuple[str, str, str], ...]:
    """Return the settings in which two runs differ; a missing one is a dash."""

    def settings(run: RunResult) -> dict[str, str]:
        # Models are compared by hash, not by path.
        identity = {name: value for name, value in run.identity.items() if name not in {'root', 'variants'}}
        made_with = {name: run.details[name] for name in _MADE_WITH if name in run.details}
        variant = {'variant': run.counting}
        return dict(flat({**(identity.pop('configuration', None) or {}), **identity, **variant, **made_with}))

    one, other = settings(a), settings(b)
    names = [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
    return tuple((name, one.get(name, '-'), other.get(name, '-')) for name in names)
