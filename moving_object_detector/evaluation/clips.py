"""The clips to evaluate, with their annotations: from data sets, folders, bags and rendered scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.collection import find_clips, unique_names
from moving_object_detector.datasets.layouts import (
    Annotation,
    ClipFiles,
    clip_annotations,
    read_davis,
    read_fbms,
    read_segtrack,
)
from moving_object_detector.detection.config import OdometryConfig
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.evaluation.options import EvaluateOptions
from moving_object_detector.media.bags import BagSource, BagTopic, bag_files, is_bag, messages_on
from moving_object_detector.media.codecs import decode_objects, encode_png
from moving_object_detector.media.frames import (
    DEFAULT_FPS,
    LATEST,
    SECOND,
    Frame,
    FrameSource,
    frame_stamp,
    natural_key,
)
from moving_object_detector.media.messages import decode_mask, is_jpeg
from moving_object_detector.synthetic.flight import Flight, FlightOptions, flight
from moving_object_detector.synthetic.flight_path import MOTIONS
from moving_object_detector.synthetic.random_scene import SceneOptions, clip_scene
from moving_object_detector.synthetic.scene import Scene


@dataclass(frozen=True)
class Clip:
    """One clip.

    ``name`` is unique and fit for a file; ``frame_count`` is nominal; ``annotations`` are those of the frames in order,
    None where missing; ``files`` are all of footage and truth; ``still`` declares that nothing moves on its own,
    whatever the annotations say; ``problems`` are those found before reading frames; ``groups`` are kinds of footage
    with scores of their own, such as ``{'motion': 'slow'}``; ``odometry`` reads known intrinsics and camera motion.
    """

    name: str
    frame_count: int
    open: Callable[[], FrameSource]
    annotations: Sequence[Annotation | None]
    path: Path = Path()
    files: tuple[Path, ...] = ()
    still: bool = False
    problems: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    odometry: Callable[[OdometryConfig], Odometry] | None = None


def fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of files, to detect changes; empty for no files."""
    states = []
    for file in files:
        status = file.stat() if file.exists() else None
        states.append(f'{file.name!a} {status and (status.st_size, status.st_mtime_ns)}')
    return sha256('\n'.join(states).encode()).hexdigest()[:16] if states else ''


# Bags ----------------------------------------------------------------------------------------------------------------


def read_masks(topic: BagTopic) -> tuple[dict[int, Annotation], list[str]]:
    """Return all masks of a topic by stamp in nanoseconds, and descriptions of problems with them."""
    masks: dict[int, Annotation] = {}
    problems = []
    broken: list[str] = []
    count = jpegs = 0
    try:
        for message, stamp in topic.messages():
            count += 1
            jpegs += is_jpeg(message)
            try:
                packed = encode_png(decode_mask(message).astype(np.uint8)).tobytes()
                masks[stamp] = partial(decode_objects, packed)
            except ImageError as error:
                broken.append(f'message {count - 1}: {error}')
    except UserError as error:
        problems.append(f'the masks after the first {count} cannot be read: {error}')
    if broken:
        problems.append(f'{len(broken)} of {count} masks on {topic.topic} do not decode; {broken[0]}')
    repeated = count - len(broken) - len(masks)
    if repeated:
        problems.append(f'{repeated} of {count} masks on {topic.topic} repeat a stamp; the last one of each is taken')
    if jpegs:
        problems.append(f'masks on {topic.topic} are JPEG, which blurs outlines; publish them as PNG or mono8')
    return masks, problems


def _first(stamps: Iterable[int]) -> str:
    shown = [f'{stamp // SECOND}.{stamp % SECOND:09d}' for stamp in sorted(stamps)]
    return f'{", ".join(shown[:3])}{", ..." if len(shown) > 3 else ""} s'


def _truth_of(truth: BagTopic, images: BagTopic, stamps: Sequence[int]) -> tuple[list[Annotation | None], list[str]]:
    """Return the mask of each image, None if it has none or repeats the previous stamp, and problems with them."""
    masks, problems = read_masks(truth)
    if not masks:
        raise UserError(f'{truth.path}: {"; ".join(problems) or f"no message on {truth.topic}"}')
    strays = masks.keys() - set(stamps)
    if len(strays) == len(masks):
        raise UserError(
            f'{truth.path}: no mask on {truth.topic} has the stamp of an image on {images.topic}; images are at '
            f'{_first(stamps)}, masks at {_first(masks)}; publish each mask with the header of its image'
        )
    if strays:
        sentence = f'{len(strays)} of {len(masks)} masks on {truth.topic} have a stamp that no image has'
        problems.append(f'{sentence}, the first at {_first([min(strays)])}')
    return [None if k and stamp == stamps[k - 1] else masks.get(stamp) for k, stamp in enumerate(stamps)], problems


