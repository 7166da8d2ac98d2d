"""The evaluation of a method on clips, frame by frame; each clip's result is saved, so that a run can be resumed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from moving_object_detector.common.errors import LONGEST_MESSAGE, ImageError, UserError, foreign
from moving_object_detector.common.files import lock, make_folder, write_atomically
from moving_object_detector.common.options import flatten
from moving_object_detector.common.parameter_files import load_config
from moving_object_detector.common.program import provenance
from moving_object_detector.detection.config import ContinuityConfig, DetectorConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.detection.regions import draw_overlay
from moving_object_detector.evaluation.clips import Clip, fingerprint, open_clips
from moving_object_detector.evaluation.methods import BASELINES, DetectorMethod, GivenMasks, Method, Prediction
from moving_object_detector.evaluation.metrics import PreparedTruth, count_objects
from moving_object_detector.evaluation.options import EvaluateOptions
from moving_object_detector.evaluation.results import (
    COLUMNS,
    RULES,
    KeptFrame,
    RunResult,
    ScoringRule,
    SequenceResult,
    VariantColumns,
    masks_per_second,
    read_stored,
    scores_of,
    write_results,
    written,
)
from moving_object_detector.media.codecs import encode_jpeg, encode_png
from moving_object_detector.media.frames import SECOND, Frame, resize_image
from moving_object_detector.media.pictures import evenly_spaced

WAITING: Final = 64
"""Annotations cached for delayed masks, more than twice the largest window."""
PROBLEMS: Final = 20
"""Most problems reported of one clip."""
_STRETCH: Final = 0.02
"""Relative tolerance between the aspect ratios of annotation and image, since resized sides are rounded."""


class SequencePass:
    """One pass of a method over one clip, which is opened anew; ``seen`` is called after each frame."""

    def __init__(
        self, clip: Clip, method: Method, rule: ScoringRule, options: EvaluateOptions, seen: Callable[[], object]
    ) -> None:
        self._clip, self._method, self._rule, self._seen = clip, method, rule, seen
        self._options, self._folder = options, Path(options.out).expanduser()
        self._problems = list(clip.problems)
        # Values of each variant, by column and frame.
        self._cells: dict[str, dict[str, dict[int, float]]] = {
            variant: {name: {} for name in COLUMNS} for variant in method.variants
        }
        self._counting = method.variants[-1]
        self._latency: dict[int, float] = {}
        self._names: list[str] = []
        self._continuity = Continuity(round(ContinuityConfig.max_gap * SECOND))
        self._steps: list[Step] = []
        self._picker = FramePicker(clip.frame_count)
        self._truth = lru_cache(WAITING)(self._read_truth)
        self._size = (0, 0)
        self._stretched = ''

    def run(self) -> SequenceResult:
        """Evaluate the clip; raises UserError if it cannot be opened or none of its frames can be scored."""
        begin = time.monotonic()
        source = self._clip.open()
        self._take(self._method.masks(self._clip, self._frames(source)))
        for step, then in ((Step.GOES_BACK, 'the detector is reset there'), (Step.REPEATS, 'it is not scored')):
            if self._steps.count(step):
                self._problem(f'{self._steps.count(step)} of {len(self._steps)} frames {step.value}; {then}')
        for problem in (*self._method.problems, self._continuity.trouble):
            self._problem(problem)
        if not self._steps:
            raise UserError(f'{self._clip.name}: not one frame could be read: {"; ".join(self._problems[:3])}')
        count = len(self._names)
        self._score_the_silent(count)
        # Breaks the reference cycle between this object and its cache, which would delay its release.
        self._truth.cache_clear()
        if self._stretched and not self._cells[self._counting]['j']:
            raise UserError(f'{self._clip.name}: {self._stretched}')
        seconds = self._method.seconds
        return SequenceResult(
            name=self._clip.name,
            frame_count=count,
            size=self._size,
            fps=source.fps,
            seconds=time.monotonic() - begin if seconds is None else seconds,
            variants={
                variant: VariantColumns(**{name: tuple(map(cells[name].get, range(count))) for name in COLUMNS})
                for variant, cells in self._cells.items()
            },
            dropped=count - len(self._cells[self._counting]['area']),
            latency=tuple(value for _, value in sorted(self._latency.items())),
            problems=tuple(self._problems),
            pictures=self._picker.write(self._folder, self._clip.name),
            masks=self._options.save_masks,
            footage=fingerprint((*self._clip.files, *self._method.files(self._clip))),
            groups=self._clip.groups,
        )

    def _problem(self, text: str) -> None:
        text = foreign(text, LONGEST_MESSAGE)
        if text and text not in self._problems and len(self._problems) < PROBLEMS:
            self._problems.append(text)

    def _frames(self, source: Iterable[Frame]) -> Iterator[tuple[int, Frame]]:
        """Yield numbered frames; a damaged frame is reported and skipped."""
        frames = iter(source)
        while True:
            index = len(self._names)
            try:
                frame = next(frames, None)
            except ImageError as error:
                self._problem(f'frame {index} is left out: {error}')
                # Keeps its number, so that its annotation counts as missed.
                self._names.append('')
                continue
            except UserError as error:
                self._problem(f'the clip ends after {index} frames: {error}')
                return
            if frame is None:
                return
            if not any(self._size):
                self._size = (frame.image.shape[0], frame.image.shape[1])
            self._steps.append(self._continuity.follow(frame.stamp, frame.image.shape))
            self._names.append(frame.name)
            yield index, frame
            self._seen()

    def _read_truth(self, index: int) -> PreparedTruth | None:
        if self._clip.still:
            return PreparedTruth(np.zeros(self._size, np.bool_))
        annotation = self._clip.annotations[index] if index < len(self._clip.annotations) else None
        try:
            return None if annotation is None else PreparedTruth(annotation())
        except UserError as error:
            self._problem(f'the annotation of frame {index} is left out: {error}')
            return None

    def _truth_for(self, index: int, size: tuple[int, ...]) -> PreparedTruth | None:
        """Return a frame's annotation; None if there is none, or its aspect ratio differs, as of a rotated image."""
        truth = self._truth(index)
        if truth is None:
            return None
        (height, width), (rows, columns) = truth.truth.shape, size
        if abs(width * rows - height * columns) <= _STRETCH * max(width * rows, height * columns):
            return truth
        self._stretched = (
            f'an annotation is {width}x{height}, its image {columns}x{rows}: the shapes differ (is one of them rotated '
            'by its EXIF orientation?), so it is not scored; store both alike'
        )
        self._problem(self._stretched)
        return None

    def _take(self, predictions: Iterable[Prediction]) -> None:
        for prediction in predictions:
            index, variant, mask = prediction.index, prediction.variant, prediction.mask
            truth = self._truth_for(index, mask.shape)
            self._cells[variant]['area'][index] = float(np.count_nonzero(mask)) / mask.size
            j = None if truth is None else self._score(variant, index, mask, truth)
            if variant != self._counting:
                continue
            if prediction.latency is not None:
                self._latency[index] = prediction.latency
            if self._options.save_masks:
                path = self._folder / 'masks' / self._clip.name / f'{Path(self._names[index]).stem}.png'
                write_atomically(path, encode_png(mask).tobytes())
            scored = self._rule.scored(index, self._clip.frame_count, truth is not None)
            draw = partial(draw_judged, prediction.image, mask, None if truth is None else truth.truth)
            self._picker.take(index, j if scored else None, draw)

    def _score(self, variant: str, index: int, mask: NDArray[np.uint8], truth: PreparedTruth) -> float:
        height, width = truth.truth.shape
        if mask.shape != truth.truth.shape:
            self._problem(
                f'annotations are {width}x{height}, masks {mask.shape[1]}x{mask.shape[0]}: masks are resized to score'
            )
        prediction = _fitted(mask, (height, width)) > 0
        j, f = truth.scores(prediction)
        cells = self._cells[variant]
        for name, value in zip(COLUMNS, (j, f, *count_objects(prediction, truth.truth)), strict=False):
            cells[name][index] = value
        return j

    def _score_the_silent(self, count: int) -> None:
        """Score frames without a mask of a variant as empty masks."""
        for variant, cells in self._cells.items():
            for index in range(count):
                truth = None if index in cells['area'] else self._truth_for(index, self._size)
                if truth is not None:
                    self._score(variant, index, np.zeros(truth.truth.shape, np.uint8), truth)


