"""Readers of data sets in their published layouts (DAVIS 2016, SegTrack v2, FBMS-59), and of folders of masks.

Annotations are for evaluation only, never for training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.codecs import decode_labels, decode_objects
from moving_object_detector.media.frames import natural_key
from moving_object_detector.media.sources import ImageFiles, list_images

Annotation: TypeAlias = Callable[[], NDArray[np.bool_]]
"""Reads a frame's annotation, bool (H, W), True on any object; raises UserError if a file is missing or damaged."""


def _decoded(path: Path, decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except ImageError as error:
        raise UserError(f'{path} cannot be read as an image: {error}') from error


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask (H, W) of any bit depth and channels, in which black is background and all else is object.

    A JPEG is thresholded at half, see :func:`decode_objects`. Raises UserError if the file is missing or not an image,
    or the first colour of its palette is not black.
    """

    def decode(content: bytes) -> NDArray[np.bool_]:
        # Byte 25 of a PNG is 3 if it has a palette: length, PLTE, colours (RFC 2083, 4.1.1 and 4.1.2).
        palette = content.startswith(b'\x89PNG\r\n\x1a\n') and content[25:26] == b'\x03'
        start = content.find(b'PLTE') + 4
        if palette and any(content[start : start + 3]):
            raise UserError(
                f'{path}: the first colour of its palette is not black, so the background is unknown; store the mask '
                'in grey levels, with 0 for the background'
            )
        return decode_objects(content)

    return _decoded(path, decode)


@dataclass(frozen=True)
class MaskFiles:
    """An annotation that is the union of masks of one size; see :func:`read_mask`."""

    paths: tuple[Path, ...]

    def __call__(self) -> NDArray[np.bool_]:
        """Read the union."""
        masks = [read_mask(path) for path in self.paths]
        for path, mask in zip(self.paths, masks, strict=True):
            if mask.shape != masks[0].shape:
                raise UserError(f'{path} is {mask.shape[1]}x{mask.shape[0]}, but {self.paths[0]} is not')
        return reduce(np.logical_or, masks)


@dataclass(frozen=True)
class RegionFile:
    """An annotation by region codes: a pixel's grey value, or R * 65536 + G * 256 + B in a colour image."""

    path: Path
    background: int
    """The code of the background."""
    objects: tuple[int, ...]
    """The codes of objects. Other codes are background, as in the official code of FBMS-59."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, for the interface of :class:`MaskFiles`."""
        return (self.path,)

    def __call__(self) -> NDArray[np.bool_]:
        """Read the union of the objects; raises UserError also if no pixel has a known code."""
        label = _decoded(self.path, decode_labels).astype(np.int64)
        codes = label if label.ndim == 2 else label[:, :, 2] * 65536 + label[:, :, 1] * 256 + label[:, :, 0]
        mask = np.asarray(np.isin(codes, self.objects), np.bool_)
        if not mask.any() and not (codes == self.background).any():
            known = ', '.join(str(code) for code in (self.background, *self.objects))
            raise UserError(f'{self.path} has none of the codes of its definition file: {known}')
        return mask


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def _masks_by_name(images: Sequence[Path], folder: Path) -> list[Path | None]:
    """Return the mask of each frame, the file of the same name and any suffix; None if there is none."""
    masks: dict[str, Path] = {}
    for mask in list_images(folder):
        other = masks.setdefault(mask.stem, mask)
        if other != mask:
            raise UserError(f'{folder}: {other.name} and {mask.name} are masks of the same frame; remove one of them')
    found = [masks.get(image.stem) for image in images]
    if masks and not any(found):
        frames = _some([image.stem for image in images])
        raise UserError(
            f'{folder}: no mask has the name of a frame; frames are called {frames}, masks {_some(list(masks))}: '
            'name each mask like its frame'
        )
    return found


def clip_annotations(clips: Mapping[str, Sequence[Path]], masks: Path) -> dict[str, tuple[Annotation | None, ...]]:
    """Return the annotations of clips, given the frames of each by name, from masks named like the frames.

    ``masks`` holds a folder for each clip, named like the clip; a clip without one has no annotations. For a single
    clip it may hold the masks themselves. Masks without a frame are ignored. Raises UserError if no clip has a folder,
    no mask in a folder belongs to a frame, or two belong to the same frame.
    """
    folders = {name: masks / name for name in clips if (masks / name).is_dir()}
    if not folders and len(clips) == 1:
        folders = dict.fromkeys(clips, masks)
    if not folders:
        names = sorted(entry.name for entry in masks.iterdir()) if masks.is_dir() else []
        holds = f'it holds {_some(names)}' if names else 'there is nothing'
        raise UserError(f'{masks}: no folder is named like a clip ({_some(list(clips))}); {holds}')
    found: dict[str, tuple[Annotation | None, ...]] = {name: (None,) * len(images) for name, images in clips.items()}
    for name, folder in folders.items():
        if not folder.is_dir() or not list_images(folder):
            raise UserError(f'{folder}: there is no image here; give the folder of masks, each named like its frame')
        found[name] = tuple(MaskFiles((mask,)) if mask else None for mask in _masks_by_name(clips[name], folder))
    return found


# Layouts


@dataclass(frozen=True)
class ClipFiles:
    """The files of one clip."""

    name: str
    """Unique in a collection."""
    source: partial[Any] = field(compare=False)
    """Opens the clip as a FrameSource; picklable."""
    files: tuple[Path, ...]
    """The frames in order, the video, or the bag's files."""
    annotations: tuple[Annotation | None, ...] = ()
    """The annotation of each frame, None if missing; empty if all are missing."""
    topic: str | None = None
    """The image topic of a bag, if chosen."""


def clip_of_images(name: str, images: Iterable[Path], annotations: Iterable[Annotation | None] = ()) -> ClipFiles:
    """Return the clip of some images, which are not opened and need not exist."""
    files, known = tuple(images), tuple(annotations)
    return ClipFiles(name, partial(ImageFiles, name, files), files, known if any(known) else ())


def _subfolders(folder: Path) -> list[Path]:
    """Return the subfolders of a folder in natural order."""
    return sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: natural_key(entry.name))


