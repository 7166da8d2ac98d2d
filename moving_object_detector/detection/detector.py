"""The streaming core: one frame in, masks of what moves on its own out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.detection.ring import Frame, Ring
from moving_object_detector.detection.setting import Setting, half_of
from moving_object_detector.detection.stage import Stage, unwatched
from moving_object_detector.detection.votes import PairVotes
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.upload import network_image
from moving_object_detector.media.pixels import SMALLEST_SIDE
from moving_object_detector.networks.weights import FlowInput


class Detector:
    """Says which pixels move on their own, frame by frame.

    When frame n arrives, only the pairs between n and its neighbours in the window are new: their
    flows are one batch, their masks another, and each mask goes into the running average of its own
    frame (equation 14 of the paper). A frame whose neighbours have all come is complete and leaves.

    The window can change between two frames. Whether two frames make a pair is then said by the window
    at the arrival of the later one, and a frame is complete when the newest window reaches no further
    than the frames that have come since: so a smaller window completes frames at once, with the votes
    they have, a larger one lets them wait longer, and each still gets one refined result, in order.

    The generator's size can change as well. A frame that gets votes at both sizes goes on at the newer one:
    the generator's image is made anew of the frame's own, the sum of its votes and its flow are resized.

    Args:
        flow: Flow backend.
        engine: Runs the generator.
        size: (height, width) of the generator's input, multiples of 4.
        flow_input: Form of flow that the generator's weights expect.
        config: Window, gate, refinement and mask options; all but the window's may be replaced between steps.
        stage: Called with a stage's name around each stage; for measuring.
        half: Runs the generator at :func:`half_of` the size; None: the size stays.

    """

    def __init__(
        self,
        flow: FlowBackend,
        engine: MaskEngine,
        size: tuple[int, int],
        flow_input: FlowInput,
        config: DetectorConfig,
        stage: Stage | None = None,
        half: MaskEngine | None = None,
    ) -> None:
        self.flow = flow
        self.sizes = {False: size} if half is None else {False: size, True: half_of(size)}
        """(height, width) of the generator's input by :attr:`Setting.half`, for the settings that there are."""
        self.config = config
        self.last_step = Step.CONTINUES
        """What the last frame was to the one before it."""
        self.missed = 0
        """Frames so far that were to be inferred and got no result, since no neighbour came that could vote."""
        self.last_inferred = False
        """Whether the last frame is one of those that get a result."""
        self.last_pairs = 0
        """How many masks the last frame brought."""
        self.stage: Stage = stage or unwatched
        """Called with a stage's name around each stage; may be replaced between steps."""
        engines = {False: engine} if half is None else {False: engine, True: half}
        self._votes = {small: PairVotes(each, flow_input) for small, each in engines.items()}
        self._setting = Setting(config.window)
        self._since_inferred: int | None = None
        self._ring = Ring(config.window)
        self._continuity = Continuity(round(config.continuity.max_gap * 1e9))
        self._next_index = 0

    @property
    def engine(self) -> MaskEngine:
        """What runs the generator at present."""
        return self._votes[self._setting.half].engine

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the generator's input at present."""
        return self.sizes[self._setting.half]

    @property
    def setting(self) -> Setting:
        """Which neighbours vote, at which size, and of which frames masks are computed; from the next frame on.

        Raises:
            ValueError: Set to a window that reaches further than the configured one, or to a size without an engine.

        """
        return self._setting

    @setting.setter
    def setting(self, setting: Setting) -> None:
        window = setting.window
        if max(window.past, window.future) * window.stride > self._ring.reach:
            raise ValueError(f'{setting} reaches further than the {self._ring.reach} frames that are kept')
        if setting.half not in self.sizes:
            raise ValueError(f'{setting}: the detector was built without an engine of half the size')
        self._setting = setting

    def reset(self) -> None:
        """Forget all frames; the next one starts a stream."""
        self._ring.clear()
        self._continuity.forget()
        self._next_index = 0
        self._since_inferred = None

    def flush(self) -> list[Result]:
        """Finish the frames that still wait for later neighbours, with those that exist, and reset.

        Returns:
            Refined results, oldest first.

        """
        results = self._finish(self._next_index)
        self.reset()
        return results

    def step(self, image: NDArray[np.uint8], stamp: int, *, infer: bool = True, tag: object = None) -> list[Result]:
        """Take the next frame.

        A frame that is older than the last one, comes after too long a gap or has another size starts
        the stream anew: the frames that waited are finished first. A frame with the last one's stamp
        is taken for a repetition and ignored. ``last_step`` tells which it was.

        Args:
            image: (H, W, 3) uint8 RGB, at least 16 x 16; kept by reference for as long as the window needs it.
            stamp: Nanoseconds.
            infer: False only enters the frame into the window as a neighbour of later ones, for a caller
                that is behind; it gets no result of its own. True leaves that to :attr:`setting`.
            tag: Given back as ``tag`` of the frame's results.

        Returns:
            The refined results that became complete, oldest first, then the zero-lag result of this
            frame where it has earlier neighbours.

        Raises:
            ValueError: The image has another shape or type.

        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f'image is {image.dtype} {image.shape}; it must be uint8 (H, W, 3)')
        if min(image.shape[:2]) < SMALLEST_SIDE:
            raise ValueError(
                f'image is {image.shape[1]}x{image.shape[0]}; both sides must be at least {SMALLEST_SIDE} pixels'
            )
        self.last_inferred, self.last_pairs = False, 0
        self.last_step = self._continuity.follow(stamp, image.shape)
        if self.last_step is Step.REPEATS:
            return []
        results = []
        if self.last_step.starts_anew:
            results = self.flush()
            self._continuity.follow(stamp, image.shape)
        with self.stage('prepare'):
            newest = self._enter(image, stamp, infer and self._is_due(), tag)
        self._since_inferred = 0 if newest.inferred else (self._since_inferred or 0) + 1
        self._ring.push(newest)
        pairs = self._ring.pairs(newest, self._setting.window) if infer else []
        if pairs:
            self._bring_to_size(frame for frame, _ in pairs)
            self._vote(pairs)
        self.last_inferred, self.last_pairs = newest.inferred, len(pairs)
        results += self._finish(newest.index - self._setting.delay)
        if newest.votes:
            results.append(self._result(newest, 'zero_lag'))
        return results

    def _is_due(self) -> bool:
        return self._since_inferred is None or self._since_inferred + 1 >= self._setting.every

    def _finish(self, last: int) -> list[Result]:
        """Return the refined results of the frames up to index ``last`` that still waited."""
        complete = [frame for frame in self._ring.finish(last) if frame.inferred]
        results = [self._result(frame, 'refined') for frame in complete if frame.votes]
        self.missed += len(complete) - len(results)
        return results

    def _bring_to_size(self, frames: Iterable[Frame]) -> None:
        """Let frames that are about to be voted on go on at the present size, where they were at another."""
        for frame in frames:
            if frame.network_image.shape[1:] != self.size:
                frame.resize(self._network_image(frame.image))

    def _enter(self, image: NDArray[np.uint8], stamp: int, infer: bool, tag: object) -> Frame:
        network_image = self._network_image(image)
        features = self.flow.features(image)
        frame = Frame(self._next_index, stamp, image, network_image, features, infer, tag)
        self._next_index += 1
        return frame

    def _network_image(self, image: NDArray[np.uint8]) -> Tensor:
        """Return (3, h, w), RGB in [-0.5, 0.5] at the generator's present size, on its device."""
        return network_image(image, self.size, self.engine.device)

    def _vote(self, pairs: list[tuple[Frame, Frame]]) -> None:
        """Compute the mask of each pair (frame, neighbour) and add it to the frame's average."""
        with self.stage('flow'):
            flows = self.flow.estimate(
                [frame.features for frame, _ in pairs], [neighbour.features for _, neighbour in pairs], self.size
            ).to(self.engine.device)
        images = torch.stack([frame.network_image for frame, _ in pairs])
        masks, motions = self._votes[self._setting.half](images, flows, self.stage)
        with self.stage('vote'):
            moving = motions >= self.config.gate.min_motion
            masks = masks * moving[:, None, None]
            for (frame, neighbour), mask, motion, flow in zip(pairs, masks, motions, flows, strict=True):
                frame.vote(mask, motion)
                if abs(neighbour.index - frame.index) == self._setting.window.stride:
                    frame.flows[1 if neighbour.index > frame.index else -1] = flow

    def _result(self, frame: Frame, estimate: Estimate) -> Result:
        return Result(frame, estimate, self.config)
