"""The methods to score, which turn the frames of a clip into masks: the detector, given masks, baselines."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import file_hash, generator_path
from moving_object_detector.common.options import options_of
from moving_object_detector.datasets.layouts import Annotation, MaskFiles
from moving_object_detector.detection.build import build_detector, choose_flow
from moving_object_detector.detection.config import ContinuityConfig, DetectorConfig, RefinementConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.evaluation.clips import Clip, read_masks
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.media.bags import BagTopic, bag_files, is_bag, messages_on
from moving_object_detector.media.frames import SECOND, Frame, ros_stamp_offset
from moving_object_detector.media.sources import list_images

REFINEMENT_METHODS: Final = next(o.choices for o in options_of(DetectorConfig) if o.name == 'refinement.method')
Numbered = Iterable[tuple[int, Frame]]
"""The frames of a clip, numbered from 0."""


@dataclass(frozen=True)
class Prediction:
    """A method's mask of one frame.

    ``index`` is the frame's number from 0; ``image`` is (H, W, 3) RGB; ``mask`` (H, W), 255 where something moves;
    ``latency`` in milliseconds is the recorded one, else the computing time.
    """

    index: int
    variant: str
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    latency: float | None = None


@dataclass
class Method(ABC):
    """A source of masks: the detector, masks made before, or a baseline.

    The last of ``variants`` is the scored one. ``identity`` is everything that affects the masks, ``details`` are other
    facts for the report, ``problems`` those of the current clip; ``seconds`` is how long given masks took to compute, 0
    if unknown, None if they are computed now.
    """

    variants: tuple[str, ...]
    identity: Mapping[str, Any]
    details: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)
    seconds: float | None = None

    def files(self, clip: Clip) -> tuple[Path, ...]:
        """Return the files, other than the footage, from which a clip's masks are made."""
        return ()

    @abstractmethod
    def masks(self, clip: Clip, frames: Numbered) -> Iterator[Prediction]:
        """Yield the masks of a clip as soon as they are known, without state from the clip before.

        Raises UserError if the clip cannot be evaluated.
        """


def parse_variant(name: str, config: RefinementConfig) -> tuple[Estimate, RefinementConfig]:
    """Parse ``ESTIMATE`` or ``ESTIMATE+METHOD`` into estimate and refinement; raises UserError for other names."""
    estimate, _, method = name.partition('+')
    if estimate not in get_args(Estimate) or (method or 'none') not in REFINEMENT_METHODS:
        raise UserError(
            f'{name} is no variant; give {" or ".join(get_args(Estimate))}, and for refinement +METHOD with one of '
            f'{", ".join(REFINEMENT_METHODS)}, such as refined+crf'
        )
    return estimate, replace(config, method=method or 'none')  # type: ignore[return-value]


class DetectorMethod(Method):
    """The node's detector; one pass over the frames gives all variants.

    Variants are named as for :func:`parse_variant`; by default both estimates and, last, the refined one with the
    configured refinement, as the node publishes it. Raises UserError if an option, a model file or a variant is wrong.
    """

    def __init__(self, config: DetectorConfig, variants: Iterable[str] = ()) -> None:
        method = config.refinement.method
        published = () if method == 'none' else (f'refined+{method}',)
        names = tuple(dict.fromkeys(variants)) or ('zero_lag', 'refined', *published)
        self._reading = {name: parse_variant(name, config.refinement) for name in names}
        flow = choose_flow(config.flow)
        self._detector = build_detector(replace(config, flow=flow))
        identity = {'configuration': asdict(config), 'model': file_hash(generator_path(config.model, flow.backend))}
        if flow.model:
            identity['flow_model'] = file_hash(Path(flow.model).expanduser())
        details = {'engine': self._detector.engine.name, 'flow': self._detector.flow.name}
        super().__init__(names, identity, details)

    def masks(self, clip: Clip, frames: Numbered) -> Iterator[Prediction]:
        """Yield the masks that each frame completes, and at the end those that waited for later frames."""
        detector, self.problems = self._detector, []
        detector.reset()
        odometry = detector.odometry = None if clip.odometry is None else clip.odometry(detector.config.odometry)
        for index, frame in frames:
            begin = time.perf_counter()
            outcome = detector.step(frame.image, frame.stamp, tag=index)
            yield from self._read(outcome.results, time.perf_counter() - begin)
        yield from self._read(detector.flush().results, None)
        if odometry is not None and (trouble := odometry.trouble):
            self.problems.append(f'the camera motion was not always known: {trouble}')

    def _read(self, results: Iterable[Result], computing: float | None) -> Iterator[Prediction]:
        for result in results:
            for variant, (estimate, refinement) in self._reading.items():
                if result.estimate != estimate:
                    continue
                begin = time.perf_counter()
                mask = result.refined_by(refinement).mask
                latency = None if computing is None else 1e3 * (computing + time.perf_counter() - begin)
                yield Prediction(result.tag, variant, result.image, mask, latency)  # type: ignore[arg-type]


