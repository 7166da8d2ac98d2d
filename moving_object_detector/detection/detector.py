"""The streaming detector: one frame in, masks of independently moving pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.common.errors import NotFiniteError
from moving_object_detector.detection.config import DetectorConfig, WindowConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.detection.hysteresis import Carried
from moving_object_detector.detection.odometry import Odometry
from moving_object_detector.detection.pair_masks import Watch, gated_masks, object_masks, unwatched
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.detection.rigid import PairTravel
from moving_object_detector.detection.ring import Pace, Pair, Ring, Side, WindowFrame
from moving_object_detector.engines.base import MaskEngine, usable_cores
from moving_object_detector.flow.base import FlowBackend, grey_image, network_image
from moving_object_detector.flow.evidence import evidence
from moving_object_detector.flow.generator_input import join_sides
from moving_object_detector.flow.travel import Array, Travel, assumed_camera
from moving_object_detector.media.frames import SMALLEST_SIDE, resize_image
from moving_object_detector.networks.weights import FlowInput, sees_both_sides, takes_evidence


class StepOutcome(NamedTuple):
    """What a step of the detector returns."""

    results: list[Result]
    """The newly completed refined results, oldest first, then the zero-lag result of this frame, if any."""
    missed: int = 0
    """Newly completed frames without a result, because no neighbour voted on them."""
    relation: Step = Step.CONTINUES
    """Relation of the frame to the one before it."""
    pairs: int = 0
    """Number of votes added."""
    masks: int = 0
    """How many of them passed the motion gate; on a GPU all."""


def _both(side: Side, other: Side | None) -> Tensor:
    """Return the two-sided generator input (16, h, w), of the first side twice if the other is missing or static."""
    if other is None:
        return join_sides(side.seen)
    both = join_sides(side.seen, other.seen)
    # On a CPU static sides are never stored; on a GPU a branch on ``moves`` would synchronise.
    return both if both.device.type == 'cpu' else torch.where(other.moves, both, join_sides(side.seen))


class _Flows(NamedTuple):
    """The flows of a batch of pairs and of the reversed pairs."""

    numbers: dict[tuple[int, int], int]
    """Row of the flow between the frames with these two indices."""
    all: Tensor
    """(n, 2, h, w), pixels, on the engine's device."""
    on_cpu: Array
    """The same as an array."""


