"""The page of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from moving_object_detector.common.files import write_atomically
from moving_object_detector.evaluation.compare import METHOD, Comparison
from moving_object_detector.evaluation.report.page import title_of
from moving_object_detector.evaluation.report.plots import difference_bars
from moving_object_detector.evaluation.report.template import Shot, embed, render
from moving_object_detector.evaluation.results import SequenceResult

SHOWN: Final = 8
"""Sequences of which frames are shown."""


def write_comparison(path: Path, comparison: Comparison, folders: tuple[Path, Path]) -> Path:
    """Write two runs side by side as one HTML file that needs nothing besides itself.

    Args:
        path: The file.
        comparison: Of the two runs.
        folders: Of the runs, with their pictures.

    Returns:
        The file.

    Raises:
        UserError: It cannot be written.

    """
    write_atomically(path, render('comparison.html', _context(comparison, folders)))
    return path


def _context(comparison: Comparison, folders: tuple[Path, Path]) -> dict[str, Any]:
    names, differences = comparison.names, comparison.differences
    bars = None
    if len(differences) > 1:
        bars = difference_bars(differences, comparison.paired.mean, f'J of {names[1]} minus J of {names[0]}')
    return {
        'eyebrow': f'Comparison on {title_of(comparison.runs[0])}',
        'title': f'{names[0]} and {names[1]}',
        'under': [f'{name}: {variant}' for name, variant in zip(names, comparison.variants, strict=True)],
        'footer': METHOD,
        'c': comparison,
        'names': names,
        'wins': sum(difference > 0 for difference in differences.values()),
        'losses': sum(difference < 0 for difference in differences.values()),
        'largest': max(map(abs, differences.values())) or 1.0,
        'method': METHOD,
        'bars': bars,
        'frames': _frames(comparison, folders),
    }


def _frames(comparison: Comparison, folders: tuple[Path, Path]) -> list[dict[str, Any]]:
    """Return the worst frames of both runs for the sequences in which they differ most."""
    differences = comparison.differences
    sequences = [{sequence.name: sequence for sequence in run.sequences} for run in comparison.runs]
    frames = []
    for name in sorted(differences, key=lambda name: (-abs(differences[name]), name))[:SHOWN]:
        shots = [
            shot
            for place in (0, 1)
            if (shot := _worst(folders[place], sequences[place][name], comparison, place)) is not None
        ]
        if shots:
            frames.append({'name': name, 'difference': differences[name], 'shots': shots})
    return frames


def _worst(folder: Path, sequence: SequenceResult, comparison: Comparison, place: int) -> Shot | None:
    there = {picture.kind: picture for picture in sequence.pictures}
    # A sequence of one scored frame has a best frame alone.
    picture = there.get('worst', there.get('best'))
    if picture is None:
        return None
    column = sequence.variants[comparison.runs[place].variants[-1]].j
    j = column[picture.frame] if picture.frame < len(column) else None
    words = [comparison.names[place], f'worst frame, {picture.frame}', '' if j is None else f'J {j:.3f}']
    return embed(folder, picture, ' · '.join(filter(None, words)))
