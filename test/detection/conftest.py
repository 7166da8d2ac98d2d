from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.detection.config import DetectorConfig
from moving_object_detector.detection.detector import Detector
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.synthetic.random_scene import SceneOptions, random_scene

SIZE = (32, 64)


class CountingFlow(DisFlow):
    """DIS that remembers which pairs it was asked for, by a number painted into each frame's corner."""

    def __init__(self, size: tuple[int, int], preset: str) -> None:
        super().__init__(size, preset)
        self.batches: list[list[tuple[int, int]]] = []
        self.prepared = 0

    def features(self, image: NDArray[np.uint8], before: Any = None) -> Any:
        self.prepared += 1
        return int(image[0, 0, 0]), super().features(image)

    def estimate(self, sources: Sequence[Any], targets: Sequence[Any], size: tuple[int, int]) -> Tensor:
        self.batches.append([(source[0], target[0]) for source, target in zip(sources, targets, strict=True)])
        return super().estimate([source[1] for source in sources], [target[1] for target in targets], size)


@pytest.fixture(scope='session')
def generator() -> Generator:
    """Random weights, whose masks differ strongly from pixel to pixel."""
    torch.manual_seed(3)
    generator = Generator().eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(60.0)
    return generator


@pytest.fixture
def make_detector(generator: Generator) -> Callable[..., Detector]:
    def make(config: DetectorConfig, flow_size: tuple[int, int] = (64, 128), preset: str = 'fast') -> Detector:
        return Detector(
            CountingFlow(flow_size, preset),
            MaskEngine(TorchEngine(torch.device('cpu')), generator, SIZE),
            SIZE,
            'residual',
            config,
        )

    return make


@pytest.fixture(scope='session')
def clip() -> list[NDArray[np.uint8]]:
    """Fourteen frames of a scene; frame n has n in its corner pixel."""
    scene = random_scene(21, SceneOptions(size=(64, 128)))
    frames = [scene.image(time) for time in range(14)]
    for number, frame in enumerate(frames):
        frame[0, 0] = number
    return frames