class Detector:
    """Finds the pixels that move on their own, frame by frame.

    When frame n arrives, only the pairs between n and its neighbours in the window are new. Their flows are one batch,
    their masks another, and each mask enters the average of its own frame (equation 14 of the paper). A frame is
    complete when all its neighbours have arrived. A two-sided generator gives one mask per distance, from the first
    neighbour alone until the second has arrived.

    The window can change between two frames. The window at the arrival of the later frame decides whether two frames
    form a pair, and a frame is complete when the newest window reaches no further than the frames received since. So a
    smaller window completes frames at once with the votes they have, a larger one delays them, and each frame still
    gets one refined result, in order.

    The engine runs the generator on images of ``size`` (height, width) and flow in the form ``flow_input``. All of
    ``config`` but the window may be replaced between steps. ``stage`` gives a context for each named stage.
    """

    def __init__(
        self,
        flow: FlowBackend,
        engine: MaskEngine,
        size: tuple[int, int],
        flow_input: FlowInput,
        config: DetectorConfig,
        stage: Watch | None = None,
    ) -> None:
        self.flow = flow
        self.engine = engine
        """Runs the generator."""
        self.size = size
        """(height, width) of the generator's input."""
        self.config = config
        self.odometry: Odometry | None = None
        """Source of the camera's intrinsics and motion; may be set at any time."""
        self.refined_only = False
        """Whether to skip zero-lag results and, with a two-sided generator, the masks only they need."""
        self._flow_input = flow_input
        self._stage: Watch = stage or unwatched
        self._window = config.window
        self._ring = Ring(config.window)
        self._pace = Pace()
        self._before: dict[Estimate, Carried] = {}
        self._continuity = Continuity(round(config.continuity.max_gap * 1e9))
        self._next_index = 0
        self._workers = ThreadPoolExecutor(usable_cores())

    @property
    def window(self) -> WindowConfig:
        """The neighbours that vote, from the next frame on; ValueError for a reach beyond the configured one."""
        return self._window

    @window.setter
    def window(self, window: WindowConfig) -> None:
        if window.reach > self._ring.reach:
            raise ValueError(f'{window} reaches further than the {self._ring.reach} frames that are kept')
        self._window = window

    @property
    def _present(self) -> WindowConfig:
        return self._window.slowed() if self._pace.slow else self._window

    @property
    def delay(self) -> int:
        """Present delay of refined results, frames."""
        return self._present.delay

    def reset(self) -> None:
        """Forget all frames; the next one starts a new stream."""
        self._ring.clear()
        self._pace = Pace()
        self._before.clear()
        self._continuity.forget()
        self._next_index = 0

    def flush(self) -> StepOutcome:
        """Complete the waiting frames with the neighbours they have, and reset."""
        results, missed = self._finish(self._next_index)
        self.reset()
        return StepOutcome(results, missed)

    def step(self, image: NDArray[np.uint8], stamp: int, *, infer: bool = True, tag: object = None) -> StepOutcome:
        """Process the next frame, (H, W, 3) uint8 RGB of at least 16 x 16, kept uncopied while the window needs it.

        A frame that is older than the last one (``stamp``: nanoseconds), follows too long a gap or has another size
        starts a new stream, after the waiting frames are completed. A frame with the last one's stamp is ignored. With
        ``infer`` False the frame gets no mask and only serves as a neighbour, for a caller that is behind. ``tag`` is
        returned with the frame's results. Raises ValueError for a wrong shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f'image is {image.dtype} {image.shape}; it must be uint8 (H, W, 3)')
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(
                f'image is {image.shape[1]}x{image.shape[0]}; both sides must be at least {SMALLEST_SIDE} pixels'
            )
        relation = self._continuity.follow(stamp, image.shape)
        if relation is Step.REPEATS:
            return StepOutcome([], relation=relation)
        before = StepOutcome([])
        if relation.starts_anew:
            before = self.flush()
            self._continuity.follow(stamp, image.shape)
        with self._stage('prepare'):
            newest = self._enter(image, stamp, infer, tag)
        self._ring.push(newest)
        window = self._present
        pairs = self._ring.pairs(newest, window) if infer else []
        masks = self._vote(pairs, window) if pairs else 0
        results, missed = self._finish(newest.index - window.delay)
        if newest.votes and not self.refined_only:
            results.append(self._result(newest, 'zero_lag'))
        return StepOutcome(before.results + results, before.missed + missed, relation, len(pairs), masks)

    def _finish(self, last: int) -> tuple[list[Result], int]:
        """Complete the frames up to index ``last``; return their refined results and how many frames have none."""
        complete = [frame for frame in self._ring.finish(last) if frame.inferred]
        self._complete(complete)
        results = [self._result(frame, 'refined') for frame in complete if frame.votes]
        return results, len(complete) - len(results)

    def _enter(self, image: NDArray[np.uint8], stamp: int, infer: bool, tag: object) -> WindowFrame:
        small = resize_image(image, self.size)
        last = self._ring.at(self._next_index - 1)
        before = last.features if last else None
        frame = WindowFrame(
            self._next_index,
            stamp,
            image,
            network_image(small, self.size, self.engine.device),
            grey_image(small, self.size),
            self.flow.features(image, before),
            infer,
            tag,
        )
        self._next_index += 1
        return frame

    def _vote(self, pairs: list[Pair], window: WindowConfig) -> int:
        """Add the mask of each pair (frame, neighbour) to its frame's average; return how many passed the gate."""
        with self._stage('flow'):
            flows, both_ways = self._flows(pairs)
        travels = self._travels(pairs)
        images = torch.stack([frame.network_image for frame, _ in pairs])
        evidence = None if both_ways is None else partial(self._evidence, pairs, both_ways, travels)
        least = self.config.gate.min_motion
        join = None
        if sees_both_sides(self._flow_input):
            join = partial(self._join, pairs)
            for frame, neighbour in pairs:
                frame.sides[neighbour.index - frame.index] = None
        masks, motions, computed = gated_masks(
            self.engine, self._flow_input, images, flows, least, self._stage, evidence, join
        )
        with self._stage('vote'):
            gaps = [abs(neighbour.index - frame.index) for frame, neighbour in pairs]
            for (frame, neighbour), gap, mask, motion, flow in zip(pairs, gaps, masks, motions, flows, strict=True):
                if join is None:
                    frame.vote(neighbour.index - frame.index, mask, motion)
                else:
                    # One mask per distance: that of both sides replaces that of the first.
                    frame.vote(gap, mask if self._is_wanted(frame, neighbour) else None, motion)
                if gap == window.stride:
                    side = 1 if neighbour.index > frame.index else -1
                    frame.flows[side], frame.gaps[side] = flow, gap
                    if side < 0 and both_ways is not None:
                        frame.back = both_ways.on_cpu[both_ways.numbers[neighbour.index, frame.index]].copy()
                    frame.travels[side] = travels[min(frame.index, neighbour.index)]
            if window.slow_stride > self._window.stride:
                lengths = torch.hypot(flows[:, 0], flows[:, 1]).mean((1, 2)) * (1000 / flows.shape[-1])
                self._pace.take(motions.cpu(), lengths.cpu(), torch.tensor(gaps))
        return computed

    def _is_wanted(self, frame: WindowFrame, neighbour: WindowFrame) -> bool:
        """Tell whether to compute the mask now: if only refined results count, not before the later neighbour."""
        return not self.refined_only or neighbour.index > frame.index

    def _join(
        self, pairs: Sequence[Pair], numbers: Sequence[int], sides: Tensor, moving: Tensor
    ) -> tuple[list[int], Tensor]:
        """Store each side with its frame; return the places of the wanted masks and their two-sided inputs."""
        wanted, joined = [], []
        for place, number in enumerate(numbers):
            frame, neighbour = pairs[number]
            gap = neighbour.index - frame.index
            frame.sides[gap] = side = Side(sides[place], moving[place])
            if self._is_wanted(frame, neighbour):
                wanted.append(place)
                joined.append(_both(side, frame.sides.get(-gap)))
        return wanted, torch.stack(joined) if joined else sides[:0]

    def _complete(self, frames: Sequence[WindowFrame]) -> None:
        """Compute the masks that still wait for a second side that never came."""
        for frame in frames:
            for gap, side in frame.sides.items():
                if abs(gap) in frame.masks:
                    continue
                image = frame.network_image[None]
                frame.masks[abs(gap)] = (
                    image.new_zeros(self.size)
                    if side is None
                    else object_masks(self.engine, image, _both(side, None)[None], side.moves[None])[0]
                )

    def _travels(self, pairs: list[Pair]) -> dict[int, PairTravel]:
        """Return the camera motion of the pairs, by the index of the older frame; the other is the newest frame."""
        shape = pairs[0][0].image.shape
        camera = None if self.odometry is None else self.odometry.camera((shape[0], shape[1]), self.size)
        camera = camera or assumed_camera(self.size, pairs[0][0].aspect, self.config.rigid.focal_length)
        ordered = (sorted(pair, key=lambda frame: frame.index) for pair in pairs)
        return {older.index: PairTravel((older.stamp, newer.stamp), camera, self.odometry) for older, newer in ordered}

    def _flows(self, pairs: list[Pair]) -> tuple[Tensor, _Flows | None]:
        """Return the flow of each pair, (B, 2, h, w), and with evidence also the flows of the reversed pairs."""
        ordered = {(frame.index, other.index): (frame, other) for frame, other in pairs}
        if takes_evidence(self._flow_input):
            ordered |= {(other.index, frame.index): (other, frame) for frame, other in pairs}
        sources, targets = zip(*ordered.values(), strict=True)
        flows = self.flow.estimate([one.features for one in sources], [one.features for one in targets], self.size)
        on_cpu = flows.cpu().numpy() if takes_evidence(self._flow_input) else None
        flows = flows.to(self.engine.device)
        if on_cpu is None:
            return flows, None
        return flows[: len(pairs)], _Flows({key: number for number, key in enumerate(ordered)}, flows, on_cpu)

    def _evidence(
        self, pairs: list[Pair], flows: _Flows, travels: dict[int, PairTravel], chosen: Sequence[int]
    ) -> Tensor:
        """Return the evidence of the chosen pairs, (n, 5, h, w)."""
        used = [pairs[number] for number in chosen]
        keys = [(frame.index, other.index) for frame, other in used]
        textures = {frame.index: frame.texture for frame, _ in used}

        def estimate(older: int) -> dict[tuple[int, int], Travel]:
            """Return the travels of the pairs with this older frame; the second is the reverse of the first."""
            return {
                key: travels[older].toward(
                    1 if key[0] == older else -1, flows.on_cpu[flows.numbers[key]], textures[key[0]].contrast
                )
                for key in keys
                if min(key) == older
            }

        olders = sorted({min(key) for key in keys})
        # Odometry costs next to nothing and must be asked in order.
        run = self._workers.map if len(olders) > 1 and self.odometry is None else map
        found = {key: travel for part in run(estimate, olders) for key, travel in part.items()}
        forward, back = ([flows.numbers[key] for key in order] for order in (keys, [(b, a) for a, b in keys]))
        return evidence(flows.all[forward], flows.all[back], [found[key] for key in keys])

    def _result(self, frame: WindowFrame, estimate: Estimate) -> Result:
        result = Result(frame, estimate, self.config, self._before.pop(estimate, None))
        if self.config.mask.hysteresis:
            # Computed now because the next frame needs it; reading the result raises the error again.
            with self._stage('hysteresis'), suppress(NotFiniteError):
                self._before[estimate] = Carried(result.index, result.steadied)
        return result
