"""Turns clips into bags, videos and contact sheets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import write_atomically
from moving_object_detector.datasets.layouts import read_mask
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.codecs import encode_jpeg, encode_png
from moving_object_detector.media.frames import SECOND, Frame, FrameSource, prefetch, ros_stamp_offset
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.pictures import draw_sheet, select_frames
from moving_object_detector.media.sources import ImageFiles, list_images, source_of
from moving_object_detector.media.video import VideoWriter

_GAP: Final = 10 * SECOND
"""Between two inputs: a cut that nobody takes for a pause."""


def write_video(arguments: argparse.Namespace) -> int:
    """Write the video."""
    source = source_of(arguments, arguments.input)
    with VideoWriter(arguments.output, source.fps) as video, prefetch(source) as frames:
        for frame in tqdm(frames, total=source.frame_count, unit='frame', disable=None):
            video.write(frame.image)
    print(f'{video.path}: {video.frame_count} frames at {source.fps:g} frames/s')
    return 0


def write_sheet(arguments: argparse.Namespace) -> int:
    """Write the picture."""
    if arguments.output.suffix.lower() != '.png':
        raise UserError(f'{arguments.output}: give a file name that ends in .png')
    images = select_frames(source_of(arguments, arguments.input), arguments.frames)
    write_atomically(arguments.output, encode_png(draw_sheet(images, arguments.columns, arguments.width)).tobytes())
    print(f'{arguments.output}: {len(images)} frames of {arguments.input}')
    return 0


def _masks_of(source: FrameSource, folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by the names of frames, without suffix."""
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
    sources: Sequence[FrameSource], masks: Sequence[dict[str, Path]]
) -> Iterator[tuple[Frame, int, Path | None]]:
    """Yield the frames, their stamps, which rise from source to source, and their masks."""
    last: int | None = None
    for source, named in zip(sources, masks, strict=True):
        offset: int | None = None
        for frame in source:
            if offset is None:
                offset = ros_stamp_offset(frame.stamp) if last is None else last + _GAP - frame.stamp
            last = frame.stamp + offset
            yield frame, last, named.get(Path(frame.name).stem)


def _read_mask_of(frame: Frame, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a frame's mask, 255 on objects."""
    mask = read_mask(path).astype(np.uint8) * np.uint8(255)
    height, width = mask.shape
    if height != width and frame.image.shape[:2] == (width, height):
        # Frames follow the orientation in their files, masks have none.
        raise UserError(f'{path}: this mask is {width}x{height}, but its frame {height}x{width}; turn one of them')
    return mask


def write_bag(arguments: argparse.Namespace) -> int:
    """Write the bag."""
    sources = [source_of(arguments, path) for path in arguments.inputs]
    masks: list[dict[str, Path]] = [{} for _ in sources]
    if arguments.masks:
        masks = [_masks_of(source, Path(folder)) for source, folder in zip(sources, arguments.masks, strict=True)]
    counts = [source.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    compressed, frame_id = arguments.compressed or arguments.png, arguments.frame_id
    topics = (arguments.topic, arguments.mask_topic or '/truth')
    images, truth = (f'/{topic.strip("/")}{"/compressed" if compressed else ""}' for topic in topics)
    written = mask_count = 0
    with (
        BagWriter(arguments.output, storage=arguments.storage, overwrite=arguments.overwrite) as bag,
        prefetch(_one_after_another(sources, masks)) as frames,
    ):
        for frame, stamp, path in tqdm(frames, total=total, unit='frame', disable=None):
            if arguments.compressed:
                bag.write_compressed(images, stamp, encode_jpeg(frame.image), frame_id, kind='jpeg')
            elif arguments.png:
                bag.write_compressed(images, stamp, encode_png(frame.image), frame_id, kind='png')
            else:
                bag.write_image(images, stamp, encode_image(frame.image, 'bgr8'), frame_id)
            written += 1
            if path is None:
                continue
            mask = _read_mask_of(frame, path)
            if compressed:
                # A JPEG would blur outlines.
                bag.write_compressed(truth, stamp, encode_png(mask), frame_id, kind='png')
            else:
                bag.write_image(truth, stamp, encode_image(mask, 'mono8'), frame_id)
            mask_count += 1
    print(f'{bag.path}: {written} frames' + (f', {mask_count} masks' if arguments.masks else ''))
    return 0
