"""What ``render`` writes of a scene or a flight."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from tqdm import tqdm

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import make_folder, write_atomically
from moving_object_detector.media.bags import BagWriter
from moving_object_detector.media.messages import encode_image
from moving_object_detector.media.pictures import write_flow
from moving_object_detector.synthetic.flight import Flight, FlightOptions, flight
from moving_object_detector.synthetic.flight_path import MOTIONS, Matrix
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.synthetic.scene import Scene

START_STAMP: Final = 1_700_000_000_000_000_000
"""Of the first frame, nanoseconds."""


def render(arguments: argparse.Namespace) -> int:
    """Render as the command line asks."""
    sheets = arguments.scene == 'sheets'
    if sheets and (arguments.bag or arguments.motion or arguments.parallax is not None):
        raise UserError('--bag, --motion and --parallax need --scene flight: sheets have no camera in space')
    if arguments.objects and (arguments.still or not sheets):
        raise UserError('--objects is for --scene sheets, and has no effect with --still; leave it out')
    least, most = (0, 0) if arguments.still else arguments.objects or (1, 2)
    if arguments.seed < 0 or not 0 <= least <= most or min(arguments.height, arguments.width) < 32:
        raise UserError('--seed takes 0 or more, --objects LEAST not above MOST, --height and --width 32 or more')
    size = (arguments.height, arguments.width)
    if sheets:
        scene = clip_scene(arguments.seed, SceneOptions(size, (least, most)))
        write_clip(scene, arguments.out, arguments.frames, flow=arguments.flow)
        return 0
    parallax = 1.0 if arguments.parallax is None else arguments.parallax
    if not 0 <= parallax <= 10:
        raise UserError(f'--parallax is {parallax}, but takes 0 to 10')
    if arguments.motion and arguments.motion not in MOTIONS:
        raise UserError(f'--motion is {foreign(arguments.motion)}, but takes {", ".join(MOTIONS)}')
    # A shorter clip is the beginning of this one.
    frames = max(arguments.frames, FlightOptions.frames)
    flown = flight(arguments.seed, FlightOptions(size, arguments.still, arguments.motion or None, parallax, frames))
    write_clip(flown, arguments.out, arguments.frames, flow=arguments.flow)
    _write_camera(flown, parallax, arguments)
    if arguments.bag:
        _write_bag(flown, arguments)
    return 0


def write_clip(scene: Scene | Flight, out: Path, frames: int, *, flow: bool = False) -> None:
    """Write the first frames of a scene and their truth into a folder each; raises UserError."""
    truth = ('instances', 'depth') if isinstance(scene, Flight) else ()
    folders = {name: out / name for name in ('frames', 'masks', *truth, *(('flow', 'occluded') if flow else ()))}
    for folder in folders.values():
        make_folder(folder)
    for time in tqdm(range(frames), unit='frame', desc='render'):
        pictures = {'frames': cv2.cvtColor(scene.image(time), cv2.COLOR_RGB2BGR)}
        pictures['masks'] = scene.mask(time).astype(np.uint8) * 255
        if isinstance(scene, Flight):
            view = scene.frame(time)
            pictures |= {'instances': view.instances, 'depth': view.depth}
        if flow:
            # What is behind the camera then has no place in the image: unknown, as the format has it.
            write_flow(folders['flow'] / f'{time:05d}.flo', np.nan_to_num(scene.flow(time, time + 1), nan=1e10))
            pictures['occluded'] = scene.occluded(time, time + 1).astype(np.uint8) * 255
        for name, picture in pictures.items():
            file = folders[name] / f'{time:05d}{".tiff" if name == "depth" else ".png"}'
            if not cv2.imwrite(str(file), picture):
                raise UserError(f'{file}: cannot be written')


def _stamp(flown: Flight, index: int) -> int:
    return START_STAMP + round(index * 1e9 / flown.fps)


def _write_camera(flown: Flight, parallax: float, arguments: argparse.Namespace) -> None:
    lines = ['# stamp tx ty tz qx qy qz qw: the optical frame (x right, y down, z forward) in odom (z up), metres']
    for index in range(arguments.frames):
        pose = flown.pose(index)
        numbers = (*pose[:3, 3], *quaternion(pose[:3, :3]))
        seconds, nanoseconds = divmod(_stamp(flown, index), 10**9)
        lines.append(f'{seconds}.{nanoseconds:09d} ' + ' '.join(f'{number:.9f}' for number in numbers))
    write_atomically(arguments.out / 'trajectory.txt', ('\n'.join(lines) + '\n').encode())
    camera = {
        'width': flown.size[1],
        'height': flown.size[0],
        'intrinsics': flown.intrinsics.tolist(),
        'fps': flown.fps,
        'motion': flown.motion,
        'seed': arguments.seed,
        'parallax': parallax,
        'still': arguments.still,
    }
    write_atomically(arguments.out / 'camera.json', json.dumps(camera, indent=2).encode())


def quaternion(rotation: Matrix) -> tuple[float, float, float, float]:
    """Return x, y, z, w of a rotation matrix (3, 3)."""
    # Of the symmetric matrix's eigenvectors the one of the largest value (Bar-Itzhack 2000): no case is near zero.
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        ((a - e - i, 0, 0, 0), (b + d, e - a - i, 0, 0), (c + g, f + h, i - a - e, 0), (h - f, c - g, d - b, a + e + i))
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    sign = 1.0 if w >= 0 else -1.0
    return float(sign * x), float(sign * y), float(sign * z), float(sign * w)


def _write_bag(flown: Flight, arguments: argparse.Namespace) -> None:
    frame = 'camera_optical_frame'
    with BagWriter(arguments.out / 'bag', overwrite=True) as bag:
        for index in tqdm(range(arguments.frames), unit='frame', desc='bag'):
            when, view, pose = _stamp(flown, index), flown.frame(index), flown.pose(index)
            bag.write_transform(when, 'odom', frame, pose[:3, 3].tolist(), quaternion(pose[:3, :3]))
            bag.write_camera_info('/camera/camera_info', when, flown.size, flown.intrinsics.ravel(), frame)
            bag.write_image('/camera/image_raw', when, encode_image(view.image, 'rgb8'), frame)
            bag.write_image('/truth', when, encode_image(view.mask.astype(np.uint8) * np.uint8(255), 'mono8'), frame)