class GivenMasks(Method):
    """Masks made before: PNG files in DAVIS layout, or a topic of a bag. A frame without a mask counts as missed.

    ``predictions`` is a folder with ``SEQUENCE/FRAME.png``, a bag, or a folder of bags named after the clips; None: the
    masks are in the clip's own bag.
    """

    def __init__(self, predictions: Path | None, topic: str = '') -> None:
        if predictions is not None and not predictions.exists():
            raise UserError(f'{predictions}: no such file or folder; --predictions takes the masks to score')
        if topic and predictions is not None and not any(map(is_bag, (predictions, *predictions.glob('*')))):
            raise UserError(f'--predicted-topic has no effect: {predictions} holds no bag; leave it out')
        where = {} if predictions is None else {'predictions': str(predictions)}
        super().__init__(('masks',), {**where, 'predicted_topic': topic}, {})
        self._predictions = predictions
        self._topic = topic

    def _place(self, clip: Clip) -> Path:
        """Return the bag or the folder with a clip's masks."""
        chosen = self._predictions or clip.path
        bags = (path for path in (chosen / clip.path.name, chosen) if path.exists() and is_bag(path))
        return next(bags, chosen / clip.name)

    def files(self, clip: Clip) -> tuple[Path, ...]:
        """Return the files of a clip's masks."""
        place = self._place(clip)
        return tuple(bag_files(place)) if is_bag(place) else tuple(list_images(place)) if place.is_dir() else ()

    def _bag_masks(self, bag: Path) -> tuple[str, dict[int, Annotation], list[float], float]:
        """Return a label for messages, the masks by stamp, and, if a node recorded them, latencies and mask period."""
        topic = BagTopic(bag, topic=self._topic or None)
        masks, self.problems = read_masks(topic)
        debug = f'{topic.topic.rpartition("/")[0]}/debug/pipeline_latency_ms'
        measured = list(messages_on(bag, debug, 'std_msgs/msg/Float64'))
        period = (measured[-1][1] - measured[0][1]) / SECOND / (len(measured) - 1) if len(measured) > 1 else 0.0
        return f'{topic.topic} of {bag}', masks, [float(message.data) for message, _ in measured], period

    def masks(self, clip: Clip, frames: Numbered) -> Iterator[Prediction]:
        """Yield the masks that belong to a frame; then report missing masks and those without a frame."""
        place, self.problems = self._place(clip), []
        by_name: dict[str, Annotation] = {}
        by_stamp: dict[int, Annotation] = {}
        latencies: list[float] = []
        where, period = str(place), 0.0
        if is_bag(place):
            where, by_stamp, latencies, period = self._bag_masks(place)
        else:
            by_name = {file.stem: MaskFiles((file,)) for file in self.files(clip)}
        total = found = offset = 0
        last: int | None = None
        for index, frame in frames:
            offset = ros_stamp_offset(frame.stamp) if last is None else offset
            repeats, last = frame.stamp == last, frame.stamp
            total += not repeats
            read = by_name.get(Path(frame.name).stem) or (None if repeats else by_stamp.get(frame.stamp + offset))
            if read is None:
                continue
            try:
                mask = read().astype(np.uint8) * np.uint8(255)
            except UserError as error:
                self.problems.append(f'a mask cannot be read and is left out: {error}')
                continue
            latency = latencies[found] if found < len(latencies) else None
            found += 1
            yield Prediction(index, 'masks', frame.image, mask, latency)
        self.seconds = found * period
        if total > found:
            self.problems.append(f'{total - found} of {total} frames have no mask in {where}: they count as missed')
        if (stored := len(by_name) + len(by_stamp)) > found:
            self.problems.append(f'{stored - found} of {stored} masks in {where} belong to no frame')


# Baselines: two classical methods, and two constant answers ----------------------------------------------------------

BASELINE_SIZE: Final = (256, 512)
GRID_STEP: Final = 8
INLIER: Final = 1.0
"""RANSAC inlier threshold, pixels of BASELINE_SIZE."""
HISTORY: Final = 500
VARIANCE_THRESHOLD: Final = 16.0
"""Squared Mahalanobis distance to the background; this and HISTORY, in frames, are the defaults of OpenCV's MOG2."""