# Pictures ------------------------------------------------------------------------------------------------------------

TRUTH: Final = (64, 196, 255)
"""Outline of the truth, a blue distinct from the mask's red and white also for colour-blind readers."""
_CASING: Final = (0, 24, 48)
"""Dark edge of the truth's outline, for contrast on a bright sky."""
WIDTH: Final = 640
"""Largest width of the pictures of the best and the worst frame, pixels."""
SMALL: Final = 320
"""Largest width of the other pictures, pixels."""
SPREAD_FRAMES: Final = 8
"""Number of evenly spaced frames shown of a sequence."""
_QUALITY: Final = 82
"""JPEG quality, per cent."""


def _fitted(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def draw_judged(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], truth: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Draw a mask as in the overlay and the truth's outline on an image (H, W, 3); both are resized to it."""
    size = (image.shape[0], image.shape[1])
    picture = draw_overlay(image, _fitted(mask, size))
    if truth is None:
        return picture
    contours, _ = cv2.findContours(_fitted(truth.astype(np.uint8), size), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(image.shape[1] / 400))
    cv2.drawContours(picture, contours, -1, _CASING, 2 * thickness, cv2.LINE_AA)
    cv2.drawContours(picture, contours, -1, TRUTH, thickness, cv2.LINE_AA)
    return picture


def _jpeg(picture: NDArray[np.uint8], width: int) -> bytes:
    height, full = picture.shape[:2]
    if full > width:
        picture = resize_image(picture, (max(1, round(height * width / full)), width))
    return encode_jpeg(picture, _QUALITY).tobytes()


class FramePicker:
    """Selects the frames of a sequence to show, in one pass: the best, the worst and evenly spaced ones.

    Frames that are not scored are passed without J, and are neither the best nor the worst.
    """

    def __init__(self, frame_count: int) -> None:
        self._extremes: dict[str, tuple[float, int, bytes]] = {}
        self._spread: list[tuple[int, bytes]] = []
        # The first ones if the length is unknown.
        self._wanted = evenly_spaced(frame_count or SPREAD_FRAMES, SPREAD_FRAMES)

    def take(self, index: int, j: float | None, draw: Callable[[], NDArray[np.uint8]]) -> None:
        """Consider the next frame, given its number, J (None: not scored), and a function that draws it."""
        for kind, sign in (('best', 1), ('worst', -1)):
            if j is not None and (kind not in self._extremes or sign * j > sign * self._extremes[kind][0]):
                self._extremes[kind] = j, index, _jpeg(draw(), WIDTH)
        if self._wanted and index >= self._wanted[0]:
            # The wanted frame, or the next one with a mask.
            self._wanted = [number for number in self._wanted if number > index]
            self._spread.append((index, _jpeg(draw(), SMALL)))

    def write(self, folder: Path, sequence: str) -> tuple[KeptFrame, ...]:
        """Write the selected frames to ``pictures/SEQUENCE/`` in the run's folder."""
        chosen = [(kind, kind, index, data) for kind, (_, index, data) in self._extremes.items()]
        if len(chosen) == 2 and chosen[0][2] == chosen[1][2]:
            chosen.pop()
        chosen += [('spread', f'spread_{number:02d}', *kept) for number, kept in enumerate(self._spread)]
        pictures = []
        for kind, name, index, data in chosen:
            file = Path('pictures', sequence, f'{name}.jpg')
            write_atomically(folder / file, data)
            pictures.append(KeptFrame(file.as_posix(), index, kind))
        return tuple(pictures)


IDENTITY: Final = 'run.json'
SEQUENCES: Final = 'sequences'
_ANEW: Final = 'remove it, or give --overwrite to start over'


def claim_folder(folder: Path, identity: Mapping[str, Any], *, overwrite: bool) -> None:
    """Mark a folder as that of a run, or check that it is; raises UserError if it holds another or a damaged run."""
    kept = list((folder / SEQUENCES).glob('*.json'))
    # A run without a finished sequence has nothing to protect.
    if kept and not overwrite and (folder / IDENTITY).exists():
        before, now = dict(flatten(read_stored(dict, folder / IDENTITY, _ANEW))), dict(flatten(identity))
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise UserError(
                    f'{folder} holds a run in which {name} was {before.get(name)!r}, now it is {now.get(name)!r}; give '
                    'another --out, or --overwrite to start over'
                )
        return
    for path in kept:
        path.unlink()
    write_atomically(folder / IDENTITY, json.dumps(identity, indent=1).encode())


def _kept(clip: Clip, method: Method, options: EvaluateOptions, folder: Path) -> tuple[SequenceResult | None, str]:
    """Return a clip's saved result, or None and the reason why it is scored anew."""
    path = folder / SEQUENCES / f'{clip.name}.json'
    if not path.exists():
        return None, ''
    try:
        before = read_stored(SequenceResult, path, _ANEW)
    except UserError as error:
        return None, f'{path.name} is damaged ({error}); scored anew'
    if before.footage != fingerprint((*clip.files, *method.files(clip))):
        return None, 'its frames or masks have changed since it was scored; scored anew'
    lacks = options.save_masks and not before.masks
    return (None, 'its masks were not saved; scored anew') if lacks else (before, '')


def _line(result: SequenceResult, variant: str, protocol: str) -> str:
    scores, rate = scores_of([result], variant, protocol), masks_per_second([result])
    return f'{foreign(result.name):20s} J {written(scores.j_mean)}  F {written(scores.f_mean)}' + (
        '' if rate is None else f'  {rate:5.1f} frames/s'
    )


def _evaluate_clips(
    method: Method, clips: Sequence[Clip], protocol: str, options: EvaluateOptions, folder: Path, made_by: str
) -> tuple[list[SequenceResult], list[str]]:
    """Evaluate all clips that have no saved result; return all results, and messages about failed and old ones."""
    results: list[SequenceResult] = []
    failures: list[str] = []
    done = {clip.name: _kept(clip, method, options, folder) for clip in clips}
    total = sum(clip.frame_count for clip in clips if done[clip.name][0] is None)
    with tqdm(total=total, unit='frame', dynamic_ncols=True, smoothing=0.05) as bar:
        for clip in clips:
            before, reason = done[clip.name]
            if before is not None:
                results.append(before)
                continue
            if reason:
                bar.write(f'{foreign(clip.name):20s} {reason}')
            bar.set_description(foreign(clip.name))
            try:
                result = SequencePass(clip, method, RULES[protocol], options, bar.update).run()
                result = replace(result, made_by=made_by)
            except UserError as error:
                text = str(error)
                failures.append(text if text.startswith(f'{clip.name}:') else f'{clip.name}: {text}')
                bar.write(f'{foreign(clip.name):20s} left out: {error}')
                continue
            write_atomically(folder / SEQUENCES / f'{clip.name}.json', json.dumps(asdict(result)).encode())
            results.append(result)
            bar.write(_line(result, method.variants[-1], protocol))
            for problem in result.problems:
                bar.write(f'  {problem}')
    for other, count in Counter(result.made_by for result in results if result.made_by != made_by).items():
        failures.append(
            f'{count} of {len(results)} sequences were scored by {other or "an earlier version"}, this is {made_by}; '
            'to score them anew: --overwrite'
        )
    return results, failures


def _method(options: EvaluateOptions, settings: Sequence[str]) -> Method:
    if options.method == 'masks':
        predictions = Path(options.predictions).expanduser() if options.predictions else None
        return GivenMasks(predictions, options.predicted_topic)
    if options.method != 'detector':
        return BASELINES[options.method]()
    config = load_config(DetectorConfig(), Path(options.config) if options.config else None, settings)
    return DetectorMethod(config, options.list_of('variants'))


def evaluate(options: EvaluateOptions, settings: Sequence[str], command: Sequence[str]) -> RunResult:
    """Run or resume an evaluation, and write ``results.json``.

    ``settings`` are options of the detector as name=value, ``command`` the program's arguments for the report. Raises
    UserError if an option or the data is wrong, the folder is in use or holds another run, or no clip can be evaluated.
    """
    folder = Path(options.out).expanduser()
    clips, problems = open_clips(options)
    method = _method(options, settings)
    protocol = options.dataset if options.dataset in RULES else 'annotated'
    decides = {**options.identity(), 'protocol': protocol, 'variants': method.variants, **method.identity}
    identity = json.loads(json.dumps(decides))
    details = {**provenance('evaluate', command), **method.details}
    make_folder(folder / SEQUENCES)
    with lock(folder / '.lock', f'the folder {folder}'):
        claim_folder(folder, identity, overwrite=options.overwrite)
        made_by = f'revision {details["revision"] or "unknown"} on {details["machine"]}'
        results, failures = _evaluate_clips(method, clips, protocol, options, folder, made_by)
        problems += failures
        if not results:
            raise UserError(f'nothing could be evaluated: {"; ".join(problems) or "there is no clip"}')
        run = RunResult(identity, details, tuple(results), tuple(problems))
        write_results(folder, run)
    return run