def bag_clip(path: Path, topic: str = '', mask_topic: str = '', besides: Iterable[str] = ()) -> Clip:
    """Open a bag as a clip: reads all stamps and masks, but decodes only the first image.

    Topics are raw or compressed; ``topic`` may be empty if the bag has one image topic other than ``mask_topic`` and
    ``besides``. Non-zero mask values are object; a mask belongs to the image with exactly the same stamp. Raises
    UserError if the bag cannot be opened, a topic is missing or empty, the first image cannot be decoded, or no mask
    has an image.
    """
    truth = BagTopic(path, topic=mask_topic) if mask_topic else None
    # Fails early if the topic is empty or cannot be decoded.
    images = BagSource(path, topic=topic or None, besides=[name for name in (mask_topic, *besides) if name])
    stamps: list[int] = []
    problems = []
    try:
        stamps.extend(stamp for _, stamp in images.messages())
    except UserError as error:
        problems.append(f'only the first {len(stamps)} images can be read: {error}')
    annotations, doubts = _truth_of(truth, images, stamps) if truth is not None else ([], [])
    return Clip(
        name=path.name if path.is_dir() else path.stem,
        frame_count=len(stamps),
        open=partial(BagSource, path, topic=images.topic),
        annotations=annotations,
        path=path,
        files=tuple(bag_files(path)),
        problems=(*problems, *doubts),
        odometry=partial(_bag_odometry, path, images.topic),
    )


def _bag_odometry(path: Path, images: str, config: OdometryConfig) -> Odometry:
    """Read camera_info, odometry and transforms from a bag as the options name them."""
    odometry = Odometry(config, kept=LATEST)
    reads = [(odometry.see(images), 'sensor_msgs/msg/CameraInfo', odometry.add_camera_info)]
    reads.append((config.topic, 'nav_msgs/msg/Odometry', odometry.add_odometry))
    if odometry.wanted:
        reads.append(('/tf_static', 'tf2_msgs/msg/TFMessage', partial(odometry.add_transforms, static=True)))
        reads.append(('/tf', 'tf2_msgs/msg/TFMessage', odometry.add_transforms))
    for topic, kind, add in reads:
        # Of a damaged bag what lies before the damage, which the images report.
        with suppress(UserError):
            for message, _ in messages_on(path, topic, kind) if topic else ():
                add(message)
    return odometry


def _open_bags(options: EvaluateOptions, root: Path) -> Iterator[Callable[[], Clip]]:
    paths = [root]
    if root.is_dir() and not is_bag(root):
        entries = sorted(root.iterdir(), key=lambda entry: natural_key(entry.name))
        paths = [entry for entry in entries if is_bag(entry)]
    if not root.exists() or not paths:
        raise UserError(f'{root}: no bag here; give a rosbag2 folder, an .mcap, .db3 or .bag file, or a folder of such')
    besides = () if options.predictions else (options.predicted_topic,)
    topics = (options.bag_topic, options.mask_topic, besides)
    for path in paths:
        yield partial(bag_clip, path, *topics)


# Files ---------------------------------------------------------------------------------------------------------------


def _of_files(clip: ClipFiles, annotations: Sequence[Annotation | None], *, complete: bool = False) -> Clip:
    """Return the clip of files; with ``complete`` a frame without annotation is a problem."""
    alone = len(clip.files) == 1
    count = clip.source().frame_count or 0 if alone else len(clip.files)
    annotated = sum(annotation is not None for annotation in annotations)
    lacking = f'{count - annotated} of {count} frames have no annotation and are not scored; copy the data set again'
    truth = [path for annotation in annotations for path in getattr(annotation, 'paths', ())]
    return Clip(
        name=clip.name,
        frame_count=count,
        open=clip.source,
        annotations=annotations,
        path=clip.files[0] if alone else clip.files[0].parent if clip.files else Path(),
        files=(*clip.files, *truth),
        problems=(lacking,) if complete and annotated < count else (),
    )


def _open_folder(options: EvaluateOptions, root: Path) -> Iterator[Callable[[], Clip]]:
    # An explicit split of footage without splits must be an error, so it goes into the root.
    where = f'{root}@{options.split}' if options.split else str(root)
    clips = find_clips([where], 'val', options.bag_topic or None, options.fps or None)
    truth = {clip.name: clip.annotations for clip in clips}
    if options.masks:
        truth |= clip_annotations({clip.name: clip.files for clip in clips}, Path(options.masks).expanduser())
    for clip in clips:
        yield partial(_of_files, clip, truth[clip.name])


def _open_published(options: EvaluateOptions, root: Path) -> Iterator[Callable[[], Clip]]:
    if options.dataset == 'davis2016':
        clips = read_davis(root, options.split or 'val')
    elif options.dataset == 'segtrackv2':
        clips = read_segtrack(root)
    else:
        clips = read_fbms(root, options.split or 'test')
    for clip in clips:
        timed = replace(clip, source=partial(clip.source, fps=options.fps or None))
        # FBMS-59 annotates only a few frames.
        yield partial(_of_files, timed, clip.annotations, complete=options.dataset != 'fbms59')


# Rendered scenes -----------------------------------------------------------------------------------------------------