def read_davis(root: Path, split: str) -> list[ClipFiles]:
    """List the sequences of a split (train, val, trainval) of DAVIS 2016; raises UserError if its list is missing."""
    listing = root / 'ImageSets' / '480p' / f'{split}.txt'
    if not listing.is_file():
        splits = ', '.join(sorted(path.stem for path in listing.parent.glob('*.txt')))
        raise UserError(
            f'{root}: DAVIS 2016 has no split {split} here; there is {splits}'
            if splits
            else f'{listing} is missing; give the DAVIS 2016 folder that holds JPEGImages and ImageSets as root'
        )
    pairs: dict[str, list[tuple[Path, Annotation | None]]] = {}
    for number, line in enumerate(listing.read_text(encoding='utf-8-sig').splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f'{listing}, line {number}: {line!r} is not a frame and an annotation')
        image, annotation = (root / part.lstrip('/') for part in parts)
        pairs.setdefault(image.parent.name, []).append(
            (image, MaskFiles((annotation,)) if annotation.is_file() else None)
        )
    if not pairs:
        raise UserError(f'{listing} is empty; copy the data set again')
    return [clip_of_images(name, *zip(*frames, strict=True)) for name, frames in pairs.items()]


def _lines(path: Path, encoding: str = 'utf-8') -> list[str]:
    return [line.strip() for line in path.read_text(encoding=encoding).splitlines() if line.strip()]


def _segtrack_images(root: Path, name: str) -> list[Path]:
    """Return the frames of a sequence in the order of its list, or in natural order without one."""
    folder = root / 'JPEGImages' / name
    if not folder.is_dir():
        raise UserError(f'{folder} is missing, but ImageSets/all.txt names the sequence; copy the data set again')
    images = list_images(folder)
    listing = root / 'ImageSets' / f'{name}.txt'
    if not listing.is_file():
        return images
    # The first line is the folder, the others are file names without suffix.
    by_stem = {image.stem: image for image in images}
    stems = _lines(listing)[1:]
    missing = next((stem for stem in stems if stem not in by_stem), None)
    if missing is not None:
        raise UserError(f'{listing} names the frame {missing}, but it is not in {folder}')
    return [by_stem[stem] for stem in stems]


def _segtrack_masks(images: list[Path], folder: Path) -> list[Path | None]:
    """Return the mask of each frame, None if there is none: by name, or by order if no mask has a frame's name."""
    masks = list_images(folder)
    named = {mask.stem for mask in masks} & {image.stem for image in images}
    return list(masks) if not named and len(masks) == len(images) else _masks_by_name(images, folder)


