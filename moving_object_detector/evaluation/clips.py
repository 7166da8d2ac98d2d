"""What is evaluated: footage, with the truth where there is any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moving_object_detector.datasets.annotation import Annotation
from moving_object_detector.datasets.frames import FrameSource


@dataclass(frozen=True)
class EvaluationClip:
    """One clip of an evaluation."""

    name: str
    """Unique in the run, and fit for a file's name."""
    frame_count: int
    """As far as is known before reading; a video's is what its container claims."""
    open: Callable[[], FrameSource]
    """Opens the footage from its start.

    Its iterator can be asked for the next frame after it has raised an ImageError: that frame is lost, not the clip.
    """
    truth: Callable[[int, int], Annotation | None]
    """The annotation of the frame with this number (from 0) and stamp (nanoseconds)."""
    still: bool = False
    """Whether it is known that nothing moves on its own, whatever ``truth`` says."""
    problems: tuple[str, ...] = ()
    """Sentences about what is wrong with it, known before any frame is read."""
