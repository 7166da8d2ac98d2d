"""SegTrack v2 (Li et al., ICCV 2013) in its published layout."""

from __future__ import annotations

from pathlib import Path

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotation import Annotation, MaskFiles
from moving_object_detector.datasets.folder import list_images
from moving_object_detector.datasets.frames import natural_key
from moving_object_detector.datasets.masks import masks_by_name
from moving_object_detector.datasets.sequence import Sequence


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


def _masks(images: list[Path], folder: Path) -> list[Path | None]:
    """Return the mask of each frame, None where there is none: by name, or by order where none has a frame's name."""
    masks = list_images(folder)
    named = {mask.stem for mask in masks} & {image.stem for image in images}
    return list(masks) if not named and len(masks) == len(images) else masks_by_name(images, folder)


def _annotations(truth: Path, images: list[Path]) -> tuple[Annotation | None, ...]:
    """Return the union of each frame's masks.

    A sequence of several objects has a folder for each, ``1``, ``2`` and so on, in formats that differ (those of
    ``cheetah`` are bmp and png), and there are masks of no frame (one of ``worm``).
    """
    if not truth.is_dir():
        return (None,) * len(images)
    entries = sorted(truth.iterdir(), key=lambda entry: natural_key(entry.name))
    objects = [entry for entry in entries if entry.is_dir() and list_images(entry)]
    frames = zip(*(_masks(images, folder) for folder in objects or [truth]), strict=True)
    unions = (tuple(mask for mask in masks if mask) for masks in frames)
    return tuple(MaskFiles(union) if union else None for union in unions)


def read_segtrack(root: Path) -> list[Sequence]:
    """List all sequences; the annotation of a frame is the union of its objects' masks.

    Args:
        root: Folder with ``JPEGImages`` and ``GroundTruth``, and with ``ImageSets`` as published.

    Raises:
        UserError: A folder or a frame that a list names is missing, there is no sequence, or masks are called in
            another way than their frames and are not as many.

    """
    if not (root / 'JPEGImages').is_dir():
        raise UserError(f'{root / "JPEGImages"} is missing; give the SegTrack v2 folder that holds it as root')
    sequences = []
    for name in _names(root):
        truth = root / 'GroundTruth' / name
        images = _images(root, name)
        sequences.append(Sequence(name, tuple(images), _annotations(truth, images)))
    if not sequences:
        raise UserError(f'{root}: no sequence in JPEGImages; copy the data set again')
    return sequences
