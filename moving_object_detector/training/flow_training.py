"""PWC-Net as it is trained, its stage, and a run of ``train flow`` from options to model file and card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from moving_object_detector.common.files import write_atomically
from moving_object_detector.flow.base import resize_flow
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, PWCNet
from moving_object_detector.networks.weights import save_network
from moving_object_detector.training.cards import flow_identity, write_flow_card
from moving_object_detector.training.config import FlowTrainConfig
from moving_object_detector.training.flow_errors import (
    Sample,
    average,
    compare,
    end_point_error,
    folder_samples,
    held_out_samples,
    matching_loss,
    multi_scale_error,
    network_error,
    one_cycle,
)
from moving_object_detector.training.flow_pairs import FlowPair, FlowPairOptions, RenderedFlowPairs
from moving_object_detector.training.loop import fit
from moving_object_detector.training.run import Outcome
from moving_object_detector.training.setup import Setup, session
from moving_object_detector.training.stages import Stage, averaged

START_SCENES: Final = 8
"""Whose first pairs set the scale of new weights."""
FLOW_LAYERS: Final = ('predict_flow', 'deconv', 'dc_conv7')
"""They stay in float32: bfloat16 has 8 bits, so a flow of 40 pixels would come in steps of a quarter of a pixel."""
STILL: Final = 0.01
"""Scale of new weights that give flow; as PWC-Net draws them the first flow is some 30 pixels of noise."""
LEAST_DEVIATION: Final = 1e-3
"""A channel that is the same everywhere is not blown up."""


class TrainedPWCNet(PWCNet):
    """PWC-Net as it is trained; under autocast the layers that give flow compute in float32.

    Without autocast it is PWC-Net to the bit; parameters and their names are the same.
    """

    def _apply_layer(self, name: str, x: Tensor) -> Tensor:
        if not name.startswith(FLOW_LAYERS):
            return super()._apply_layer(name, x)
        with torch.autocast(x.device.type, enabled=False):
            return super()._apply_layer(name, x.float())

    def _dense(self, level: int, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            # Concatenated with float32 flow all of it has become float32, and would stay so through the decoder.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return super()._dense(level, x)

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Prepare new weights for learning, on images (B, 3, H, W).

        Each channel of the pyramid comes to have mean 0 and variance 1 before its activation (after Mishkin and Matas,
        ICLR 2016): as PWC-Net draws its weights, features are mostly the image's brightness, and the cost volume of
        level 2 tells no more of the motion than chance. The layers that give flow begin with nearly none.
        """
        layers = [module for name, module in self.named_modules() if re.fullmatch(r'conv[1-6](a|aa|b)\.0', name)]
        hooks = [layer.register_forward_hook(_standardise) for layer in layers]
        self.pyramid(images)
        for hook in hooks:
            hook.remove()
        for name, parameter in self.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(STILL)

    def plain(self) -> PWCNet:
        """Return a PWC-Net with copies of these weights, on the CPU."""
        network = PWCNet()
        network.load_state_dict({name: tensor.detach().cpu() for name, tensor in self.state_dict().items()})
        return network


