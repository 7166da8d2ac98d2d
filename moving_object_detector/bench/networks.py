"""The networks by themselves, on a fixed batch, and beside them a product of matrices by the same engine."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from moving_object_detector.bench.cases import EAGER, INT8, Case
from moving_object_detector.bench.task import Task
from moving_object_detector.detection.build import create_flow, generator_for, load_generator
from moving_object_detector.engines.base import Engine, Runner, describe, outputs_of
from moving_object_detector.engines.cache import EngineCache
from moving_object_detector.engines.create import choose_device, create_engine
from moving_object_detector.networks.pwcnet import padded

PRODUCT: Final = {'cpu': 2048, 'cuda': 8192}
"""Rows and columns of the matrices whose product is timed: enough for the machine to reach its rate."""


class NetworkTask(Task):
    """What the networks' tasks share."""

    def __init__(self, case: Case) -> None:
        config = case.config
        super().__init__(choose_device(config.device))
        self.engine: Engine | None = None
        if case.variant != EAGER:
            self.engine = create_engine(
                config.engine, self.device, precision=config.precision, threads=config.threads, cache=EngineCache()
            )
        elif config.threads:
            torch.set_num_threads(config.threads)
        self.pairs = case.group.pairs
        self.rng = torch.Generator().manual_seed(1)
        self.facts = {'pairs': self.pairs}
        # What int8 means is in the network: nobody has quantised a plain matrix.
        if case.variant.precision != INT8:
            length = PRODUCT[self.device.type]
            factor = torch.randn(length, length, generator=self.rng)
            multiply = self.load(nn.Linear(length, length, bias=False), (factor,), 'matrix product')
            self.product = partial(multiply, factor.to(self.device))
            self.facts['product flops'] = 2 * length**3

    def load(self, module: nn.Module, examples: tuple[Tensor, ...], label: str) -> Runner:
        """Make a network ready by the case's engine."""
        if self.engine:
            return self.engine.load(module, examples, label)
        module = module.eval().to(self.device)

        @torch.inference_mode()
        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return outputs_of(module(*inputs))

        return run

    def note(self, **facts: Any) -> None:
        """Put down what the network is, once it is loaded and the engine knows its precision."""
        self.facts |= {'engine': describe(self.engine) if self.engine else f'eager float32 on {self.device}', **facts}


class GeneratorTask(NetworkTask):
    """The masks of a frame's pairs, as one batch."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        config = case.config
        generator, size, *_ = load_generator(config)
        if self.engine:
            generator = generator_for(self.engine, generator, config)
        image = torch.rand(self.pairs, 3, *size, generator=self.rng) - 0.5
        flow = torch.randn(self.pairs, 2, *size, generator=self.rng)
        self._run = self.load(generator, (image, flow), 'generator')
        self._inputs = image.to(self.device), flow.to(self.device)
        self.note(size=size)

    def call(self) -> None:
        """Compute the masks."""
        self._run(*self._inputs)


class PwcTask(NetworkTask):
    """A frame's pyramid and the flows of its pairs."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        config = case.config.flow
        self._flow = create_flow(config, self.device, self.engine, self.pairs)
        self._size = height, width = padded((config.height, config.width))
        self._image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
        self._other = self._flow.features(self._image)
        self.note(size=self._size)

    def call(self) -> None:
        """Compute the pyramid, then the flows."""
        with self.watch('pyramid'):
            features = self._flow.features(self._image)
        with self.watch('decoder'):
            self._flow.estimate([features] * self.pairs, [self._other] * self.pairs, self._size)
