"""A video file as a source of frames, read by OpenCV's FFmpeg."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from moving_object_detector.common.errors import UserError
from moving_object_detector.datasets.frames import DEFAULT_FPS, Frame, FrameSource, frame_stamp

# A container without a rate reports 0, NaN or its time base (90000).
_HIGHEST_FPS = 1000.0


class VideoSource(FrameSource):
    """Frames of a video file; frame k is at k / fps seconds."""

    def __init__(self, path: Path, *, fps: float | None = None) -> None:
        """Open the file and decode its first frame.

        Args:
            path: The video.
            fps: Frames per second in place of the file's.

        Raises:
            UserError: The file cannot be opened or holds no frame that can be decoded.

        """
        self.name = str(path)
        with self._open() as capture:
            stated = float(capture.get(cv2.CAP_PROP_FPS))
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            found, first = capture.read()
        if not found:
            raise UserError(f'{path}: the video holds no frame that can be decoded')
        sensible = math.isfinite(stated) and 0 < stated <= _HIGHEST_FPS
        self.fps = fps or (stated if sensible else DEFAULT_FPS)
        self.frame_count = count if count > 0 else None
        self.size = (first.shape[0], first.shape[1])

    @contextmanager
    def _open(self) -> Iterator[cv2.VideoCapture]:
        # The FFmpeg backend alone: the others print a page of errors about any file it refuses.
        capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG)
        try:
            if not capture.isOpened():
                raise UserError(
                    f'{self.name}: cannot be opened as a video; it is not one, it is cut short, or its codec is '
                    f'not known here. Try converting it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4'
                )
            yield capture
        finally:
            capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a file that ends before its stated count is warned about."""
        index = 0
        with self._open() as capture:
            while True:
                found, image = capture.read()
                if not found:
                    break
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(rgb, frame_stamp(index, self.fps), f'{index:06d}')
                index += 1
        if self.frame_count is not None and index < 0.9 * self.frame_count:
            logging.getLogger(__name__).warning(
                '%s: only %d of the %d frames it states could be decoded; the file is damaged or cut short',
                self.name,
                index,
                self.frame_count,
            )