def _segtrack_annotations(truth: Path, images: list[Path]) -> tuple[Annotation | None, ...]:
    """Return the union of each frame's masks.

    A sequence with several objects has a folder for each, ``1``, ``2`` and so on, with varying formats (``cheetah`` has
    bmp and png); one mask of ``worm`` belongs to no frame.
    """
    if not truth.is_dir():
        return (None,) * len(images)
    objects = [folder for folder in _subfolders(truth) if list_images(folder)]
    frames = zip(*(_segtrack_masks(images, folder) for folder in objects or [truth]), strict=True)
    unions = (tuple(mask for mask in masks if mask) for masks in frames)
    return tuple(MaskFiles(union) if union else None for union in unions)


def read_segtrack(root: Path) -> list[ClipFiles]:
    """List all sequences of SegTrack v2; the annotation of a frame is the union of its objects' masks.

    Raises UserError if a listed folder or frame is missing, there is no sequence, or masks match their frames neither
    by name nor by number.
    """
    if not (root / 'JPEGImages').is_dir():
        raise UserError(f'{root / "JPEGImages"} is missing; give the SegTrack v2 folder that holds it as root')
    listing = root / 'ImageSets' / 'all.txt'
    # Names in the list start with an asterisk.
    listed = [line.lstrip('*') for line in _lines(listing)] if listing.is_file() else None
    names = [folder.name for folder in _subfolders(root / 'JPEGImages')] if listed is None else listed
    sequences = []
    for name in names:
        images = _segtrack_images(root, name)
        sequences.append(clip_of_images(name, images, _segtrack_annotations(root / 'GroundTruth' / name, images)))
    if not sequences:
        raise UserError(f'{root}: no sequence in JPEGImages; copy the data set again')
    return sequences


_PARTS: Final = {
    'train': ('Trainingset',),
    'val': ('Testset',),
    'test': ('Testset',),
    'trainval': ('Trainingset', 'Testset'),
}


def _parse_definition(path: Path) -> tuple[list[int], list[tuple[int, str, str]]]:
    """Return the codes of the regions, the background's first, and number, label and image of each labelled frame.

    The file is a series of headings, each with its value in the next line that is not empty.
    """
    pairs = list(pairwise(_lines(path, 'latin-1')))
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
            f'{path}: not a definition file of FBMS-59 (looked for "Scale of region 0:", and for each frame "Frame '
            'number:", "File name:" and "Input file name:"); copy the data set again'
        )
    return [int(code) for code in regions], list(zip(map(int, numbers), files, images, strict=True))


def _fbms_annotations(folder: Path, images: list[Path]) -> tuple[Annotation | None, ...]:
    """Return the annotations of the definition files; if two label the same frame, the first one counts.

    The file named like the sequence comes first. A missing label raises UserError only when it is read.
    """
    found: list[Annotation | None] = [None] * len(images)
    places = {image.stem: place for place, image in enumerate(images)}
    # Names with a leading dot are metadata that macOS adds to archives.
    definitions = [file for file in (folder / 'GroundTruth').glob('*Def.dat') if not file.name.startswith('.')]
    for file in sorted(definitions, key=lambda file: (file.name != f'{folder.name}Def.dat', natural_key(file.name))):
        (background, *objects), labels = _parse_definition(file)
        for number, label, image in labels:
            # Definitions name frames as pgm or ppm, but they were published as jpg.
            place = places.get(Path(image).stem, number)
            # Some labels come with files of pixel probabilities, which are no regions.
            if 'PROB' not in label and place < len(images) and found[place] is None:
                found[place] = RegionFile(file.parent / label, background, tuple(objects))
    return tuple(found)


def _fbms_images(folder: Path) -> list[Path]:
    """Return the frames; of a frame stored in several formats only the first."""
    frames: dict[str, Path] = {}
    for image in list_images(folder):
        frames.setdefault(image.stem, image)
    return list(frames.values())


def read_fbms(root: Path, split: str) -> list[ClipFiles]:
    """List the sequences of a split of FBMS-59: ``train``, ``test`` (``val`` is the same) or ``trainval``.

    Raises UserError if the split or a folder does not exist, or a definition file is damaged.
    """
    if split not in _PARTS:
        raise UserError(f'{root}: FBMS-59 has no split {split}; it has {", ".join(_PARTS)}')
    sequences: list[ClipFiles] = []
    for part in _PARTS[split]:
        if not (root / part).is_dir():
            raise UserError(f'{root / part} is missing; give the FBMS-59 folder that holds Trainingset and Testset')
        found = ((folder, _fbms_images(folder)) for folder in _subfolders(root / part))
        sequences += [
            clip_of_images(folder.name, images, _fbms_annotations(folder, images)) for folder, images in found if images
        ]
    if not sequences:
        raise UserError(f'{root}: no folder with images in {" and ".join(_PARTS[split])}; copy the data set again')
    return sequences
