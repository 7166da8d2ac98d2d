"""Opens any source of frames by one call: a folder of image files, a video or a bag."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.common.files import read_file
from moving_object_detector.media.bags import BagSource, is_bag
from moving_object_detector.media.codecs import decode_pixels
from moving_object_detector.media.frames import DEFAULT_FPS, Frame, FrameSource, SampleScale, frame_stamp, natural_key
from moving_object_detector.media.video import VideoSource

IMAGE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'})

_LARGEST_FILE: Final = 2**28
"""Bytes; more than the largest image takes with 16 bits and no compression."""


def read_image(path: Path, scale: SampleScale | None = None) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB; applies the Exif orientation, drops transparency.

    JPEG, PNG, TIFF, WebP, BMP or PNM. ``scale`` is the stream's scale for 16-bit samples; None: the image's own range.
    Raises ImageError if the file cannot be read or is damaged, or the image is too large or too small.
    """
    try:
        data = read_file(path, _LARGEST_FILE)
    except OSError as error:
        raise ImageError(f'{path}: cannot be read: {error.strerror}') from error
    try:
        return (scale or SampleScale())(decode_pixels(data))
    except ImageError as error:
        raise ImageError(f'{path}: {error}; repair or remove the file') from error


def list_images(path: Path) -> list[Path]:
    """Return the image files of a folder in natural order, without hidden ones."""
    visible = (entry for entry in path.iterdir() if not entry.name.startswith('.'))
    files = (entry for entry in visible if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    return sorted(files, key=lambda file: natural_key(file.name))


class ImageFiles(FrameSource):
    """Image files in a given order; frame k is at k / fps seconds. UserError without files, ImageError if all fail."""

    def __init__(self, name: str, files: Sequence[Path], *, fps: float | None = None) -> None:
        if not files:
            raise UserError(f'{name}: no frame there; is the data complete?')
        self.files = tuple(files)
        self.name = name
        self.fps = fps or DEFAULT_FPS
        self.frame_count = len(self.files)
        for file in self.files:
            with suppress(ImageError):
                height, width = read_image(file).shape[:2]
                self.size = (height, width)
                return
        read_image(self.files[0])  # raises its error

    def __iter__(self) -> Iterator[Frame]:
        """Iterate over the files in order; frames may differ in size."""
        scale = SampleScale()

        def frame(numbered: tuple[int, Path]) -> Frame:
            index, file = numbered
            return Frame(read_image(file, scale), frame_stamp(index, self.fps), file.name)

        # Not a generator, which would end with the first error: iteration continues after an unreadable file.
        return map(frame, enumerate(self.files))


def open_source(path: str | Path, *, topic: str | None = None, fps: float | None = None) -> FrameSource:
    """Open a folder of image files, a video, a rosbag2 folder, a ``.mcap`` or ``.db3`` file, or a ROS 1 ``.bag``.

    Decodes only the first frame. ``topic`` selects the image topic of a bag that has several. ``fps`` replaces the
    source's own timing (folders have none: 24); a bag is then stamped evenly from its first stamp. Raises UserError if
    path or topic does not exist, the kind is unknown, or there is no image.
    """
    path = Path(path).expanduser()
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f'{fps} frames per second: give a rate above 0')
    if not (path.is_file() or path.is_dir()):
        # Reading a pipe or a device might never end.
        raise UserError(f'{path}: {"neither a file nor a folder" if path.exists() else "no such file or folder"}')
    if is_bag(path):
        return BagSource(path, topic=topic, fps=fps)
    if topic is not None:
        raise UserError(f'{path}: a topic ({topic}) was given, but this is not a bag; leave the topic out')
    if path.is_dir():
        files = list_images(path)
        if not files:
            kinds = ' '.join(sorted(IMAGE_SUFFIXES))
            folders = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
            hint = f'; it has the folders {", ".join(folders[:8])}: give one of them' if folders else ''
            raise UserError(f'{path}: no image in this folder (looked for {kinds}){hint}')
        return ImageFiles(str(path), files, fps=fps)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f'{path}: a single image; give the folder that holds the frames')
    return VideoSource(path, fps=fps)


def source_of(arguments: argparse.Namespace, path: str) -> FrameSource:
    """Open an input of a program with its options ``--bag-topic`` and ``--fps``."""
    return open_source(path, topic=arguments.bag_topic, fps=arguments.fps)
