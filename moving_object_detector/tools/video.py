"""Writing a video that browsers play."""

from __future__ import annotations

import logging
import math
import shutil
import subprocess
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError

# x264's constant rate factor 20: no loss that is seen, and about 1 MB for three seconds of 854x480.
_X264 = ('-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-crf', '20', '-preset', 'veryfast', '-movflags', '+faststart')


def find_ffmpeg() -> str | None:
    """Return the path of an ffmpeg program: imageio-ffmpeg's, else the system's, else ``None``."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped,import-not-found,unused-ignore]

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return shutil.which('ffmpeg')


class VideoWriter(AbstractContextManager['VideoWriter']):
    """An MP4 (H.264, yuv420p) that is complete once the context is left, also by an error or Ctrl-C.

    The first frame fixes the size; an odd side is padded by one pixel, a later frame of another
    size is resized. Without ffmpeg the codec is OpenCV's MPEG-4, which few browsers play. Nothing
    is written before the first frame.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        """Check the path; the file is created with the first frame.

        Args:
            path: File to write, ending in ``.mp4``; missing parent folders are made.
            fps: Frames per second, above zero.

        Raises:
            UserError: The path or the rate cannot be used.

        """
        self.path = Path(path)
        if self.path.suffix.lower() != '.mp4':
            raise UserError(f'{self.path}: give a file name that ends in .mp4')
        if not (math.isfinite(fps) and fps > 0):
            raise UserError(f'{fps} frames per second: give a rate above 0')
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'{self.path.parent}: cannot be made: {error.strerror}') from error
        self.fps = fps
        self.frame_count = 0
        self._size: tuple[int, int] | None = None
        self._encoder: subprocess.Popen[bytes] | None = None
        self._fallback: cv2.VideoWriter | None = None

    def _open(self, height: int, width: int) -> None:
        try:
            self.path.open('wb').close()
        except OSError as error:
            raise UserError(f'{self.path}: cannot be written: {error.strerror}') from error
        ffmpeg = find_ffmpeg()
        if ffmpeg is not None:
            rate = Fraction(self.fps).limit_denominator(100_000)
            source = ('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', f'{width}x{height}', '-r', str(rate), '-i', '-')
            # A session of its own: Ctrl-C must reach the program and not cut the encoder short.
            self._encoder = subprocess.Popen(
                # The protocol is named, or ffmpeg takes what stands before a colon in the path for one.
                [ffmpeg, '-y', '-v', 'error', *source, *_X264, f'file:{self.path}'],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            return
        logging.getLogger(__name__).warning(
            '%s: no ffmpeg here, so the video is MPEG-4, which few browsers play; install imageio-ffmpeg', self.path
        )
        self._fallback = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, (width, height))
        if not self._fallback.isOpened():
            raise UserError(f'{self.path}: OpenCV cannot write MP4 here; install imageio-ffmpeg')

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append one frame.

        Args:
            image: (H, W, 3) uint8 RGB.

        Raises:
            UserError: The file cannot be written.

        """
        if self._size is None:
            self._size = (image.shape[0], image.shape[1])
            self._open(image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2)
        height, width = self._size
        frame: Any = image
        if image.shape[:2] != self._size:
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        if height % 2 or width % 2:
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._encoder is not None and self._encoder.stdin is not None:
            try:
                self._encoder.stdin.write(np.ascontiguousarray(frame).data)
            except OSError as error:
                raise UserError(f'{self.path}: the video encoder ended early; is the disk full?') from error
        elif self._fallback is not None:
            self._fallback.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.frame_count += 1

    def close(self) -> None:
        """Complete the file; further calls do nothing.

        Raises:
            UserError: The encoder failed.

        """
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            with suppress(BrokenPipeError):  # it ended early; its status is looked at below
                encoder.communicate()
            if encoder.wait() != 0:
                raise UserError(f'{self.path}: the video encoder failed with status {encoder.returncode}')
        fallback, self._fallback = self._fallback, None
        if fallback is not None:
            fallback.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file."""
        self.close()
