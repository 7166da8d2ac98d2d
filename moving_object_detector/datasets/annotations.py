"""What data sets and folders of masks say of frames: which pixels move. For scoring alone, never for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.codecs import decode_labels, decode_objects
from moving_object_detector.media.sources import list_images

Pixels = TypeVar('Pixels', bound=NDArray[Any])


class Annotation(Protocol):
    """The annotation of one frame, on disk."""

    def read(self) -> NDArray[np.bool_]:
        """Read it, bool (H, W), True on any object.

        Raises:
            UserError: A file is missing, is not an image, or does not fit the others.

        """


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error


def _decoded(path: Path, content: bytes, decode: Callable[[bytes], Pixels]) -> Pixels:
    try:
        return decode(content)
    except ImageError as error:
        raise UserError(f'{path} cannot be read as an image: {error}') from error


def _first_colour(content: bytes) -> bytes:
    """Return the first colour of a PNG's palette, empty where there is none.

    Of a PNG, byte 25 is 3 where it has a palette, which comes before the pixels as length, ``PLTE`` and colours (RFC
    2083, sections 4.1.1 and 4.1.2).
    """
    if not content.startswith(b'\x89PNG\r\n\x1a\n') or content[25:26] != b'\x03':
        return b''
    start = content.find(b'PLTE') + 4
    return content[start : start + 3]


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask in which black is background and all else is object, whatever its depth or number of channels.

    In a JPEG half is the limit, see :func:`decode_objects`. In a palette, as DAVIS and others have it, the first colour
    is the background's and black.

    Returns:
        (H, W), True on the object.

    Raises:
        UserError: The file is missing or not an image, or the first colour of its palette is not black.

    """
    content = _content(path)
    if any(_first_colour(content)):
        raise UserError(
            f'{path}: the first colour of its palette is not black, so there is no telling which is the background; '
            'store it in grey, with 0 for the background'
        )
    return _decoded(path, content, decode_objects)


@dataclass(frozen=True)
class MaskFiles:
    """The union of masks; see :func:`read_mask`."""

    paths: tuple[Path, ...]
    """One or more, of one size."""

    def read(self) -> NDArray[np.bool_]:
        """Read the union; see :class:`Annotation`."""
        union: NDArray[np.bool_] | None = None
        for path in self.paths:
            mask = read_mask(path)
            if union is not None and union.shape != mask.shape:
                raise UserError(f'{path} is {mask.shape[1]}x{mask.shape[0]}, but {self.paths[0]} is not')
            union = mask if union is None else union | mask
        if union is None:
            raise ValueError('an annotation of no files')
        return union


@dataclass(frozen=True)
class RegionFile:
    """Regions told apart by codes.

    The code of a pixel is its grey value, or R * 65536 + G * 256 + B in a colour image.
    """

    path: Path
    background: int
    """The code that is no object."""
    objects: tuple[int, ...]
    """The codes that are. A code that is neither is no object, as in the official code of FBMS-59."""

    def read(self) -> NDArray[np.bool_]:
        """Read the objects' union; see :class:`Annotation`.

        Raises:
            UserError: As there, or not one pixel has any of the codes.

        """
        label = _decoded(self.path, _content(self.path), decode_labels).astype(np.int64)
        codes = label if label.ndim == 2 else label[:, :, 2] * 65536 + label[:, :, 1] * 256 + label[:, :, 0]
        mask = np.asarray(np.isin(codes, self.objects), np.bool_)
        if not mask.any() and not (codes == self.background).any():
            known = ', '.join(str(code) for code in (self.background, *self.objects))
            raise UserError(f'{self.path} has none of the codes of its definition file: {known}')
        return mask


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def masks_by_name(images: Sequence[Path], folder: Path) -> list[Path | None]:
    """Return the mask of each frame: the file of the same name, whatever its suffix; None where there is none.

    Masks of no frame are passed over.

    Raises:
        UserError: There are masks, but not one is a frame's, or two are masks of the same frame.

    """
    masks: dict[str, Path] = {}
    for mask in list_images(folder):
        other = masks.setdefault(mask.stem, mask)
        if other != mask:
            raise UserError(f'{folder}: {other.name} and {mask.name} are masks of one frame; remove one of them')
    found = [masks.get(image.stem) for image in images]
    if masks and not any(found):
        frames = _some([image.stem for image in images])
        raise UserError(
            f'{folder}: no mask fits a frame; the frames are called {frames}, the masks {_some(list(masks))}: '
            'give each mask the name of its frame'
        )
    return found


def folder_annotations(images: Sequence[Path], masks: Path) -> tuple[Annotation | None, ...]:
    """Return the annotation of each frame of a clip, None where it has none.

    Args:
        images: The frames.
        masks: Folder of masks, each called as its frame but for the suffix; black is background.

    Raises:
        UserError: There is no such folder, or no mask of a frame in it.

    """
    if not masks.is_dir() or not list_images(masks):
        reason = 'there is no image in this folder' if masks.is_dir() else 'there is no such folder'
        raise UserError(f'{masks}: {reason}; give the folder of the masks, each called as its frame')
    return tuple(MaskFiles((mask,)) if mask else None for mask in masks_by_name(images, masks))


def clip_annotations(clips: Mapping[str, Sequence[Path]], masks: Path) -> dict[str, tuple[Annotation | None, ...]]:
    """Return the annotations of clips by name, as :func:`folder_annotations` does for each.

    Args:
        clips: The frames of each clip.
        masks: Folder of a folder for each clip, called as the clip; a clip without one has no annotations. Of one clip
            alone also the folder of the masks themselves.

    Raises:
        UserError: As there, or no clip has a folder.

    """
    folders = {name: masks / name for name in clips if (masks / name).is_dir()}
    if not folders and len(clips) == 1:
        folders = dict.fromkeys(clips, masks)
    if not folders:
        there = sorted(entry.name for entry in masks.iterdir()) if masks.is_dir() else []
        holds = f'it holds {_some(there)}' if there else 'there is nothing'
        raise UserError(f'{masks}: no folder is called as a clip ({_some(list(clips))}); {holds}')
    return {
        name: folder_annotations(images, folders[name]) if name in folders else (None,) * len(images)
        for name, images in clips.items()
    }
