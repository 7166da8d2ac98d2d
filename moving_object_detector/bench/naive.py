"""The method without any thought of speed: what the detector is compared with, in masks and in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from moving_object_detector.detection.build import create_flow, load_generator
from moving_object_detector.detection.refinement import refine
from moving_object_detector.detection.regions import find_regions
from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.engines.create import choose_device
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.flow.upload import network_image

if TYPE_CHECKING:
    from moving_object_detector.detection.config import DetectorConfig


class NaivePipeline:
    """Equation 14 of the paper as it stands: each frame anew with each of its neighbours, one pair after the other.

    In float32 by eager PyTorch, with nothing kept from one pair to the next.

    Args:
        config: As the detector's; ``engine`` and ``precision`` are not looked at.

    """

    def __init__(self, config: DetectorConfig) -> None:
        self._device = choose_device(config.device)
        generator, self._size, _, self._flow_input = load_generator(config)
        self._generator = generator.eval().to(self._device)
        self._flow = create_flow(config.flow, self._device)
        self._config = config

    @torch.inference_mode()
    def mask(self, images: Sequence[NDArray[np.uint8]], index: int) -> NDArray[np.uint8]:
        """Return the mask of ``images[index]``, uint8 (H, W) of 0 and 255, from those of its neighbours that exist."""
        window = self._config.window
        offsets = [k * window.stride for k in (*range(-window.past, 0), *range(1, window.future + 1))]
        neighbours = [images[index + k] for k in offsets if 0 <= index + k < len(images)]
        average = np.mean([self._vote(images[index], neighbour) for neighbour in neighbours], axis=0)
        probability = refine(average, images[index], self._config.refinement)
        return find_regions(probability, self._config.mask)[0]

    def _vote(self, image: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> NDArray[np.float32]:
        source, target = self._flow.features(image), self._flow.features(neighbour)
        flow = self._flow.estimate([source], [target], self._size).to(self._device)
        prepared = prepare_flow(flow, self._flow_input)
        mask = resolve_sign(self._generator(self._network_image(image), prepared.flow))
        moves = float(prepared.motion[0]) >= self._config.gate.min_motion
        return np.asarray(mask[0, 0].cpu().numpy() * moves, np.float32)

    def _network_image(self, image: NDArray[np.uint8]) -> torch.Tensor:
        return network_image(image, self._size, self._device)[None]
