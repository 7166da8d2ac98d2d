"""Turn a folder of frames or a video into a rosbag2, without ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from moving_object_detector.tools.arguments import add_source_arguments
from moving_object_detector.tools.program import run_program


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='make_bag', description=__doc__)
    add_source_arguments(parser)
    parser.add_argument('output', metavar='OUTPUT_DIR', help='folder of the bag to write')
    parser.add_argument('--topic', default='/camera/image_raw', help='topic to write (default: %(default)s)')
    parser.add_argument('--frame-id', default='camera', help="frame id of the headers (default: '%(default)s')")
    parser.add_argument('--compressed', action='store_true', help='write JPEG on TOPIC/compressed instead')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    return parser.parse_args(argv)


def _make_bag(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from moving_object_detector.datasets.frames import ros_stamp_offset
    from moving_object_detector.datasets.messages import encode_image, encode_jpeg
    from moving_object_detector.datasets.prefetch import Prefetch
    from moving_object_detector.datasets.sources import open_source
    from moving_object_detector.tools.bags import BagWriter

    source = open_source(arguments.input, topic=arguments.bag_topic, fps=arguments.fps)
    topic = '/' + arguments.topic.strip('/')
    offset: int | None = None
    with (
        BagWriter(arguments.output, storage=arguments.storage, overwrite=arguments.overwrite) as bag,
        Prefetch(source) as frames,
    ):
        for frame in tqdm(frames, total=source.frame_count, unit='frame', disable=None):
            offset = ros_stamp_offset(frame.stamp) if offset is None else offset
            stamp = frame.stamp + offset
            if arguments.compressed:
                bag.write_compressed(f'{topic}/compressed', stamp, encode_jpeg(frame.image), arguments.frame_id)
            else:
                bag.write_image(topic, stamp, encode_image(frame.image, 'bgr8'), arguments.frame_id)
    print(f'{bag.path}: {bag.message_count} frames')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_program(lambda: _make_bag(arguments))


if __name__ == '__main__':
    sys.exit(main())
