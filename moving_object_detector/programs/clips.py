"""Converts clips to bags, videos and contact sheets; renders flights."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import check_apart, make_folder, write_atomically
from moving_object_detector.datasets.layouts import read_mask
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.codecs import encode_jpeg, encode_png
from moving_object_detector.media.frames import SECOND, Frame, FrameSource, prefetch, ros_stamp_offset
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.pictures import draw_sheet, select_frames, write_flow
from moving_object_detector.media.sources import ImageFiles, list_images, source_of
from moving_object_detector.media.video import VideoWriter
from moving_object_detector.synthetic.flight import Flight, FlightOptions, flight
from moving_object_detector.synthetic.flight_path import MOTIONS, Matrix

_GAP: Final = 10 * SECOND
"""Time between two inputs: long enough to count as a cut."""


def write_video(arguments: argparse.Namespace) -> int:
    """Run the program ``make_video``."""
    check_apart(arguments.output, [arguments.input])
    source = source_of(arguments, arguments.input)
    with VideoWriter(arguments.output, source.fps) as video, prefetch(source) as frames:
        for frame in tqdm(frames, total=source.frame_count, unit='frame', disable=None):
            video.write(frame.image)
    print(f'{video.path}: {video.frame_count} frames at {source.fps:g} frames/s')
    return 0


def write_sheet(arguments: argparse.Namespace) -> int:
    """Run the program ``contact_sheet``."""
    if arguments.output.suffix.lower() != '.png':
        raise UserError(f'{arguments.output}: give a file name that ends in .png')
    images = select_frames(source_of(arguments, arguments.input), arguments.frames)
    write_atomically(arguments.output, encode_png(draw_sheet(images, arguments.columns, arguments.width)).tobytes())
    print(f'{arguments.output}: {len(images)} frames of {arguments.input}')
    return 0


def _masks_of(source: FrameSource, folder: Path) -> dict[str, Path]:
    """Return the masks in a folder by frame name without suffix."""
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; --masks takes a folder of masks')
    masks = {file.stem: file for file in list_images(folder)}
    # Frames of other sources have numbers, and their count is known only at the end.
    frames = {file.stem for file in source.files} if isinstance(source, ImageFiles) else set(masks)
    strays = sorted(masks.keys() - frames)
    if len(strays) == len(masks):
        raise UserError(
            f'{folder}: no mask has the name of a frame of {source.name}; masks here: {", ".join(strays[:3]) or "none"}'
        )
    if strays:
        sys.stderr.write(f'{folder}: {len(strays)} masks match no frame and are ignored, such as {strays[0]}\n')
    return masks


def _concatenated(
    sources: Sequence[FrameSource], masks: Sequence[dict[str, Path]]
) -> Iterator[tuple[Frame, int, Path | None]]:
    """Yield each frame with its stamp, increasing from source to source, and its mask file, if any."""
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
        # The Exif orientation is applied to frames, but not to masks.
        raise UserError(f'{path}: this mask is {width}x{height}, but its frame {height}x{width}; rotate one of them')
    return mask


def write_bag(arguments: argparse.Namespace) -> int:
    """Run the program ``make_bag``."""
    check_apart(arguments.output, arguments.inputs)
    sources = [source_of(arguments, path) for path in arguments.inputs]
    masks: list[dict[str, Path]] = [{} for _ in sources]
    if arguments.masks:
        masks = [_masks_of(source, Path(folder)) for source, folder in zip(sources, arguments.masks, strict=True)]
    counts = [source.frame_count for source in sources]
    total = None if None in counts else sum(count or 0 for count in counts)
    compressed, frame_id = arguments.compressed or arguments.png, arguments.frame_id
    topics = (arguments.topic, arguments.mask_topic or '/truth')
    images, truth = (f'/{topic.strip("/")}{"/compressed" if compressed else ""}' for topic in topics)
    mask_count = 0
    with (
        BagWriter(arguments.output, storage=arguments.storage, overwrite=arguments.overwrite) as bag,
        prefetch(_concatenated(sources, masks)) as frames,
    ):
        for frame, stamp, path in tqdm(frames, total=total, unit='frame', disable=None):
            written = [(images, frame.image, 'jpeg' if arguments.compressed else 'png')]
            if path is not None:
                # JPEG would blur the outlines.
                written.append((truth, _read_mask_of(frame, path), 'png'))
                mask_count += 1
            for topic, pixels, kind in written:
                if compressed:
                    data = encode_jpeg(pixels) if kind == 'jpeg' else encode_png(pixels)
                    bag.write_compressed(topic, stamp, data, frame_id, kind=kind)
                else:
                    encoding = 'bgr8' if pixels.ndim == 3 else 'mono8'
                    bag.write_image(topic, stamp, encode_image(pixels, encoding), frame_id)
    if mask_count < (given := sum(map(len, masks))):
        names = 'of a video or a bag they are called 000000.png, 000001.png, ...'
        sys.stderr.write(f'{given - mask_count} of {given} masks match no frame and are left out; {names}\n')
    print(f'{bag.path}: {bag.message_count - mask_count} frames' + (f', {mask_count} masks' if arguments.masks else ''))
    return 0


# Flights -------------------------------------------------------------------------------------------------------------

START_STAMP: Final = 1_700_000_000_000_000_000
"""Stamp of the first frame, nanoseconds."""


def _flight(arguments: argparse.Namespace) -> Flight:
    if arguments.seed < 0 or min(arguments.height, arguments.width) < 32:
        raise UserError('--seed takes 0 or more, --height and --width 32 or more')
    if not 0 <= arguments.parallax <= 10:
        raise UserError(f'--parallax is {arguments.parallax}, but takes 0 to 10')
    if arguments.motion and arguments.motion not in MOTIONS:
        raise UserError(f'--motion is {foreign(arguments.motion)}, but takes {", ".join(MOTIONS)}')
    # A shorter clip is the beginning of the default one.
    frames, size = max(arguments.frames, FlightOptions.frames), (arguments.height, arguments.width)
    options = FlightOptions(size, arguments.still, arguments.motion or None, arguments.parallax, frames)
    return flight(arguments.seed, options)


def write_flight(arguments: argparse.Namespace) -> int:
    """Run the program ``render``: one folder for each kind of ground truth; raises UserError."""
    flown, optical = _flight(arguments), 'camera_optical_frame'
    kinds = ('frames', 'masks', 'instances', 'depth', 'flow', 'occluded')
    left = [
        file for name in kinds for file in (arguments.out / name).glob('[0-9]' * 5 + '.*')
        if int(file.stem) >= arguments.frames or (name in kinds[4:] and not arguments.flow)
    ]  # fmt: skip
    if left:
        raise UserError(
            f'{left[0]}: of an earlier flight, and would stay among the new files; give another folder, or remove the '
            'old flight first'
        )
    for name in ('frames', 'masks', 'instances', 'depth', *(('flow', 'occluded') if arguments.flow else ())):
        make_folder(arguments.out / name)
    lines = ['# stamp tx ty tz qx qy qz qw: the optical frame (x right, y down, z forward) in odom (z up), metres']
    with BagWriter(arguments.out / 'bag', overwrite=True) if arguments.bag else nullcontext() as bag:
        for time in tqdm(range(arguments.frames), unit='frame', desc='render'):
            view, pose, stamp = flown.frame(time), flown.pose(time), START_STAMP + round(time * 1e9 / flown.fps)
            place, turn = pose[:3, 3].tolist(), quaternion(pose[:3, :3])
            moment = f'{stamp // SECOND}.{stamp % SECOND:09d}'
            lines.append(' '.join((moment, *(f'{number:.9f}' for number in (*place, *turn)))))
            mask = view.mask.astype(np.uint8) * np.uint8(255)
            pictures = {'frames': cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR), 'masks': mask}
            pictures |= {'instances': view.instances, 'depth': view.depth}
            if arguments.flow:
                # Points behind the next camera have no flow: 1e10 is "unknown" in the .flo format.
                flow = np.nan_to_num(flown.flow(time, time + 1), nan=1e10)
                write_flow(arguments.out / 'flow' / f'{time:05d}.flo', flow)
                pictures['occluded'] = flown.occluded(time, time + 1).astype(np.uint8) * 255
            for name, picture in pictures.items():
                file = arguments.out / name / f'{time:05d}{".tiff" if name == "depth" else ".png"}'
                if not cv2.imwrite(str(file), picture):
                    raise UserError(f'{file}: cannot be written')
            if bag is not None:
                bag.write_transform(stamp, 'odom', optical, place, turn)
                bag.write_camera_info('/camera/camera_info', stamp, flown.size, flown.intrinsics.ravel(), optical)
                bag.write_image('/camera/image_raw', stamp, encode_image(view.image, 'rgb8'), optical)
                bag.write_image('/truth', stamp, encode_image(mask, 'mono8'), optical)
    write_atomically(arguments.out / 'trajectory.txt', ('\n'.join(lines) + '\n').encode())
    camera = {
        'width': flown.size[1],
        'height': flown.size[0],
        'intrinsics': flown.intrinsics.tolist(),
        'fps': flown.fps,
        'motion': flown.motion,
        'seed': arguments.seed,
        'parallax': arguments.parallax,
        'still': arguments.still,
    }
    write_atomically(arguments.out / 'camera.json', json.dumps(camera, indent=2).encode())
    return 0


def quaternion(rotation: Matrix) -> tuple[float, float, float, float]:
    """Return the quaternion x, y, z, w of a rotation matrix (3, 3)."""
    # The eigenvector of the largest eigenvalue (Bar-Itzhack 2000), which needs no special cases.
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        ((a - e - i, 0, 0, 0), (b + d, e - a - i, 0, 0), (c + g, f + h, i - a - e, 0), (h - f, c - g, d - b, a + e + i))
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    sign = 1.0 if w >= 0 else -1.0
    return float(sign * x), float(sign * y), float(sign * z), float(sign * w)
