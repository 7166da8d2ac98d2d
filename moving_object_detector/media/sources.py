"""Whatever holds frames, opened by one call: a folder of image files, a video, a bag."""

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
"""Bytes: above what the largest image takes with 16 bits and no compression."""


def read_image(path: Path, scale: SampleScale | None = None) -> NDArray[np.uint8]:
    """Read an image file as (H, W, 3) uint8 RGB; an orientation is applied, transparency dropped.

    JPEG, PNG, TIFF, WebP, BMP or PNM. ``scale`` is the stream's, for samples of 16 bits; None: the image's own range.
    Raises ImageError where the file cannot be read, is damaged, or the image is too large or too small.
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
    """Return the image files of a folder in natural order; other files and hidden ones are passed over."""
    visible = (entry for entry in path.iterdir() if not entry.name.startswith('.'))
    files = (entry for entry in visible if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    return sorted(files, key=lambda file: natural_key(file.name))


class ImageFiles(FrameSource):
    """Image files in a given order; frame k is at k / fps seconds. UserError without one, ImageError if all fail."""

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
        read_image(self.files[0])  # says what is wrong with it

    def __iter__(self) -> Iterator[Frame]:
        """Return the files in order; sizes may differ from frame to frame."""
        scale = SampleScale()

        def frame(numbered: tuple[int, Path]) -> Frame:
            index, file = numbered
            return Frame(read_image(file, scale), frame_stamp(index, self.fps), file.name)

        # Not a generator, which ends with the first error: after a file that cannot be read comes the next one.
        return map(frame, enumerate(self.files))


def open_source(path: str | Path, *, topic: str | None = None, fps: float | None = None) -> FrameSource:
    """Open a folder of image files, a video, a rosbag2 folder, a ``.mcap`` or ``.db3`` file, or a ROS 1 ``.bag``.

    Nothing but the first frame has been decoded. ``topic`` is the image topic of a bag that has several. ``fps`` takes
    the place of the source's own timing, of which folders have none and run at 24; a bag then is stamped evenly from
    its first stamp. Raises UserError where there is no such path or topic, it is of no known kind, or holds no image.
    """
    path = Path(path).expanduser()
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f'{fps} frames per second: give a rate above 0')
    if not (path.is_file() or path.is_dir()):
        # A pipe or a device would be read without end.
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
    """Open one of the inputs as the arguments say."""
    return open_source(path, topic=arguments.bag_topic, fps=arguments.fps)
