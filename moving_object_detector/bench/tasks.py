"""The timed tasks: the detector and a naive pipeline, from image message to mask message."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.detection.build import build_detector, create_flow, load_generator
from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.pair_masks import resolve_polarity
from moving_object_detector.detection.refinement import refine
from moving_object_detector.detection.regions import find_regions
from moving_object_detector.detection.result import Result
from moving_object_detector.detection.rigid import PairTravel, RigidTest
from moving_object_detector.engines.create import choose_device
from moving_object_detector.flow.base import grey_image, network_image
from moving_object_detector.flow.evidence import evidence
from moving_object_detector.flow.generator_input import prepare_flow, reverse_side, split_flow
from moving_object_detector.flow.rigid_scene import Texture
from moving_object_detector.flow.travel import Camera, assumed_camera, estimate_travel
from moving_object_detector.media.messages import decode_image, encode_image
from moving_object_detector.networks.weights import sees_both_sides, takes_evidence

FRAME_NANOSECONDS: Final = 33_333_333


class Stopwatch:
    """Collects times of named stages, seconds; with ``synchronise`` they include the GPU's pending work."""

    def __init__(self, synchronise: bool) -> None:
        self.times: dict[str, list[float]] = {}
        self._synchronise = synchronise

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the body of the context as one run of the stage ``name``."""
        started = time.perf_counter()
        yield
        if self._synchronise:
            torch.cuda.synchronize()
        self.times.setdefault(name, []).append(time.perf_counter() - started)

    def take(self) -> dict[str, list[float]]:
        """Return and reset the times."""
        times, self.times = self.times, {}
        return times


class NaivePipeline:
    """Equation 14 of the paper literally: each frame with each neighbour, pair by pair, in eager PyTorch.

    It keeps no state between frames, so ``mask.hysteresis`` has no effect.
    """

    def __init__(self, config: DetectorConfig) -> None:
        self._device = choose_device(config.device)
        generator, self.size, self._flow_input, _ = load_generator(config)
        self._generator = generator.eval().to(self._device)
        self.flow = create_flow(config.flow, self._device)
        self._config = config

    @torch.inference_mode()
    def mask(self, images: Sequence[NDArray[np.uint8]], index: int) -> NDArray[np.uint8]:
        """Return the mask of ``images[index]``, uint8 (H, W) of 0 and 255, using the neighbours that exist."""
        window = self._config.window
        average = np.mean(self._votes(images, index), axis=0)
        probability = refine(average, images[index], self._config.refinement)
        nearest = {
            side: self._between(images[index], images[index + side * window.stride])[0].cpu().numpy()
            for side, reach in ((-1, window.past), (1, window.future))
            if reach and 0 <= index + side * window.stride < len(images)
        }
        grey = grey_image(images[index], self.size)
        camera = self._camera(images[index])
        test = RigidTest(Texture.of(grey), nearest, {side: PairTravel((0, 0), camera) for side in nearest}, average)
        return find_regions(probability, self._config.mask, test.score, self._config.rigid.min_score)[0]

    def _camera(self, image: NDArray[np.uint8]) -> Camera:
        return assumed_camera(self.size, image.shape[1] / image.shape[0], self._config.rigid.focal_length)

    def _between(self, image: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> torch.Tensor:
        source, target = self.flow.features(image), self.flow.features(neighbour)
        return self.flow.estimate([source], [target], self.size).to(self._device)

    def _side(self, image: NDArray[np.uint8], neighbour: NDArray[np.uint8], *, later: bool) -> torch.Tensor:
        """Return a neighbour's flow as ``prepare_flow`` takes it, (1, 2, h, w) or with evidence (1, 7, h, w)."""
        flow = self._between(image, neighbour)
        if not takes_evidence(self._flow_input):
            return flow
        reverse = self._between(neighbour, image)
        there, back = (one[0].cpu().numpy() for one in (flow, reverse))
        here, other = (Texture.of(grey_image(one, self.size)).contrast for one in (image, neighbour))
        camera = self._camera(image)
        # The camera's motion is estimated from the flow of the later frame.
        travel = (
            estimate_travel(back, other, camera).reverse(there, here) if later else estimate_travel(there, here, camera)
        )
        return torch.cat((flow, evidence(flow, reverse, [travel])), 1)

    def _votes(self, images: Sequence[NDArray[np.uint8]], index: int) -> list[NDArray[np.float32]]:
        window = self._config.window
        offsets = [k * window.stride for k in (*range(-window.past, 0), *range(1, window.future + 1))]
        sides = {
            offset: self._side(images[index], images[index + offset], later=offset > 0)
            for offset in offsets
            if 0 <= index + offset < len(images)
        }
        if not sees_both_sides(self._flow_input):
            return [self._mask(images[index], side) for side in sides.values()]
        least = self._config.gate.min_motion
        moving = {offset: side for offset, side in sides.items() if float(split_flow(side[:, :2]).motion[0]) >= least}
        # Of two equally distant neighbours, the later one decides whether anything moves.
        latest = {abs(offset): offset for offset in sorted(sides)}
        return [
            self._mask(images[index], torch.cat((sides[offset], moving.get(-offset, reverse_side(sides[offset]))), 1))
            for offset in latest.values()
        ]

    def _mask(self, image: NDArray[np.uint8], flow: torch.Tensor) -> NDArray[np.float32]:
        prepared = prepare_flow(flow, self._flow_input)
        mask = resolve_polarity(self._generator(network_image(image, self.size, self._device)[None], prepared.flow))
        moves = float(prepared.motion[0]) >= self._config.gate.min_motion
        return np.asarray(mask[0, 0].cpu().numpy() * moves, np.float32)


