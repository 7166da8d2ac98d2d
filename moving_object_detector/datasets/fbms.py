"""FBMS-59 (Ochs, Malik and Brox, TPAMI 2014) in its published layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from moving_object_detector.datasets.annotation import Annotation, RegionFile
from moving_object_detector.datasets.folder import list_images
from moving_object_detector.datasets.frames import natural_key
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.errors import UserError

PARTS: Final = {
    'train': ('Trainingset',),
    'val': ('Testset',),
    'test': ('Testset',),
    'trainval': ('Trainingset', 'Testset'),
}


@dataclass(frozen=True)
class _Label:
    """One labelled frame of a definition file."""

    number: int
    """Of the frame, from 0."""
    file: str
    """The label's file name."""
    image: str
    """The frame's file name, with a suffix that need not be the file's."""


def _parse(path: Path) -> tuple[int, list[_Label]]:
    """Return the background's code and the labelled frames of a ``Def.dat``.

    The file is a row of headings, each followed by its value in the next line that is not empty.
    """
    lines = [line.strip() for line in path.read_text(encoding='latin-1').splitlines() if line.strip()]
    pairs = list(pairwise(lines))
    background = next((value for heading, value in pairs if re.fullmatch(r'Scale of region 0:?', heading)), None)
    columns = [
        [value for heading, value in pairs if heading.rstrip(':') == name]
        for name in ('Frame number', 'File name', 'Input file name')
    ]
    numbers, files, images = columns
    whole = len(numbers) == len(files) == len(images) and all(number.isdecimal() for number in numbers)
    if background is None or not background.isdecimal() or not whole:
        raise UserError(
            f'{path}: not a definition file as FBMS-59 has them (looked for "Scale of region 0:" and for frames as '
            '"Frame number:", "File name:" and "Input file name:"); copy the data set again'
        )
    rows = zip(numbers, files, images, strict=True)
    return int(background), [_Label(int(number), file, image) for number, file, image in rows]


def _annotations(folder: Path, images: list[Path]) -> tuple[Annotation | None, ...]:
    found: list[Annotation | None] = [None] * len(images)
    truth = folder / 'GroundTruth'
    definitions = sorted(truth.glob('*Def.dat')) if truth.is_dir() else []
    if not definitions:
        return tuple(found)
    background, labels = _parse(definitions[0])
    places = {image.stem: place for place, image in enumerate(images)}
    for label in labels:
        if 'PROB' in label.file:
            continue
        # Definitions name the frames as pgm or ppm, which were published as jpg.
        place = places.get(Path(label.image).stem, label.number)
        path = truth / label.file
        if place < len(images) and path.is_file():
            found[place] = RegionFile(path, background)
    return tuple(found)


def read_fbms(root: Path, split: str) -> list[Sequence]:
    """List the sequences of a split; few of their frames are annotated.

    Args:
        root: Folder with ``Trainingset`` and ``Testset``.
        split: ``train``, ``test`` (``val`` is the same), or ``trainval`` for both.

    Raises:
        UserError: There is no such split or folder, or a definition file is damaged.

    """
    if split not in PARTS:
        raise UserError(f'{root}: FBMS-59 has no split {split}; it has {", ".join(PARTS)}')
    sequences = []
    for part in PARTS[split]:
        if not (root / part).is_dir():
            raise UserError(f'{root / part} is missing; give the FBMS-59 folder that holds Trainingset and Testset')
        for folder in sorted((root / part).iterdir(), key=lambda entry: natural_key(entry.name)):
            images = list_images(folder) if folder.is_dir() else []
            if images:
                sequences.append(Sequence(folder.name, tuple(images), _annotations(folder, images)))
    if not sequences:
        raise UserError(f'{root}: no folder with images in {" and ".join(PARTS[split])}; copy the data set again')
    return sequences
