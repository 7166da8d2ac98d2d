"""A video file as a source of frames, read by OpenCV's FFmpeg."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.frames import DEFAULT_FPS, SECOND, Frame, FrameSource, frame_stamp, rate_of
from moving_object_detector.media.pixels import check_size

_HIGHEST_FPS: Final = 1000.0
"""A container without a rate reports 0, NaN or its time base (90000)."""
_LOOKED_AT: Final = 9
"""First frames whose times tell the rate where the container tells an average that no frame keeps."""
_ALIKE: Final = 0.06
"""By which a rate in whole milliseconds, as Matroska has it, misses the true one."""

# What is in the file is all that is read (a playlist would name addresses), and decoders write no line a frame.
os.environ.setdefault('OPENCV_FFMPEG_CAPTURE_OPTIONS', 'protocol_whitelist;file')
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


class VideoSource(FrameSource):
    """Frames of a video file at the times that it gives them, the first at 0."""

    def __init__(self, path: Path, *, fps: float | None = None) -> None:
        """Open the file and decode its first frames.

        Args:
            path: The video.
            fps: Frames per second in place of the file's times: frame k is at k / fps seconds.

        Raises:
            UserError: The file cannot be opened, holds no frame that can be decoded, or its frames are too large or
                too small.

        """
        self.name = str(path)
        self._forced_fps = fps
        with self._open() as capture:
            stated = float(capture.get(cv2.CAP_PROP_FPS))
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            found, first = capture.read()
            times = [_time(capture)]
            while len(times) < _LOOKED_AT and capture.grab():
                times.append(_time(capture))
        if not found:
            raise UserError(f'{path}: the video holds no frame that can be decoded')
        measured = rate_of(times)
        sensible = math.isfinite(stated) and 0 < stated <= _HIGHEST_FPS
        if measured and not (sensible and abs(measured / stated - 1) < _ALIKE):
            stated = measured
        self.fps = fps or (stated if sensible or measured else DEFAULT_FPS)
        self.frame_count = count if count > 0 else None
        self.size = (first.shape[0], first.shape[1])

    @contextmanager
    def _open(self) -> Iterator[cv2.VideoCapture]:
        with ExitStack() as stack:
            # Absolute, or FFmpeg takes what stands before a colon for a protocol.
            name = os.path.abspath(self.name)  # noqa: PTH100 (resolve would follow links, whose names have the suffix)
            try:
                name.encode()
            except UnicodeEncodeError:
                # OpenCV crashes on a name that is not UTF-8.
                file = stack.enter_context(Path(self.name).open('rb'))
                name = f'/proc/self/fd/{file.fileno()}'
            # The FFmpeg backend alone: the others print a page of errors about any file it refuses.
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
            stack.callback(capture.release)
            if not capture.isOpened():
                raise UserError(
                    f'{self.name}: cannot be opened as a video; it is not one, it is cut short, or its codec is '
                    f'not known here. Try converting it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4'
                )
            height, width = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
            try:
                check_size(height, width)
            except UserError as error:
                raise UserError(f'{self.name}: {error}') from error
            yield capture

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a file that ends before its stated count is warned about."""
        index = stamp = start = 0
        with self._open() as capture:
            while True:
                found, image = capture.read()
                if not found:
                    break
                time = _time(capture)
                start = time if index == 0 else start
                if self._forced_fps is not None:
                    stamp = frame_stamp(index, self._forced_fps)
                elif index:
                    # A container without times gives 0, or the same, to all.
                    stamp = time - start if time - start > stamp else stamp + round(SECOND / self.fps)
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(rgb, stamp, f'{index:06d}')
                index += 1
        if self.frame_count is not None and index < 0.9 * self.frame_count:
            logging.getLogger(__name__).warning(
                '%s: only %d of the %d frames it states could be decoded; the file is damaged or cut short',
                self.name,
                index,
                self.frame_count,
            )


def _time(capture: cv2.VideoCapture) -> int:
    """Return the time of the frame that was read last, nanoseconds."""
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