Held = tuple[int, NDArray[np.uint8], NDArray[np.uint8]]
"""A frame's number, image (H, W, 3), and features or mask (H, W)."""


def residual_magnitude(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the residual of flow (H, W, 2) after a RANSAC homography fitted on a grid, (H, W), pixels."""
    height, width = flow.shape[:2]
    points = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    start = GRID_STEP // 2
    sources = points[start::GRID_STEP, start::GRID_STEP].reshape(-1, 2)
    targets = (points + flow)[start::GRID_STEP, start::GRID_STEP].reshape(-1, 2)
    homography: Any = cv2.findHomography(sources, targets, cv2.RANSAC, INLIER)[0]
    if homography is None:  # degenerate flow, all targets in one point
        homography = np.eye(3)
    camera = cv2.perspectiveTransform(points.reshape(-1, 1, 2), homography).reshape(points.shape) - points
    return np.asarray(np.linalg.norm(flow - camera, axis=2), np.float32)


def otsu(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 255 where values are above Otsu's threshold (1979), 0 elsewhere."""
    scale = 65535.0 / max(float(values.max()), 1e-6)
    levels = np.round(values * scale).astype(np.uint16)
    threshold, _ = cv2.threshold(levels, 0, 65535, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.where(levels > threshold, np.uint8(255), np.uint8(0))


def _homography(frames: Numbered) -> Iterator[Held]:
    """Threshold the residual of DIS flow to the next frame after a homography by Otsu's method.

    The last frame of a continuous stream (by the detector's rule) uses the previous frame instead; a stream of one
    frame gets no mask.
    """
    flow, continuity = DisFlow(BASELINE_SIZE, 'medium'), Continuity(round(ContinuityConfig.max_gap * SECOND))
    last: deque[Held] = deque(maxlen=2)

    def towards(source: Held, target: Held) -> Held:
        number, image, features = source
        field = flow.estimate([features], [target[2]], BASELINE_SIZE)[0].permute(1, 2, 0).numpy()
        mask = cv2.resize(otsu(residual_magnitude(field)), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return number, image, np.asarray(mask, np.uint8)

    for index, frame in frames:
        step = continuity.follow(frame.stamp, frame.image.shape)
        if step is Step.REPEATS:
            continue
        if step.starts_anew:
            if len(last) == 2:
                yield towards(*reversed(last))
            last.clear()
        last.append((index, frame.image, flow.features(frame.image)))
        if len(last) == 2:
            yield towards(*last)
    if len(last) == 2:
        yield towards(*reversed(last))


def _mog2(frames: Numbered) -> Iterator[Held]:
    """Subtract the background by OpenCV's MOG2 (Zivkovic 2004) with its defaults; assumes a static camera."""
    subtractor = cv2.createBackgroundSubtractorMOG2(HISTORY, VARIANCE_THRESHOLD, detectShadows=True)
    for index, frame in frames:
        # Shadows are 127.
        found = np.asarray(subtractor.apply(frame.image)) == 255
        yield index, frame.image, np.where(found, np.uint8(255), np.uint8(0))


def _constant(value: int, frames: Numbered) -> Iterator[Held]:
    """Give the same answer for every pixel, as a floor for scores."""
    for index, frame in frames:
        yield index, frame.image, np.full(frame.image.shape[:2], value, np.uint8)


class _Baseline(Method):
    """A baseline, given as a function of the frames and its constants."""

    def __init__(self, name: str, find: Callable[[Numbered], Iterator[Held]], **constants: Any) -> None:
        details = {'flow': constants['flow']} if 'flow' in constants else {}
        details |= {'opencv': cv2.__version__} if constants else {}
        super().__init__((name,), {'baseline': name, **constants}, details)
        self._find = find

    def masks(self, clip: Clip, frames: Numbered) -> Iterator[Prediction]:
        for index, image, mask in self._find(frames):
            yield Prediction(index, self.variants[0], image, mask)


_MOG2: Final = {'history': HISTORY, 'variance threshold': VARIANCE_THRESHOLD, 'shadows': 'found and left out'}
_HOMOGRAPHY: Final = {'flow': 'dis-medium', 'flow size': list(BASELINE_SIZE), 'grid': GRID_STEP, 'inlier': INLIER}
BASELINES: Final[Mapping[str, Callable[[], Method]]] = {
    'homography': partial(_Baseline, 'homography', _homography, **_HOMOGRAPHY),
    'mog2': partial(_Baseline, 'mog2', _mog2, **_MOG2),
    'everything': partial(_Baseline, 'everything', partial(_constant, 255)),
    'nothing': partial(_Baseline, 'nothing', partial(_constant, 0)),
}