class FrameTask:
    """The detector as in the node, on an endless back-and-forth loop over images (N, H, W, 3), uint8 RGB."""

    def __init__(self, config: DetectorConfig, images: NDArray[np.uint8]) -> None:
        self.device = choose_device(config.device)
        self.on_gpu = self.device.type == 'cuda'
        self.watch = Stopwatch(self.on_gpu)
        # Untimed calls after ``fill``, in which algorithms are chosen and CUDA graphs captured.
        self.warm_up = 8 if self.on_gpu else 2
        self.mask: NDArray[np.uint8] | None = None
        """The latest mask."""
        forward = [self.message(np.asarray(image), 'bgr8') for image in images]
        self.incoming = cycle(forward + forward[-2:0:-1])
        window = config.window
        self.fill = max(window.past, window.future) * window.stride
        """Calls until the window is full; before, frames have fewer pairs."""
        self.facts: dict[str, Any] = {'window': f'-{window.past}..+{window.future}'}
        """Facts for the report."""
        self.prepare(config)

    def message(self, pixels: NDArray[np.uint8], encoding: str) -> Any:
        """Return an object with the fields of a sensor_msgs/Image, from pixels (H, W, 3) RGB or (H, W)."""
        return SimpleNamespace(**encode_image(pixels, encoding)._asdict(), is_bigendian=0)

    def prepare(self, config: DetectorConfig) -> None:
        """Create the detector."""
        self._detector = build_detector(config, self.watch)
        # As the node with its default option, estimate: refined.
        self._detector.refined_only = True
        self._stamp = 0
        self._publisher = ThreadPoolExecutor(1)
        self._publishing: Future[None] | None = None
        detector = self._detector
        self.facts |= {'engine': detector.engine.name, 'flow': detector.flow.name, 'size': detector.size}

    def call(self) -> None:
        """Process the next message; complete masks are published in a thread during the next call, as in the node."""
        latency = ExitStack()
        latency.enter_context(self.watch('latency'))
        with self.watch('decode'):
            image = decode_image(next(self.incoming))
        self._stamp += FRAME_NANOSECONDS
        results = self._detector.step(image, self._stamp).results
        self.settle()
        self._publishing = self._publisher.submit(self._publish, results, latency)

    def settle(self) -> None:
        """Wait for the last published mask, if any."""
        if self._publishing is not None:
            self._publishing.result()

    def _publish(self, results: Sequence[Result], latency: ExitStack) -> None:
        with latency:
            for result in results:
                if result.estimate == 'refined':
                    with self.watch('refinement and regions'):
                        self.mask = result.mask
                    with self.watch('encode'):
                        self.message(self.mask, 'mono8')


class NaiveTask(FrameTask):
    """The same task with :class:`NaivePipeline`."""

    def prepare(self, config: DetectorConfig) -> None:
        """Create the pipeline, and read the frames before its first mask."""
        if config.threads:
            torch.set_num_threads(config.threads)
        self.fill, self.warm_up, self._publishing = 0, 1, None
        self._pipeline = NaivePipeline(config)
        self._ahead = config.window.future * config.window.stride
        kept = config.window.past * config.window.stride + 1 + self._ahead
        first = [decode_image(next(self.incoming)) for _ in range(kept - 1)]
        self._images: deque[NDArray[np.uint8]] = deque(first, maxlen=kept)
        engine = f'naive, eager float32 on {self.device}'
        self.facts |= {'engine': engine, 'flow': self._pipeline.flow.name, 'size': self._pipeline.size}

    def call(self) -> None:
        """Read the next message and compute the mask of the frame whose neighbours are complete."""
        self._images.append(decode_image(next(self.incoming)))
        self.mask = self._pipeline.mask(self._images, len(self._images) - 1 - self._ahead)
        self.message(self.mask, 'mono8')
