"""A bag as a clip to evaluate, with the masks of another of its topics as truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.annotation import Annotation
from moving_object_detector.datasets.bag import BagSource, BagTopic
from moving_object_detector.datasets.frames import SECOND
from moving_object_detector.datasets.mask_messages import decode_mask, is_jpeg
from moving_object_detector.evaluation.clips import EvaluationClip
from moving_object_detector.evaluation.packed_mask import PackedMask

_SHOWN = 3
"""Stamps that a message shows of each topic."""


def read_masks(topic: BagTopic) -> tuple[dict[int, PackedMask], list[str]]:
    """Read all masks of a topic.

    Returns:
        The masks by stamp in nanoseconds, and sentences about what is wrong with them.

    """
    masks: dict[int, PackedMask] = {}
    problems = []
    broken: list[str] = []
    count = jpegs = 0
    try:
        for message, stamp in topic.messages():
            count += 1
            jpegs += is_jpeg(message)
            try:
                masks[stamp] = PackedMask.of(decode_mask(message))
            except ImageError as error:
                broken.append(f'message {count - 1}: {error}')
    except UserError as error:
        problems.append(f'the masks after the first {count} are lost: {error}')
    if broken:
        problems.append(f'{len(broken)} of {count} masks on {topic.topic} do not decode; {broken[0]}')
    repeated = count - len(broken) - len(masks)
    if repeated:
        problems.append(f'{repeated} of {count} masks on {topic.topic} repeat a stamp; the last one of each is taken')
    if jpegs:
        problems.append(f'masks on {topic.topic} are JPEG, which blurs outlines; publish them as PNG or mono8')
    return masks, problems


def _read_stamps(topic: BagTopic) -> tuple[list[int], list[str]]:
    """Return the stamps of the images that can be read, and sentences about what is wrong with them."""
    stamps: list[int] = []
    problems = []
    try:
        stamps.extend(stamp for _, stamp in topic.messages())
    except UserError as error:
        problems.append(f'only the first {len(stamps)} images can be read: {error}')
    steps = [after - before for before, after in pairwise(stamps)]
    back = [index for index, step in enumerate(steps, 1) if step < 0]
    if back:
        problems.append(
            f'the stamps of {topic.topic} go back {_times(len(back))}, first at image {back[0]}; '
            'the detector starts anew there'
        )
    repeated = sum(step == 0 for step in steps)
    if repeated:
        problems.append(
            f'{repeated} of {len(stamps)} images on {topic.topic} have the stamp of the one before; the detector takes '
            'them for repetitions, so they are not scored'
        )
    return stamps, problems


def _times(count: int) -> str:
    return 'once' if count == 1 else f'{count} times'


def _first(stamps: Sequence[int]) -> str:
    shown = ', '.join(f'{stamp // SECOND}.{stamp % SECOND:09d}' for stamp in sorted(stamps)[:_SHOWN])
    return f'{shown}{", ..." if len(stamps) > _SHOWN else ""} s'


def _match(
    masks: dict[int, PackedMask], stamps: Sequence[int], truth: BagTopic, images: BagTopic
) -> tuple[list[Annotation | None], list[str]]:
    """Return the mask of each image, None where it has none or repeats the one before, and what is wrong."""
    repeats = [False, *(before == after for before, after in pairwise(stamps))]
    found: list[Annotation | None] = [
        None if repeat else masks.get(stamp) for stamp, repeat in zip(stamps, repeats, strict=True)
    ]
    strays = masks.keys() - set(stamps)
    if strays and len(strays) == len(masks):
        raise UserError(
            f'{truth.path}: no mask on {truth.topic} has the stamp of an image on {images.topic}; images are at '
            f'{_first(stamps)}, masks at {_first(list(masks))}; publish each mask with the header of its image'
        )
    if strays:
        sentence = f'{len(strays)} of {len(masks)} masks on {truth.topic} have a stamp that no image has'
        return found, [f'{sentence}, the first at {_first([min(strays)])}']
    return found, []


def _annotation(found: Sequence[Annotation | None], index: int, _: int) -> Annotation | None:
    return found[index] if index < len(found) else None


def bag_clip(path: Path, topic: str | None, mask_topic: str | None) -> EvaluationClip:
    """Open a bag and look through it once: all stamps and all masks, no image but the first.

    Args:
        path: rosbag2 folder, ``.mcap``, ``.db3`` or ROS 1 ``.bag``.
        topic: Images, raw or compressed; None or empty where there is one image topic besides ``mask_topic``.
        mask_topic: Masks, raw or compressed, in which any value but zero is object; each belongs to the image with
            the same stamp to the nanosecond. None or empty: the bag has no truth.

    Returns:
        The clip; what is wrong with stamps, with masks or with the end of the bag is among its problems.

    Raises:
        UserError: There is no such bag, it cannot be opened, a topic is not there or empty, the first image does not
            decode, or no mask fits any image.

    """
    path = path.expanduser()
    if not path.exists():
        raise UserError(f'{path}: no such file or folder')
    truth = BagTopic(path, topic=mask_topic) if mask_topic else None
    images = BagTopic(path, topic=topic or None, besides=mask_topic)
    # Tells at once of a topic that is empty or cannot be decoded.
    BagSource(path, topic=images.topic)
    stamps, problems = _read_stamps(images)
    found: list[Annotation | None] = []
    if truth is not None:
        masks, doubts = read_masks(truth)
        if not masks:
            raise UserError(f'{path}: {"; ".join(doubts) or f"no message on {truth.topic}"}')
        found, strays = _match(masks, stamps, truth, images)
        problems += [*doubts, *strays]
    return EvaluationClip(
        name=path.name if path.is_dir() else path.stem,
        frame_count=len(stamps),
        open=partial(BagSource, path, topic=images.topic),
        truth=partial(_annotation, found),
        problems=tuple(problems),
    )