def _standardise(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Normalise a layer, and what it gave, by its output statistics."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    deviation, mean = torch.std_mean(output, (0, 2, 3))
    deviation = deviation.clamp_min(LEAST_DEVIATION)
    layer.weight.div_(deviation[:, None, None, None])
    layer.bias.copy_((layer.bias - mean) / deviation)
    return (output - mean[:, None, None]) / deviation[:, None, None]


def network_input(image: Tensor) -> Tensor:
    """Turn uint8 RGB (B, 3, H, W) into what PWC-Net takes: BGR in [0, 1], channels last."""
    return (image.flip(1).float() / 255.0).contiguous(memory_format=torch.channels_last)


class FlowStage(Stage):
    """Trains a network in place; the moving average of its weights is :meth:`model`."""

    name = 'flow'
    picture = 'pairs'

    def __init__(
        self,
        setup: Setup,
        network: TrainedPWCNet,
        rendered: Dataset[FlowPair],
        held_out: Sequence[Sample],
        config: FlowTrainConfig,
    ) -> None:
        training = config.training
        super().__init__(setup, training.steps, training.batch, rendered)
        setup.place(network)
        self.held_out = held_out
        """Rendered pairs that training never sees."""
        self._config = config
        self._network = network
        self._average = averaged(network, training.average)
        self.networks = {'network': network, 'averaged': self._average}
        optimiser = torch.optim.AdamW(network.parameters(), training.learning_rate, weight_decay=training.weight_decay)
        self.optimisers = {'network': optimiser}

    def model(self) -> PWCNet:
        """Return the averaged weights, on the CPU."""
        return cast('TrainedPWCNet', self._average.module).plain()

    def step(self, step: int, batch: FlowPair) -> Mapping[str, float | Tensor]:
        """Update the network."""
        pair, training = FlowPair(*self.setup.sent(batch)), self._config.training
        for options in self.optimisers['network'].param_groups:
            options['lr'] = one_cycle(step, self.steps, training.learning_rate)
        with self.setup.autocast():
            pyramids = [self._network.pyramid(network_input(frames)) for frames in pair[:2]]
            levels = self._network.decode_levels(*pyramids)
        loss, terms = multi_scale_error(levels, pair.flow), {}
        weight = training.matching * (1 - step / self.steps)
        if weight > 0:
            terms['matching'] = matching_loss(pyramids[0], pyramids[1], pair.flow, pair.seen)
            loss = loss + weight * terms['matching']
        norm = self.update(loss, 'network', training.clip)
        self._average.update_parameters(self._network)
        flow = resize_flow(levels[0].detach().float() * (FLOW_DIVISOR / 4), (pair.flow.shape[-2], pair.flow.shape[-1]))
        self.seen = {'first': pair.first, 'second': pair.second, 'truth': pair.flow, 'flow': flow}
        values: dict[str, float | Tensor] = {'loss': loss.detach(), 'gradient': norm}
        values['error'] = end_point_error(flow, pair.flow).mean()
        values |= {name: value.detach() for name, value in terms.items()}
        done = step + 1
        if done % self._config.validation.every == 0 or done == self.steps:
            errors = [network_error(self._average.module, sample, self.setup.device) for sample in self.held_out]
            values['held_out'] = sum(errors) / len(errors)
        return values


# A run ---------------------------------------------------------------------------------------------------------------


def make_network(config: FlowTrainConfig, pairs: RenderedFlowPairs) -> TrainedPWCNet:
    """Return the network, from the file that the options name or with random weights from the seed, fitted to pairs."""
    torch.manual_seed(config.run.seed)
    network = TrainedPWCNet()
    if config.start.model:
        network.load_state_dict(load_flow_network(config.start.model, 'pwcnet').state_dict())
    else:
        batch = [pairs[number * config.training.pairs_per_scene] for number in range(START_SCENES)]
        network.start(network_input(torch.stack([image for pair in batch for image in pair[:2]])))
    return network


def make_stage(config: FlowTrainConfig, setup: Setup) -> FlowStage:
    """Return the run's one stage."""
    training = config.training
    options = FlowPairOptions((training.height, training.width), training.largest_gap, training.pairs_per_scene)
    rendered = RenderedFlowPairs(config.run.seed, options)
    held_out = held_out_samples(config.run.seed, config.validation.scenes, options)
    return FlowStage(setup, make_network(config, rendered), rendered, held_out, config)


def run_flow_training(config: FlowTrainConfig, out: Path, command: Sequence[str]) -> Outcome | None:
    """Train, or go on with the run that lies in ``out``; as :func:`run_training`."""
    # Read now, so that a mistake in them is not found after the training.
    pairs = folder_samples(Path(config.validation.folder).expanduser()) if config.validation.folder else []
    training, run = config.training, config.run
    with session(out, run.device, run.threads) as (group, device):
        # All batches have one size, for which cuDNN may choose its fastest kernels.
        torch.backends.cudnn.benchmark = device.type == 'cuda'
        stage = make_stage(config, Setup(group, device, run.workers, run.precision, run.seed))
        fit([stage], out, flow_identity(config), run, group)
        if not group.leads:
            return None
        network = stage.model()
        scenes = compare(network, stage.held_out, device)
        measured = [average(scenes, f'{len(scenes)} rendered pairs, held out'), *compare(network, pairs, device)]
        model, card = out / f'{config.name}.safetensors', out / f'{config.name}.md'
        about = {name: str(getattr(training, name)) for name in ('steps', 'batch', 'height', 'width')}
        save_network(network.cpu(), model, {'training': 'rendered scenes', **about, 'seed': str(run.seed)})
        write_atomically(card, write_flow_card(config, command, measured).encode())
        told = [
            f'{row.name}: {row.network:.2f} px, DIS {row.dis:.2f}, nothing moves {row.still:.2f}' for row in measured
        ]
        return Outcome(model, (str(card), *told))
