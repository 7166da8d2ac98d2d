"""Reads videos by OpenCV's FFmpeg, and writes MP4 files that browsers play by ffmpeg."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Final

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import make_folder
from moving_object_detector.media.frames import (
    DEFAULT_FPS,
    LATEST,
    SECOND,
    Frame,
    FrameSource,
    check_size,
    frame_stamp,
    rate_of,
    resize_image,
)

_HIGHEST_FPS: Final = 1000.0
"""A container without a rate reports 0, NaN or its time base (90000)."""
_RATE_FRAMES: Final = 9
"""Number of first frames from which the rate is measured, where the container states only an average."""
_RATE_ERROR: Final = 0.06
"""Relative error of a rate measured in whole milliseconds, as in Matroska."""

# Read only the file itself (a playlist could name addresses), and keep decoders from printing a line per frame.
os.environ.setdefault('OPENCV_FFMPEG_CAPTURE_OPTIONS', 'protocol_whitelist;file')
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


class VideoSource(FrameSource):
    """Frames of a video file with its own times, the first at 0, or with frame k at k / ``fps`` seconds.

    Decodes the first frames at once. Raises UserError if the file cannot be opened, no frame can be decoded, or frames
    are too large or too small.
    """

    def __init__(self, path: Path, *, fps: float | None = None) -> None:
        self.name = str(path)
        self._forced_fps = fps
        with self._open() as capture:
            stated = float(capture.get(cv2.CAP_PROP_FPS))
            claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            found, first = capture.read()
            times = [_time(capture)]
            while len(times) < _RATE_FRAMES and capture.grab():
                times.append(_time(capture))
        if not found:
            raise UserError(f'{path}: the video holds no frame that can be decoded')
        measured = rate_of(times)
        sensible = 0 < stated <= _HIGHEST_FPS
        if not sensible or (measured and abs(measured / stated - 1) >= _RATE_ERROR):
            stated = measured or DEFAULT_FPS
        self.fps = fps or stated
        self.frame_count = claimed if claimed > 0 else None
        self.size = (first.shape[0], first.shape[1])

    @contextmanager
    def _open(self) -> Iterator[cv2.VideoCapture]:
        with ExitStack() as stack:
            # Absolute, or FFmpeg takes a name before a colon for a protocol.
            name = os.path.abspath(self.name)  # noqa: PTH100 (resolve would follow links, whose names have the suffix)
            try:
                name.encode()
            except UnicodeEncodeError:
                # OpenCV crashes on a name that is not UTF-8.
                file = stack.enter_context(Path(self.name).open('rb'))
                name = f'/proc/self/fd/{file.fileno()}'
            # Only the FFmpeg backend: the others print many errors about any file that it refuses.
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
            stack.callback(capture.release)
            if not capture.isOpened():
                raise UserError(
                    f'{self.name}: cannot be opened as a video; it is not one, it is cut short, or its codec is '
                    f'not supported. Try converting it: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4'
                )
            height, width = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
            check_size(height, width, name=f'{self.name}: ')
            yield capture

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; logs a warning if the file ends well before its stated frame count."""
        stamp = start = 0
        with self._open() as capture:
            for index in count():
                found, image = capture.read()
                if not found:
                    break
                time = _time(capture)
                start = time if index == 0 else start
                if self._forced_fps is not None:
                    stamp = frame_stamp(index, self._forced_fps)
                elif index:
                    # A container without times gives all frames 0 or the same time.
                    stamp = time - start if time - start > stamp else stamp + round(SECOND / self.fps)
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(rgb, stamp, f'{index:06d}')
        if self.frame_count is not None and index < 0.9 * self.frame_count:
            logging.getLogger(__name__).warning(
                '%s: only %d of the %d frames stated in the file could be decoded; it is damaged or cut short',
                self.name, index, self.frame_count,
            )  # fmt: skip


def _time(capture: cv2.VideoCapture) -> int:
    """Return the time of the last frame read, nanoseconds; 0 if the container's makes no sense."""
    nanoseconds = capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6
    return round(nanoseconds) if abs(nanoseconds) < LATEST else 0  # 0 for NaN too


# Constant rate factor 20: no visible loss, about 1 MB for three seconds of 854x480.
_X264 = ('-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-crf', '20', '-preset', 'veryfast', '-movflags', '+faststart')


class VideoWriter(AbstractContextManager['VideoWriter']):
    """Writes an MP4 (H.264, yuv420p), which is complete once the context ends, even by an error or Ctrl-C.

    The first frame fixes the size; an odd side is padded by one pixel, a later frame of another size is resized. The
    file is created with the first frame. Without ``fps`` the rate is measured from the stamps of the first frames,
    which are held back until then. Raises UserError if the path cannot be used or ffmpeg is missing.
    """

    def __init__(self, path: str | Path, fps: float | None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != '.mp4':
            raise UserError(f'{self.path}: give a file name that ends in .mp4')
        try:
            self._ffmpeg = str(imageio_ffmpeg.get_ffmpeg_exe())
        except RuntimeError as error:
            raise UserError(f'{self.path}: there is no ffmpeg to write it with ({error})') from error
        make_folder(self.path.parent)
        self.fps = fps or DEFAULT_FPS
        self.frame_count = 0
        self._waiting: list[tuple[NDArray[np.uint8], int]] | None = None if fps else []
        self._encoder: subprocess.Popen[bytes] | None = None

    def _open(self, height: int, width: int) -> subprocess.Popen[bytes]:
        try:
            self.path.open('wb').close()
        except OSError as error:
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error
        rate = Fraction(self.fps).limit_denominator(100_000)
        source = ('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{width}x{height}', '-r', str(rate), '-i', '-')
        # The protocol is named, or ffmpeg takes a name before a colon in the path for one. In its own session, so that
        # Ctrl-C does not end the encoder before the program completes the file.
        command = [self._ffmpeg, '-y', '-v', 'error', *source, *_X264, f'file:{self.path}']
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def write(self, image: NDArray[np.uint8], stamp: int = 0) -> None:
        """Append (H, W, 3) uint8 RGB; ``stamp`` (nanoseconds) is ignored if the rate is given. Raises UserError."""
        if self._waiting is None:
            self._encode(image)
            return
        self._waiting.append((image, stamp))
        if len(self._waiting) == _RATE_FRAMES:
            self._start()

    def _start(self) -> None:
        """Measure the rate of the waiting frames, and write them."""
        waiting, self._waiting = self._waiting or (), None
        if waiting:
            self.fps = rate_of(stamp for _, stamp in waiting) or DEFAULT_FPS
        for image, _ in waiting:
            self._encode(image)

    def _encode(self, image: NDArray[np.uint8]) -> None:
        if self._encoder is None:
            self._size = height, width = image.shape[0], image.shape[1]
            self._encoder = self._open(height + height % 2, width + width % 2)
        height, width = self._size
        frame = resize_image(image, self._size)
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise UserError(f'{self.path}: the video encoder ended early; is the disk full?') from error
        self.frame_count += 1

    def __exit__(self, *_: object) -> None:
        """Complete the file; raises UserError if the encoder failed."""
        try:
            self._start()
        finally:
            if self._encoder is not None:
                with suppress(BrokenPipeError):  # it ended early; its status is checked below
                    self._encoder.communicate()
                if self._encoder.wait() != 0:
                    raise UserError(f'{self.path}: the video encoder failed with status {self._encoder.returncode}')
