"""What data sets and folders of masks say of frames: which pixels move. For scoring alone, never for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.media.codecs import decode_labels, decode_objects
from moving_object_detector.media.sources import list_images


class Annotation(Protocol):
    """The annotation of one frame, on disk."""

    def read(self) -> NDArray[np.bool_]:
        """Read it, bool (H, W), True on any object; raises UserError where a file is missing, broken or misfit."""


def _decoded(path: Path, decode: Callable[[bytes], NDArray[Any]]) -> NDArray[Any]:
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except ImageError as error:
        raise UserError(f'{path} cannot be read as an image: {error}') from error


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a mask (H, W) in which black is background and all else is object, whatever its depth or channels.

    In a JPEG half is the limit, see :func:`decode_objects`. The first colour of a palette must be black.

    Raises:
        UserError: The file is missing or not an image, or the first colour of its palette is not black.

    """

    def decode(content: bytes) -> NDArray[np.bool_]:
        # Byte 25 of a PNG is 3 where it has a palette: length, PLTE, colours (RFC 2083, 4.1.1 and 4.1.2).
        palette = content.startswith(b'\x89PNG\r\n\x1a\n') and content[25:26] == b'\x03'
        start = content.find(b'PLTE') + 4
        if palette and any(content[start : start + 3]):
            raise UserError(
                f'{path}: the first colour of its palette is not black, so there is no telling which is the '
                'background; store it in grey, with 0 for the background'
            )
        return decode_objects(content)

    return _decoded(path, decode)


@dataclass(frozen=True)
class MaskFiles:
    """The union of one or more masks of one size; see :func:`read_mask`."""

    paths: tuple[Path, ...]

    def read(self) -> NDArray[np.bool_]:
        """Read the union; see :class:`Annotation`."""
        masks = [read_mask(path) for path in self.paths]
        for path, mask in zip(self.paths, masks, strict=True):
            if mask.shape != masks[0].shape:
                raise UserError(f'{path} is {mask.shape[1]}x{mask.shape[0]}, but {self.paths[0]} is not')
        return reduce(np.logical_or, masks)


@dataclass(frozen=True)
class RegionFile:
    """Regions told apart by codes: a pixel's grey value, or R * 65536 + G * 256 + B in a colour image."""

    path: Path
    background: int
    """The code that is no object."""
    objects: tuple[int, ...]
    """The codes that are. A code that is neither is no object, as in the official code of FBMS-59."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file alone, as :class:`MaskFiles` has them."""
        return (self.path,)

    def read(self) -> NDArray[np.bool_]:
        """Read the objects' union; see :class:`Annotation`. Raises UserError also where no pixel has a known code."""
        label = _decoded(self.path, decode_labels).astype(np.int64)
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

    Masks of no frame are passed over. Raises UserError where no mask is a frame's, or two are masks of the same frame.
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
    """Return the annotation of each frame of a clip from a folder of masks called as the frames, None where none is.

    Raises UserError where there is no such folder, or no mask of a frame in it.
    """
    if not masks.is_dir() or not list_images(masks):
        reason = 'there is no image in this folder' if masks.is_dir() else 'there is no such folder'
        raise UserError(f'{masks}: {reason}; give the folder of the masks, each called as its frame')
    return tuple(MaskFiles((mask,)) if mask else None for mask in masks_by_name(images, masks))


def clip_annotations(clips: Mapping[str, Sequence[Path]], masks: Path) -> dict[str, tuple[Annotation | None, ...]]:
    """Return the annotations of clips by name, given the frames of each, as :func:`folder_annotations` does.

    ``masks`` holds a folder for each clip, called as the clip; a clip without one has no annotations. Of one clip alone
    it may hold the masks themselves. Raises UserError as there, or where no clip has a folder.
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
