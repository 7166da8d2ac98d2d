"""One call that opens a folder of frames, a video or a bag."""

from __future__ import annotations

import math
from pathlib import Path

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.bag import BagSource, is_bag
from moving_object_detector.datasets.folder import IMAGE_SUFFIXES, FolderSource
from moving_object_detector.datasets.frames import FrameSource
from moving_object_detector.datasets.video import VideoSource
from moving_object_detector.media.pixels import AUTOMATIC, Levels


def open_source(
    path: str | Path, *, topic: str | None = None, fps: float | None = None, levels: Levels = AUTOMATIC
) -> FrameSource:
    """Open whatever ``path`` is.

    Args:
        path: A folder of image files, a video file, a rosbag2 folder, a single ``.mcap`` or
            ``.db3`` file, or a ROS 1 ``.bag``; a bag's file may be compressed (``.mcap.zstd``).
        topic: Image topic of a bag; not needed when the bag has exactly one.
        fps: Frames per second in place of the source's own timing. Folders have none and run at
            24 unless this is given; a bag then is stamped evenly from its first stamp.
        levels: Black and white of 16-bit images, see :class:`SampleScale`; by default the first image says it.

    Returns:
        The source; nothing but its first frame has been decoded.

    Raises:
        UserError: There is no such path, it is of no known kind, it holds no image, or the topic
            is not an image topic of the bag.

    """
    path = Path(path).expanduser()
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f'{fps} frames per second: give a rate above 0')
    if not path.exists():
        raise UserError(f'{path}: no such file or folder')
    if is_bag(path):
        return BagSource(path, topic=topic, fps=fps, levels=levels)
    if topic is not None:
        raise UserError(f'{path}: a topic ({topic}) was given, but this is not a bag; leave the topic out')
    if path.is_dir():
        return FolderSource(path, fps=fps, levels=levels)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f'{path}: a single image; give the folder that holds the frames')
    return VideoSource(path, fps=fps)
