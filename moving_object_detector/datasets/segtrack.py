"""SegTrack v2 (Li et al., ICCV 2013) in its published layout."""

from __future__ import annotations

from pathlib import Path

from moving_object_detector.datasets.annotation import MaskFiles
from moving_object_detector.datasets.folder import list_images
from moving_object_detector.datasets.frames import natural_key
from moving_object_detector.datasets.sequence import Sequence
from moving_object_detector.errors import UserError


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]


def _names(root: Path) -> list[str]:
    """Return the sequences of ``ImageSets/all.txt``, where each has an asterisk before it; else the folders."""
    listing = root / 'ImageSets' / 'all.txt'
    if listing.is_file():
        return [line.lstrip('*') for line in _lines(listing)]
    folders = (entry.name for entry in (root / 'JPEGImages').iterdir() if entry.is_dir())
    return sorted(folders, key=natural_key)


def _images(root: Path, name: str) -> list[Path]:
    """Return the frames of a sequence in the order of its list, or in natural order where there is none."""
    folder = root / 'JPEGImages' / name
    if not folder.is_dir():
        raise UserError(f'{folder} is missing, but ImageSets/all.txt names the sequence; copy the data set again')
    images = list_images(folder)
    listing = root / 'ImageSets' / f'{name}.txt'
    if not listing.is_file():
        return images
    # The first line is the folder, the others are file names without their suffixes.
    there = {image.stem: image for image in images}
    stems = _lines(listing)[1:]
    missing = next((stem for stem in stems if stem not in there), None)
    if missing is not None:
        raise UserError(f'{listing} names the frame {missing}, but it is not in {folder}')
    return [there[stem] for stem in stems]


def read_segtrack(root: Path) -> list[Sequence]:
    """List all sequences; the annotation of a frame is the union of its objects' masks.

    Args:
        root: Folder with ``JPEGImages`` and ``GroundTruth``, and with ``ImageSets`` as published.

    Raises:
        UserError: A folder or a frame that a list names is missing, or there is no sequence.

    """
    if not (root / 'JPEGImages').is_dir():
        raise UserError(f'{root / "JPEGImages"} is missing; give the SegTrack v2 folder that holds it as root')
    sequences = []
    for name in _names(root):
        truth = root / 'GroundTruth' / name
        # A sequence of several objects has a folder for each: GroundTruth/<name>/1, 2 and so on.
        objects = sorted((entry for entry in truth.iterdir() if entry.is_dir()), key=_key) if truth.is_dir() else []
        masks: dict[str, list[Path]] = {}
        for folder in objects or ([truth] if truth.is_dir() else []):
            for mask in list_images(folder):
                masks.setdefault(mask.stem, []).append(mask)
        images = _images(root, name)
        found = (tuple(masks.get(image.stem, ())) for image in images)
        sequences.append(Sequence(name, tuple(images), tuple(MaskFiles(paths) if paths else None for paths in found)))
    if not sequences:
        raise UserError(f'{root}: no sequence in JPEGImages; copy the data set again')
    return sequences


def _key(path: Path) -> tuple[tuple[int, int, str], ...]:
    return natural_key(path.name)
