"""Turn a folder of frames or an image topic of a bag into an MP4 that browsers play."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moving_object_detector.common.program import run_program
from moving_object_detector.media.arguments import add_source_arguments, source_of


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='make_video', description=__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUT.mp4', help='video to write; an older one is replaced')
    return parser.parse_args(argv)


def _make_video(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from moving_object_detector.media.frames import prefetch
    from moving_object_detector.media.video import VideoWriter

    source = source_of(arguments, arguments.input)
    with VideoWriter(arguments.output, source.fps) as video, prefetch(source) as frames:
        for frame in tqdm(frames, total=source.frame_count, unit='frame', disable=None):
            video.write(frame.image)
    print(f'{video.path}: {video.frame_count} frames at {source.fps:g} frames/s')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_program(lambda: _make_video(arguments))


if __name__ == '__main__':
    sys.exit(main())
