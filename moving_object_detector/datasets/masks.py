"""Masks beside frames, matched by name: the truth of footage that is no published data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotation import Annotation, MaskFiles
from moving_object_detector.datasets.folder import list_images


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def masks_by_name(images: Sequence[Path], folder: Path) -> list[Path | None]:
    """Return the mask of each frame: the file of the same name, whatever its suffix; None where there is none.

    Args:
        images: The frames.
        folder: Folder of the masks; those of no frame are passed over.

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
        UserError: There is no such folder, it holds no image, or none that is called as a frame.

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
