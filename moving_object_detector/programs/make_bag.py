"""Turn folders of frames, videos or bags, one after another, into a rosbag2, without ROS."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moving_object_detector.common.program import positive_float, run_program
from moving_object_detector.media.arguments import TOPIC, add_source_arguments, source_of

if TYPE_CHECKING:
    from moving_object_detector.media.bags import BagWriter
    from moving_object_detector.media.frames import Frame, FrameSource


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='make_bag', description=__doc__)
    add_source_arguments(parser, several=True)
    parser.add_argument('output', metavar='OUTPUT_DIR', help='folder of the bag to write')
    parser.add_argument('--topic', default=TOPIC, help='topic to write (default: %(default)s)')
    parser.add_argument('--frame-id', default='camera', help="frame id of the headers (default: '%(default)s')")
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--compressed', action='store_true', help='write JPEG on TOPIC/compressed instead')
    form.add_argument('--png', action='store_true', help='write PNG on TOPIC/compressed instead: nothing is lost')
    parser.add_argument(
        '--masks',
        metavar='DIR',
        action='append',
        default=[],
        help='folder of masks named as the frames (of a video or a bag: 000000.png, ...), non-zero is object; '
        'repeatable, one for each INPUT in their order',
    )
    parser.add_argument('--mask-topic', help='topic of the masks (default: /truth)')
    parser.add_argument(
        '--gap',
        type=positive_float,
        metavar='SECONDS',
        help='between the last frame of an INPUT and the first of the next (default: 10)',
    )
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap', help='default: %(default)s')
    parser.add_argument('--overwrite', action='store_true', help='replace the bag if it exists')
    arguments = parser.parse_args(argv)
    if arguments.masks and len(arguments.masks) != len(arguments.inputs):
        parser.error(f'{len(arguments.inputs)} inputs, but --masks was given {len(arguments.masks)} times')
    if arguments.mask_topic and not arguments.masks:
        parser.error('--mask-topic has no effect without --masks; leave it out')
    if arguments.gap and len(arguments.inputs) == 1:
        parser.error('--gap has no effect with a single INPUT; leave it out')
    arguments.mask_topic, arguments.gap = arguments.mask_topic or '/truth', arguments.gap or 10.0
    return arguments


def _masks_of(source: FrameSource, folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by the names of frames, without suffix."""
    from moving_object_detector.common.errors import UserError
    from moving_object_detector.media.sources import ImageFiles, list_images

    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; --masks takes a folder of masks')
    masks = {file.stem: file for file in list_images(folder)}
    # The frames of other sources are known by number, and how many there are only at their end.
    frames = {file.stem for file in source.files} if isinstance(source, ImageFiles) else set(masks)
    strays = sorted(masks.keys() - frames)
    if not masks or len(strays) == len(masks):
        what = f'such as {strays[0]}' if strays else 'none'
        raise UserError(f'{folder}: no mask is named as a frame of {source.name}; masks here: {what}')
    if strays:
        sys.stderr.write(f'{folder}: {len(strays)} masks are named as no frame, such as {strays[0]}\n')
    return {name: path for name, path in masks.items() if name in frames}


def _one_after_another(
    sources: Sequence[FrameSource], masks: Sequence[dict[str, Path]], gap: int
) -> Iterator[tuple[Frame, int, Path | None]]:
    """Yield the frames, their stamps, which rise from source to source, and their masks; ``gap`` in nanoseconds."""
    from moving_object_detector.media.frames import ros_stamp_offset

    last: int | None = None
    for source, named in zip(sources, masks, strict=True):
        offset: int | None = None
        for frame in source:
            if offset is None:
                offset = ros_stamp_offset(frame.stamp) if last is None else last + gap - frame.stamp
            last = frame.stamp + offset
            yield frame, last, named.get(Path(frame.name).stem)


class _Topics:
    """Writes frames and masks in the form that was asked for."""

    def __init__(self, bag: BagWriter, arguments: argparse.Namespace) -> None:
        self._bag = bag
        self._frame_id = str(arguments.frame_id)
        self._kind = 'jpeg' if arguments.compressed else 'png' if arguments.png else ''
        suffix = '/compressed' if self._kind else ''
        self._images = '/' + arguments.topic.strip('/') + suffix
        self._truth = '/' + arguments.mask_topic.strip('/') + suffix
        self.frames = self.masks = 0

    def write_frame(self, frame: Frame, stamp: int) -> None:
        """Append a frame."""
        from moving_object_detector.media.codecs import encode_jpeg, encode_png
        from moving_object_detector.media.messages import encode_image

        if self._kind:
            data = encode_png(frame.image) if self._kind == 'png' else encode_jpeg(frame.image)
            self._bag.write_compressed(self._images, stamp, data, self._frame_id, kind=self._kind)
        else:
            self._bag.write_image(self._images, stamp, encode_image(frame.image, 'bgr8'), self._frame_id)
        self.frames += 1

    def write_mask(self, path: Path, frame: Frame, stamp: int) -> None:
        """Append a mask, 255 on objects; compressed it is a PNG in any case, since a JPEG blurs outlines."""
        import numpy as np

        from moving_object_detector.common.errors import UserError
        from moving_object_detector.datasets.annotations import MaskFiles
        from moving_object_detector.media.codecs import encode_png
        from moving_object_detector.media.messages import encode_image

        mask = MaskFiles((path,)).read().astype(np.uint8) * np.uint8(255)
        height, width = mask.shape
        if height != width and frame.image.shape[:2] == (width, height):
            # Frames follow the orientation in their files, masks have none.
            raise UserError(f'{path}: this mask is {width}x{height}, but its frame {height}x{width}; turn one of them')
        if self._kind:
            self._bag.write_compressed(self._truth, stamp, encode_png(mask), self._frame_id, kind='png')
        else:
            self._bag.write_image(self._truth, stamp, encode_image(mask, 'mono8'), self._frame_id)
        self.masks += 1


def _make_bag(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from moving_object_detector.media.bags import BagWriter
    from moving_object_detector.media.frames import SECOND, prefetch

    sources = [source_of(arguments, path) for path in arguments.inputs]
    masks: list[dict[str, Path]] = [{} for _ in sources]
    if arguments.masks:
        masks = [_masks_of(source, Path(folder)) for source, folder in zip(sources, arguments.masks, strict=True)]
    counts = [source.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    with (
        BagWriter(arguments.output, storage=arguments.storage, overwrite=arguments.overwrite) as bag,
        prefetch(_one_after_another(sources, masks, round(arguments.gap * SECOND))) as frames,
    ):
        topics = _Topics(bag, arguments)
        for frame, stamp, mask in tqdm(frames, total=total, unit='frame', disable=None):
            topics.write_frame(frame, stamp)
            if mask is not None:
                topics.write_mask(mask, frame, stamp)
    print(f'{bag.path}: {topics.frames} frames' + (f', {topics.masks} masks' if arguments.masks else ''))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    arguments = _parse(argv)
    return run_program(lambda: _make_bag(arguments))


if __name__ == '__main__':
    sys.exit(main())
