"""Two runs side by side: by how much they differ on each sequence, and whether that is more than chance."""

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
"""Pairs up to which all signs are tried; above, 20,000 draws."""
_EQUAL: Final = 1e-12
"""Sums closer than this are equal: which way they were rounded is chance."""
_MADE_WITH: Final = ('engine', 'flow', 'revision', 'machine', 'versions')


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return how likely chance alone brings differences of pairs whose mean is as far from zero.

    If there is no difference, then each is as likely the other way round: of all ways of flipping the signs of some (a
    fixed sample above 14 pairs) it is the share with a mean as far from zero (Fisher, The Design of Experiments, 1935).
    """
    values = np.asarray(differences, np.float64)
    if values.size <= EXACT:
        flipped = (np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, (20_000, values.size))
        flipped[0] = 0  # the signs as they are
    sums = (1 - 2 * flipped) @ values
    return float(np.mean(np.abs(sums) >= abs(values.sum()) - _EQUAL))


class Comparison(NamedTuple):
    """Two runs, A and B, side by side; a difference is B minus A.

    ``differences`` are those of J, ``p`` theirs by :func:`sign_flip_p`; ``options`` what the runs differ in, with the
    values in A and B; ``notes`` sentences about what makes the comparison doubtful.
    """

    names: tuple[str, str]
    table: Table
    differences: Mapping[str, float]
    p: float
    options: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return the comparison for a terminal: a line for each sequence, and what it comes to."""
        lines = self.table.lines()
        lines.insert(len(lines) - 1, '-' * len(lines[0]))
        lines += [f'{foreign(name)}: {foreign(old)} -> {foreign(new)}' for name, old, new in self.options]
        (left, right), values = self.names, self.differences.values()
        wins = sum(value > 0 for value in values)
        sentence = f'{right} minus {left}: J {mean([*values]) or 0:+.3f}, higher on {wins} of {len(values)} sequences'
        told = f'by chance alone as far apart with p = {self.p:.3f} (sign-flip permutation test over the sequences)'
        return '\n'.join([*lines, *self.notes, '', f'{sentence}; {told}.', ''])


def compare_runs(a: RunResult, b: RunResult, names: tuple[str, str] = ('A', 'B')) -> Comparison:
    """Put two runs side by side, each by the variant that counts.

    Raises UserError where the runs were scored by different protocols or have no scored sequence in common.
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
