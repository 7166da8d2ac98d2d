"""FBMS-59 (Ochs, Malik and Brox, TPAMI 2014) in its published layout."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotation import Annotation, RegionFile
from moving_object_detector.datasets.folder import list_images
from moving_object_detector.datasets.frames import natural_key
from moving_object_detector.datasets.sequence import Sequence

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


def _parse(path: Path) -> tuple[list[int], list[_Label]]:
    """Return the codes of the regions, the background's first, and the labelled frames of a ``Def.dat``.

    The file is a row of headings, each followed by its value in the next line that is not empty.
    """
    lines = [line.strip() for line in path.read_text(encoding='latin-1').splitlines() if line.strip()]
    pairs = list(pairwise(lines))
    codes = {heading.rstrip(':'): value for heading, value in pairs if heading.startswith('Scale of region ')}
    regions = [codes.get(f'Scale of region {number}', '') for number in range(len(codes))]
    columns = [
        [value for heading, value in pairs if heading.rstrip(':') == name]
        for name in ('Frame number', 'File name', 'Input file name')
    ]
    numbers, files, images = columns
    even = len(numbers) == len(files) == len(images)
    if not regions or not even or not all(value.isdecimal() for value in (*regions, *numbers)):
        raise UserError(
            f'{path}: not a definition file as FBMS-59 has them (looked for "Scale of region 0:" and for frames as '
            '"Frame number:", "File name:" and "Input file name:"); copy the data set again'
        )
    rows = zip(numbers, files, images, strict=True)
    return [int(code) for code in regions], [_Label(int(number), file, image) for number, file, image in rows]


def _definitions(folder: Path) -> list[Path]:
    """Return the definition files of a sequence, the one of its name first.

    Those whose names start with a dot are what a Mac leaves in archives.
    """
    truth = folder / 'GroundTruth'
    files = (entry for entry in truth.glob('*Def.dat') if not entry.name.startswith('.')) if truth.is_dir() else ()
    return sorted(files, key=lambda file: (file.name != f'{folder.name}Def.dat', natural_key(file.name)))


def _annotations(folder: Path, images: list[Path]) -> tuple[Annotation | None, ...]:
    """Return what the definition files say of the frames; where two label the same frame, the first one counts.

    A label that is listed but not there is told when it is read.
    """
    found: list[Annotation | None] = [None] * len(images)
    places = {image.stem: place for place, image in enumerate(images)}
    for definition in _definitions(folder):
        (background, *objects), labels = _parse(definition)
        for label in labels:
            # Beside some labels lie the probabilities of their pixels, which are not for scoring regions.
            if 'PROB' in label.file:
                continue
            # Definitions name the frames as pgm or ppm, which were published as jpg.
            place = places.get(Path(label.image).stem, label.number)
            if place < len(images) and found[place] is None:
                found[place] = RegionFile(definition.parent / label.file, background, tuple(objects))
    return tuple(found)


def _images(folder: Path) -> list[Path]:
    """Return the frames; of a frame that lies there in several formats, as older programs need it, the first."""
    frames: dict[str, Path] = {}
    for image in list_images(folder):
        frames.setdefault(image.stem, image)
    return list(frames.values())


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
            images = _images(folder) if folder.is_dir() else []
            if images:
                sequences.append(Sequence(folder.name, tuple(images), _annotations(folder, images)))
    if not sequences:
        raise UserError(f'{root}: no folder with images in {" and ".join(PARTS[split])}; copy the data set again')
    return sequences
