"""The streaming core: one frame in, masks of what moves on its own out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.continuity import Continuity, Step
from moving_object_detector.detection.result import Estimate, Result
from moving_object_detector.detection.ring import Frame, Ring
from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.weights import FlowInput

SMALLEST_SIDE = 16
"""Pixels: frames with a shorter side are refused."""
Stage = Callable[[str], AbstractContextManager[None]]


class Detector:
    """Says which pixels move on their own, frame by frame.

    When frame n arrives, only the pairs between n and its neighbours in the window are new: their
    flows are one batch, their masks another, and each mask goes into the running average of its own
    frame (equation 14 of the paper). A frame whose neighbours have all come is complete and leaves.

    Args:
        flow: Flow backend.
        engine: Runs the generator.
        size: (height, width) of the generator's input, multiples of 4.
        flow_input: Form of flow that the generator's weights expect.
        config: Window, gate, refinement and mask options; may be replaced between steps.
        stage: Called with a stage's name around each stage; for measuring.

    """

    def __init__(
        self,
        flow: FlowBackend,
        engine: MaskEngine,
        size: tuple[int, int],
        flow_input: FlowInput,
        config: DetectorConfig,
        stage: Stage | None = None,
    ) -> None:
        self.flow = flow
        self.engine = engine
        self.size = size
        self.config = config
        self.last_step = Step.CONTINUES
        """What the last frame was to the one before it."""
        self.missed = 0
        """Frames so far that were to be inferred and got no result, since no neighbour came that could vote."""
        self._flow_input: FlowInput = flow_input
        self._stage: Stage = stage or (lambda _: nullcontext())
        self._ring = Ring(config.window)
        self._continuity = Continuity(round(config.continuity.max_gap * 1e9))
        self._next_index = 0

    def reset(self) -> None:
        """Forget all frames; the next one starts a stream."""
        self._ring.clear()
        self._continuity.forget()
        self._next_index = 0

    def flush(self) -> list[Result]:
        """Finish the frames that still wait for later neighbours, with those that exist, and reset.

        Returns:
            Refined results, oldest first.

        """
        end = self._next_index - self.config.window.future * self.config.window.stride
        waiting = [frame for frame in self._ring if frame.index >= end and frame.inferred]
        results = [self._result(frame, 'refined') for frame in waiting if frame.votes]
        self.missed += len(waiting) - len(results)
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
            infer: False only enters the frame into the window as a neighbour of others, for a caller
                that is behind; it gets no result of its own.
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
        self.last_step = self._continuity.follow(stamp, image.shape)
        if self.last_step is Step.REPEATS:
            return []
        results = []
        if self.last_step.starts_anew:
            results = self.flush()
            self._continuity.follow(stamp, image.shape)
        with self._stage('prepare'):
            newest = self._enter(image, stamp, infer, tag)
        self._ring.push(newest)
        pairs = self._ring.pairs(newest) if infer else []
        if pairs:
            self._vote(pairs)
        window = self.config.window
        complete = self._ring.at(newest.index - window.future * window.stride)
        if complete is not None and complete.votes:
            results.append(self._result(complete, 'refined'))
        elif complete is not None and complete.inferred:
            self.missed += 1
        if newest.votes:
            results.append(self._result(newest, 'zero_lag'))
        return results

    def _enter(self, image: NDArray[np.uint8], stamp: int, infer: bool, tag: object) -> Frame:
        height, width = self.size
        shrinks = image.shape[0] > height and image.shape[1] > width
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        network_image = torch.from_numpy(small).to(self.engine.device).permute(2, 0, 1).float() / 255.0 - 0.5
        features = self.flow.features(image)
        frame = Frame(self._next_index, stamp, image, network_image, features, infer, tag)
        self._next_index += 1
        return frame

    def _vote(self, pairs: list[tuple[Frame, Frame]]) -> None:
        """Compute the mask of each pair (frame, neighbour) and add it to the frame's average."""
        with self._stage('flow'):
            flows = self.flow.estimate(
                [frame.features for frame, _ in pairs], [neighbour.features for _, neighbour in pairs], self.size
            ).to(self.engine.device)
        with self._stage('generator input'):
            prepared = prepare_flow(flows, self._flow_input)
            images = torch.stack([frame.network_image for frame, _ in pairs])
        with self._stage('generator'):
            masks = self.engine(images, prepared.flow)
        with self._stage('vote'):
            masks = resolve_sign(masks)
            moving = prepared.motion >= self.config.gate.min_motion
            masks = masks * moving[:, None, None, None]
            for (frame, neighbour), mask, motion, flow in zip(pairs, masks[:, 0], prepared.motion, flows, strict=True):
                frame.vote(mask, motion)
                if abs(neighbour.index - frame.index) == self.config.window.stride:
                    frame.flow = flow

    def _result(self, frame: Frame, estimate: Estimate) -> Result:
        return Result(frame, estimate, self.config.refinement, self.config.mask)