SCENE_SIZE: Final = (360, 640)
FIRST_SEED: Final = 100_000
"""First seed of rendered scenes, far from the seeds of training."""
SCENES_PER_STILL: Final = 3
FIRST_FLIGHT: Final = 200_000
"""First seed of flights; seeds in training are pairs of numbers and give other flights."""
_MOVING_FLIGHTS: Final = (
    120, 21, 22, 23, 24, 125, 26, 127, 28, 29, 130, 231, 32, 33, 234, 35, 36, 37, 238, 39,
)  # fmt: skip
"""Seeds relative to the first, each the first one tried with a mover of 0.4 % of the image in most frames."""
_PARALLAX: Final = (0.5, 1.0, 2.0)


class _SceneSource(FrameSource):
    """The frames of a scene, rendered at times 0, 1, 2 and so on."""

    def __init__(self, name: str, make: Callable[[], Scene | Flight], frame_count: int) -> None:
        scene = make()
        self.name, self.frame_count, self.size = name, frame_count, scene.size
        self.fps = scene.fps if isinstance(scene, Flight) else DEFAULT_FPS
        self._scene = scene

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frame_count or 0):
            yield Frame(self._scene.image(index), frame_stamp(index, self.fps), f'{index:05d}')


def _scene_clip(name: str, frames: int, make: Callable[[], Scene | Flight], **more: Any) -> Clip:
    def mask(time: int) -> NDArray[np.bool_]:
        return make().mask(time)

    masks = [partial(mask, time) for time in range(frames)]
    return Clip(name, frames, partial(_SceneSource, name, make, frames), masks, **more)


# Frames and truth of one clip are requested alternately, so one cached scene is enough.
_rendered = lru_cache(1)(clip_scene)
_flown = lru_cache(1)(flight)


def _open_rendered(options: EvaluateOptions, _: Path) -> Iterator[Callable[[], Clip]]:
    """Yield clips with one or two moving objects and, after every third, one in which only the camera moves."""
    for number in range(options.scenes):
        still = number // SCENES_PER_STILL
        kinds = [(f'moving-{number}', FIRST_SEED + number, (1, 2)), (f'still-{still}', FIRST_SEED - 1 - number, (0, 0))]
        for name, seed, objects in kinds[: 1 + ((number + 1) % SCENES_PER_STILL == 0)]:
            make = partial(_rendered, seed, SceneOptions(size=SCENE_SIZE, objects=objects))
            yield partial(_scene_clip, name, options.scene_frames, make)


def _flight_odometry(make: Callable[[], Flight], frames: int, config: OdometryConfig) -> Odometry:
    """Return the odometry of a flight: intrinsics and camera poses in the frame ``odom``, as in its bag."""
    odometry, flown = Odometry(config, kept=LATEST), make()
    if config.camera_info != 'none':
        odometry.set_camera(flown.size, flown.intrinsics)
    for index in range(frames if config.frame == 'odom' else 0):
        odometry.add_pose(frame_stamp(index, flown.fps), flown.pose(index))
    return odometry


def _open_flights(options: EvaluateOptions, _: Path) -> Iterator[Callable[[], Clip]]:
    """Yield the fixed set: twenty flights without and twenty with moving objects."""
    for kind, seeds in (('still', range(20)), ('moving', _MOVING_FLIGHTS)):
        for place, seed in enumerate(seeds):
            motion, parallax = MOTIONS[place % len(MOTIONS)], _PARALLAX[place % 3]
            groups = {'all': kind, f'{kind} motion': motion, f'{kind} parallax': f'{parallax:g}'}
            # A fixed length, whatever is scored: another length would give another flight.
            flown = FlightOptions(SCENE_SIZE, kind == 'still', motion, parallax, frames=40)
            make = partial(_flown, FIRST_FLIGHT + seed, flown)
            known = {'groups': groups, 'odometry': partial(_flight_odometry, make, options.scene_frames)}
            yield partial(_scene_clip, f'{kind}-{place:02d}-{motion}', options.scene_frames, make, **known)


_OPEN: Final = {'folder': _open_folder, 'bag': _open_bags, 'rendered': _open_rendered, 'flights': _open_flights}


def open_clips(options: EvaluateOptions) -> tuple[list[Clip], list[str]]:
    """Return the clips, and an error message for each recording that cannot be opened.

    Decodes no frames but the first of videos and bags. Raises UserError if layout, split, topic, sequence or masks are
    missing, or no recording can be opened.
    """
    clips: list[Clip] = []
    failed: list[UserError] = []
    for make in _OPEN.get(options.dataset, _open_published)(options, Path(options.root).expanduser()):
        try:
            clips.append(replace(make(), still=options.still))
        except UserError as error:  # noqa: PERF203 (each recording on its own)
            failed.append(error)
    if failed and not clips:
        raise failed[-1]
    # Recordings with different suffixes may have one name.
    names = unique_names([clip.name for clip in clips])
    clips = [replace(clip, name=name) for clip, name in zip(clips, names, strict=True)]
    by_name = {clip.name: clip for clip in clips}
    wanted = options.list_of('sequences')
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise UserError(f'no sequence {", ".join(missing)} in the footage; there are {", ".join(by_name)}')
    return [by_name[name] for name in wanted] or clips, list(map(str, failed))
