"""A sequence of a published data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moving_object_detector.datasets.annotation import Annotation


@dataclass(frozen=True)
class Sequence:
    """Frames in order, and the annotation of each where there is one."""

    name: str
    images: tuple[Path, ...]
    annotations: tuple[Annotation | None, ...]
    """As many as images."""
