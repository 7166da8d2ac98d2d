"""DAVIS 2016 (Perazzi et al., CVPR 2016) in its published layout."""

from __future__ import annotations

from pathlib import Path

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.annotation import Annotation, MaskFiles
from moving_object_detector.datasets.sequence import Sequence

RESOLUTION = '480p'


def read_davis(root: Path, split: str) -> list[Sequence]:
    """List the sequences of a split.

    Args:
        root: Folder with ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: ``train``, ``val`` or ``trainval``.

    Raises:
        UserError: The list of the split is not there or empty, or a line of it is not two paths.

    """
    listing = root / 'ImageSets' / RESOLUTION / f'{split}.txt'
    if not listing.is_file():
        raise UserError(f'{listing} is missing; give the DAVIS 2016 folder that holds JPEGImages and ImageSets as root')
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
    return [
        Sequence(name, tuple(image for image, _ in frames), tuple(annotation for _, annotation in frames))
        for name, frames in pairs.items()
    ]
