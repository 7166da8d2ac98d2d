"""The training of PWC-Net as a task of the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, PWCNet
from moving_object_detector.networks.resize import resize_flow
from moving_object_detector.training.average import averaged
from moving_object_detector.training.batches import batches
from moving_object_detector.training.distributed import Processes
from moving_object_detector.training.flow.census import census_loss, smoothness
from moving_object_detector.training.flow.config import FlowTrainConfig
from moving_object_detector.training.flow.losses import end_point_error, multi_scale_error
from moving_object_detector.training.flow.matching import matching_loss
from moving_object_detector.training.flow.network import TrainedPWCNet
from moving_object_detector.training.flow.pairs import FlowPair
from moving_object_detector.training.flow.pictures import flow_picture
from moving_object_detector.training.flow.schedule import one_cycle
from moving_object_detector.training.flow.validate import Sample, mean_error
from moving_object_detector.training.flow.video_pairs import VideoPair
from moving_object_detector.training.parts import mixed_precision, place, update


@dataclass(frozen=True)
class FlowData:
    """What is learnt from and measured on."""

    rendered: Dataset[FlowPair]
    video: Dataset[VideoPair] | None
    """None where there is no footage."""
    held_out: tuple[Sample, ...]


def network_input(image: Tensor) -> Tensor:
    """Turn uint8 RGB (B, 3, H, W) into what PWC-Net takes: BGR in [0, 1], channels last."""
    return (image.flip(1).float() / 255.0).contiguous(memory_format=torch.channels_last)


class FlowTask:
    """Trains PWC-Net (see ``loop.Task``).

    Args:
        network: Changed in place; its moving average is :attr:`model`.
        data: Rendered pairs, real pairs, held-out pairs.
        config: All options.
        group: The processes that train together.
        device: Where the network runs.

    """

    name = 'flow'

    def __init__(
        self,
        network: TrainedPWCNet,
        data: FlowData,
        config: FlowTrainConfig,
        group: Processes,
        device: torch.device,
    ) -> None:
        self.steps = config.training.steps
        self._network = network
        place([network], device, group)
        self._autocast = mixed_precision(device, config.run.precision)
        self._data = data
        self._config = config
        self._group = group
        self._device = device
        self._averaged = averaged(self._network, config.training.average)
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), config.training.learning_rate, weight_decay=config.training.weight_decay
        )
        self._shown: dict[str, Tensor] = {}

    @property
    def held_out(self) -> tuple[Sample, ...]:
        """The rendered pairs that training never sees."""
        return self._data.held_out

    def model(self) -> PWCNet:
        """Return the averaged weights, on the CPU."""
        return cast('TrainedPWCNet', self._averaged.module).plain()

    def batches(self, first_step: int) -> Iterable[tuple[FlowPair, VideoPair | None]]:
        """Yield a batch of rendered pairs and one of real pairs."""
        training, video, run = self._config.training, self._config.video, self._config.run
        pin = self._device.type == 'cuda'
        span = (first_step, self.steps)
        rendered = batches(self._data.rendered, *span, training.batch, self._group, run.workers, pin=pin)
        if self._data.video is None:
            return zip(rendered, repeat(None))
        # Reading from the cache takes little beside rendering.
        few = -(-run.workers // 4)
        real = batches(self._data.video, *span, video.batch, self._group, few, pin=pin)
        return zip(rendered, real, strict=True)

    def step(self, step: int, batch: tuple[FlowPair, VideoPair | None]) -> Mapping[str, float | Tensor]:
        """Update the network."""
        rendered = FlowPair(*self._sent(batch[0]))
        video = VideoPair(*self._sent(batch[1])) if batch[1] is not None else None
        training = self._config.training
        for options in self._optimiser.param_groups:
            options['lr'] = one_cycle(step, self.steps, training.learning_rate)
        terms = self._terms(step, rendered, video)
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
        norm = update(loss, self._network, self._optimiser, self._group, training.clip)
        self._averaged.update_parameters(self._network)
        values: dict[str, float | Tensor] = {'loss': loss.detach(), 'gradient': norm}
        values['error'] = end_point_error(self._shown['flow'], self._shown['truth']).mean()
        values.update({name: value.detach() for name, (_, value) in terms.items() if name != 'rendered'})
        done = step + 1
        if done % self._config.validation.every == 0 or done == self.steps:
            values['held_out'] = mean_error(self._averaged.module, self._data.held_out, self._device)
        return values

    def _sent(self, items: Iterable[Tensor]) -> list[Tensor]:
        return [item.to(self._device, non_blocking=True) for item in items]

    def _terms(self, step: int, rendered: FlowPair, video: VideoPair | None) -> dict[str, tuple[float, Tensor]]:
        """Return weight and value of each term of the loss."""
        parts = [rendered] if video is None else [rendered, video]
        first, second = (network_input(torch.cat([part[place] for part in parts])) for place in (0, 1))
        count = rendered.first.shape[0]
        options = self._config.video
        with self._autocast():
            pyramids = self._network.pyramid(first), self._network.pyramid(second)
            levels = self._network.decode_levels(*pyramids)
            back: Tensor | None = None
            if video is not None and options.census > 0:
                real1, real2 = ([level[count:] for level in pyramid] for pyramid in pyramids)
                back = self._network.decode(real2, real1)
        terms = {'rendered': (1.0, multi_scale_error([level[:count] for level in levels], rendered.flow))}
        matching = self._config.training.matching * (1 - step / self.steps)
        if matching > 0:
            one, other = ([level[:count] for level in pyramid] for pyramid in pyramids)
            terms['matching'] = (matching, matching_loss(one, other, rendered.flow, rendered.seen))
        self._show(rendered, levels[0][:count])
        if video is None:
            return terms
        if options.distillation > 0:
            terms['distillation'] = (
                options.distillation,
                multi_scale_error([level[count:] for level in levels], video.flow),
            )
        if back is not None:
            terms |= self._census_terms(first[count:], second[count:], levels[0][count:], back)
        return terms

    def _census_terms(
        self, first: Tensor, second: Tensor, forward: Tensor, backward: Tensor
    ) -> dict[str, tuple[float, Tensor]]:
        size = (first.shape[-2], first.shape[-1])
        # resize_flow takes vectors in pixels of the small field.
        there, back = (resize_flow(flow.float() * (FLOW_DIVISOR / 4), size) for flow in (forward, backward))
        first, second = first.flip(1), second.flip(1)
        weight = self._config.video.census
        census = (census_loss(first, second, there, back) + census_loss(second, first, back, there)) / 2
        smooth = (smoothness(there, first) + smoothness(back, second)) / 2
        return {'census': (weight, census), 'smoothness': (weight * self._config.video.smoothness, smooth)}

    def _show(self, pair: FlowPair, flow: Tensor) -> None:
        full = resize_flow(flow.detach().float() * (FLOW_DIVISOR / 4), (pair.flow.shape[-2], pair.flow.shape[-1]))
        self._shown = {'first': pair.first, 'second': pair.second, 'flow': full, 'truth': pair.flow}

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            'network': self._network.state_dict(),
            'averaged': self._averaged.state_dict(),
            'optimiser': self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self._network.load_state_dict(state['network'])
        self._averaged.load_state_dict(state['averaged'])
        self._optimiser.load_state_dict(state['optimiser'])

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return a picture of the last batch's first pairs."""
        return {'pairs': flow_picture(**self._shown)} if self._shown else {}

    def finish(self) -> None:
        """Do nothing: :meth:`model` gives the result."""
