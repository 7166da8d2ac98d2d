"""The training of PWC-Net: losses, end-point errors, the network in training, and the run of ``train flow``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.base import FlowBackend, resize_flow
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.media.pictures import read_flow
from moving_object_detector.media.sources import read_image
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.pwcnet import COST_RADIUS, FLOW_DIVISOR, PWCNet
from moving_object_detector.networks.weights import save_network
from moving_object_detector.training.config import FlowTrainConfig
from moving_object_detector.training.flow_pairs import FlowPair, FlowPairOptions, RenderedFlowPairs
from moving_object_detector.training.loop import fit
from moving_object_detector.training.run import Outcome, flow_identity, write_card
from moving_object_detector.training.setup import Setup, session
from moving_object_detector.training.stages import AveragedStage

LEVEL_WEIGHTS: Final = (1.28, 0.64, 0.32, 0.32, 0.32)
"""For levels 2 to 6 and means over pixels; the paper's 0.005, 0.01, 0.02, 0.08, 0.32 are for sums."""
MATCHED_LEVELS: Final = (2, 3, 4)
"""Pyramid levels of the matching loss; on coarser ones nearly all motion is less than a cell."""
SHARPNESS: Final = 10.0
"""Inverse temperature of the softmax over cosines."""
SEEN_SHARE: Final = 0.99
"""Share of a cell that must be visible in both frames."""
RATE_RISE: Final = 0.05
RATE_START: Final = 1 / 25
RATE_END: Final = 1 / 25e4
UNKNOWN: Final = 1e9
"""Flow components of at least this are unknown (Middlebury's convention)."""
HELD_OUT_SEED: Final = 2**31
"""Offset of the seed of held-out scenes, which no run trains on."""


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return a step's learning rate: linear from ``peak`` / 25 to ``peak`` in 5 % of the run, then to nearly 0.

    The one-cycle schedule of Smith and Topin (2019) with RAFT's settings.
    """
    top = max(RATE_RISE * steps - 1, 0.0)
    # A run of a single step uses the peak.
    return float(np.interp(step, (0, top, max(steps - 1, top + 1)), (peak * RATE_START, peak, peak * RATE_END)))


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Return the end-point error of each vector, (B, 2, H, W) to (B, 1, H, W)."""
    # The gradient of a plain norm is undefined at 0.
    return ((flow - truth).square().sum(1, keepdim=True) + 1e-12).sqrt()


def multi_scale_error(levels: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Return the training loss of PWC-Net (section 3 of the paper), a scalar.

    It is the weighted sum over levels 2 to 6, (B, 2, H/4, W/4) to (B, 2, H/64, W/64), of the mean end-point error, in
    units of the network's output: pixels at the size of the exact flow ``truth``, (B, 2, H, W), divided by 20.
    """
    errors = []
    for weight, level in zip(LEVEL_WEIGHTS, levels, strict=True):
        target = functional.adaptive_avg_pool2d(truth / FLOW_DIVISOR, (level.shape[-2], level.shape[-1]))
        errors.append(weight * end_point_error(level.float(), target).mean())
    return torch.stack(errors).sum()


def multiplied_cost_volume(a: Tensor, b: Tensor) -> Tensor:
    """Compute :func:`~moving_object_detector.networks.pwcnet.cost_volume` by one matrix product per row of pixels.

    This takes ten times the necessary multiplications, but a tenth of the time on a GPU: one pass over memory instead
    of 81 forward and about 400 backward.
    """
    batch, channels, height, width = a.shape
    side = 2 * COST_RADIUS + 1
    wide = width + side - 1
    # The nine rows of ``b`` around each row of ``a``, concatenated.
    rows = functional.pad(b, (COST_RADIUS,) * 4).unfold(2, side, 1).permute(0, 2, 1, 4, 3)
    products = a.permute(0, 2, 3, 1) @ rows.reshape(batch, height, channels, side * wide)
    # A view of the products of each pixel with its nine neighbours in each of these rows.
    steps = (height * width * side * wide, wide, 1, width * side * wide, side * wide + 1)
    near = products.as_strided((batch, side, side, height, width), steps)
    return near.reshape(batch, side * side, height, width) / channels


def matching_loss(pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor], flow: Tensor, seen: Tensor) -> Tensor:
    """Return the error of matching each feature of the first frame among the 81 of its cost volume, a scalar.

    It is the cross-entropy of a softmax over cosines; the target is the exact displacement, bilinear over four cells.
    The loss on flow alone does not start this: features need not be comparable while the decoder ignores the cost
    volume, and the decoder has no use for it while they are not. Takes the features of both frames from
    :meth:`PWCNet.pyramid`, exact flow (B, 2, H, W) in pixels, and visibility in both frames, (B, 1, H, W) bool.
    """
    terms = []
    for level in MATCHED_LEVELS:
        first, second = (functional.normalize(pyramid[level - 1].float()) for pyramid in (pyramid1, pyramid2))
        # The cost volume is a mean over channels, a cosine is a sum.
        cosines = multiplied_cost_volume(first, second) * first.shape[1]
        chances = functional.log_softmax(SHARPNESS * cosines, 1)
        size = (first.shape[-2], first.shape[-1])
        target, share = (functional.adaptive_avg_pool2d(one, size) for one in (flow, seen.float()))
        target = target / 2**level
        counts = (share > SEEN_SHARE) & (target.abs() <= COST_RADIUS).all(1, keepdim=True)
        entropy = -_at(chances, target)
        # Averaged per pair first, so that pairs weigh alike however many of their cells are visible.
        terms.append(((entropy * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1)).mean())
    return torch.stack(terms).mean()


def _at(volume: Tensor, displacement: Tensor) -> Tensor:
    """Sample a volume (B, 81, h, w) bilinearly at displacements (B, 2, h, w) in cells, to (B, 1, h, w)."""
    cells = volume.permute(0, 2, 3, 1).reshape(-1, 1, 2 * COST_RADIUS + 1, 2 * COST_RADIUS + 1)
    places = (displacement / COST_RADIUS).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    values = functional.grid_sample(cells, places, padding_mode='border', align_corners=True)
    return values.reshape_as(volume[:, :1])


# Validation ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A pair of frames with its flow."""

    name: str
    first: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    second: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    flow: NDArray[np.float32]
    """(H, W, 2), pixels; 1e9 or more where it is unknown."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.flow.shape[0], self.flow.shape[1]


class Errors(NamedTuple):
    """Mean end-point errors of one sample, pixels: of PWC-Net, of DIS medium, and of zero flow."""

    name: str
    network: float
    dis: float
    still: float


def held_out_samples(seed: int, count: int, options: FlowPairOptions) -> list[Sample]:
    """Render pairs that no training sees, the same for the same arguments."""
    pairs = RenderedFlowPairs(HELD_OUT_SEED + seed, options)
    samples = []
    for index in range(count):
        pair = pairs[index * options.pairs_per_scene]
        first, second, flow = (np.ascontiguousarray(item.numpy().transpose(1, 2, 0)) for item in pair[:3])
        samples.append(Sample(f'scene {index}', first, second, flow))
    return samples


def folder_samples(folder: Path) -> list[Sample]:
    """Read pairs from the subfolders of a folder, each with frame1.*, frame2.* and one .flo file; raises UserError."""
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; validation.folder takes a folder of folders, one per pair')
    samples = [_read_pair(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
    if not samples:
        raise UserError(f'{folder}: no pair here; each is a folder with frame1.png, frame2.png and a .flo file')
    return samples


def _read_pair(folder: Path) -> Sample:
    found = {}
    for pattern in ('frame1.*', 'frame2.*', '*.flo'):
        files = list(folder.glob(pattern))
        if len(files) != 1:
            raise UserError(f'{folder}: has {len(files)} of {pattern}, but needs exactly one')
        found[pattern] = files[0]
    first, second = read_image(found['frame1.*']), read_image(found['frame2.*'])
    flow = read_flow(found['*.flo'])
    if not first.shape[:2] == second.shape[:2] == flow.shape[:2]:
        raise UserError(f'{folder}: sizes differ: {first.shape[:2]} and {second.shape[:2]}, flow {flow.shape[:2]}')
    return Sample(folder.name, first, second, flow)


def sample_error(backend: FlowBackend, sample: Sample) -> float:
    """Return the mean end-point error of a backend over the pixels with known flow, pixels."""
    flow = backend.estimate([backend.features(sample.first)], [backend.features(sample.second)], sample.size)
    return _error(flow[0].float().cpu().numpy().transpose(1, 2, 0), sample.flow)


def _error(flow: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    known = (np.abs(truth) < UNKNOWN).all(2)
    return float(np.linalg.norm((flow - truth)[known].astype(np.float64), axis=1).mean())


def network_error(network: nn.Module, sample: Sample, device: torch.device) -> float:
    """Return PWC-Net's end-point error, pixels."""
    return sample_error(PwcFlow(cast('PWCNet', network), sample.size, device), sample)


def compare(network: nn.Module, samples: Iterable[Sample], device: torch.device) -> list[Errors]:
    """Measure PWC-Net, DIS and zero flow on each sample."""
    return [
        Errors(
            sample.name,
            network_error(network, sample, device),
            sample_error(DisFlow(sample.size), sample),
            _error(np.zeros_like(sample.flow), sample.flow),
        )
        for sample in samples
    ]


def average(errors: Sequence[Errors], name: str) -> Errors:
    """Return the mean of several samples' errors."""
    return Errors(name, *(sum(column) / len(column) for column in zip(*(one[1:] for one in errors), strict=True)))


START_SCENES: Final = 8
"""Scenes whose first pairs set the scale of new weights."""
FLOW_LAYERS: Final = ('predict_flow', 'deconv', 'dc_conv7')
"""Layers that stay in float32: with the 8 bits of bfloat16 a flow of 40 pixels has steps of a quarter of a pixel."""
STILL: Final = 0.01
"""Factor on new weights that predict flow; with PWC-Net's own initialisation the first flow is 30 pixels of noise."""
LEAST_DEVIATION: Final = 1e-3
"""Floor of a channel's deviation, so that constant channels are not amplified."""


class TrainedPWCNet(PWCNet):
    """PWC-Net for training; under autocast the layers that predict flow compute in float32.

    Without autocast it equals PWC-Net up to the order of sums; parameters and their names are the same.
    """

    def _apply_layer(self, name: str, x: Tensor) -> Tensor:
        if not name.startswith(FLOW_LAYERS):
            return super()._apply_layer(name, x)
        with torch.autocast(x.device.type, enabled=False):
            return super()._apply_layer(name, x.float())

    def _cost_volume(self, a: Tensor, b: Tensor) -> Tensor:
        return multiplied_cost_volume(a, b)

    def _dense(self, level: int, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            # Concatenation with float32 flow has made it float32, which would slow the whole decoder.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        return super()._dense(level, x)

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Initialise new weights from images (B, 3, H, W).

        Each channel of the pyramid gets mean 0 and variance 1 before its activation (after Mishkin and Matas, ICLR
        2016): with PWC-Net's own initialisation, features are mostly brightness, and the cost volume of level 2 matches
        no better than chance. The layers that predict flow start near zero.
        """
        layers = [module for name, module in self.named_modules() if re.fullmatch(r'conv[1-6](a|aa|b)\.0', name)]
        hooks = [layer.register_forward_hook(_standardise) for layer in layers]
        self.pyramid(images)
        for hook in hooks:
            hook.remove()
        for name, parameter in self.named_parameters():
            if name.startswith(('predict_flow', 'dc_conv7')):
                parameter.mul_(STILL)


def _standardise(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Normalise a layer's weights and its output by the statistics of the output."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    deviation, mean = torch.std_mean(output, (0, 2, 3))
    deviation = deviation.clamp_min(LEAST_DEVIATION)
    layer.weight.div_(deviation[:, None, None, None])
    layer.bias.copy_((layer.bias - mean) / deviation)
    return (output - mean[:, None, None]) / deviation[:, None, None]


def network_input(image: Tensor) -> Tensor:
    """Convert uint8 RGB (B, 3, H, W) to PWC-Net's input: BGR in [0, 1], channels last."""
    return (image.flip(1).float() / 255.0).contiguous(memory_format=torch.channels_last)


class FlowStage(AveragedStage):
    """The only stage of ``train flow``; trains the network in place."""

    name = 'flow'
    picture = 'pairs'
    network: TrainedPWCNet

    def __init__(
        self,
        setup: Setup,
        network: TrainedPWCNet,
        rendered: Dataset[FlowPair],
        held_out: Sequence[Sample],
        config: FlowTrainConfig,
    ) -> None:
        super().__init__(setup, network, rendered, config.training)
        setup.place(network, self.average)
        self.held_out = held_out
        """Rendered pairs that training never sees."""
        self._config = config

    def step(self, step: int, batch: FlowPair) -> Mapping[str, float | Tensor]:
        """Update the network."""
        pair, training = FlowPair(*self.setup.sent(batch)), self._config.training
        with self.setup.autocast():
            pyramids = [self.network.pyramid(network_input(frames)) for frames in pair[:2]]
            levels = self.network.decode_levels(*pyramids)
        loss, terms = multi_scale_error(levels, pair.flow), {}
        if training.matching:
            matching = matching_loss(pyramids[0], pyramids[1], pair.flow, pair.seen)
            loss = loss + training.matching * (1 - step / self.steps) * matching
            terms['matching'] = matching.detach()
        norm = self.learn(loss, one_cycle(step, self.steps, training.learning_rate))
        flow = resize_flow(levels[0].detach().float() * (FLOW_DIVISOR / 4), (pair.flow.shape[-2], pair.flow.shape[-1]))
        self.seen = {'first': pair.first, 'second': pair.second, 'truth': pair.flow, 'flow': flow}
        error = end_point_error(flow, pair.flow).mean()
        values: dict[str, float | Tensor] = {'loss': loss.detach(), 'gradient': norm, 'error': error, **terms}
        done = step + 1
        if done % self._config.validation.every == 0 or done == self.steps:
            errors = [network_error(self.average.module, sample, self.setup.device) for sample in self.held_out]
            values['held_out'] = sum(errors) / len(errors)
        return values


# A run ---------------------------------------------------------------------------------------------------------------


def make_stage(config: FlowTrainConfig, setup: Setup) -> FlowStage:
    """Return the run's only stage, with the network of start.model or a new one initialised on rendered pairs."""
    training, seed = config.training, config.run.seed
    options = FlowPairOptions((training.height, training.width), training.largest_gap, training.pairs_per_scene)
    rendered = RenderedFlowPairs(seed, options)
    torch.manual_seed(seed)
    network = TrainedPWCNet()
    if config.start.model:
        network.load_state_dict(load_flow_network(config.start.model, 'pwcnet').state_dict())
    else:
        batch = [rendered[number * training.pairs_per_scene] for number in range(START_SCENES)]
        network.start(network_input(torch.stack([image for pair in batch for image in pair[:2]])))
    return FlowStage(setup, network, rendered, held_out_samples(seed, config.validation.scenes, options), config)


def run_flow_training(config: FlowTrainConfig, out: Path, command: Sequence[str]) -> Outcome:
    """Train PWC-Net, or resume the run in ``out``; like :func:`run_training`."""
    # Read first, so that errors in the files show before the training.
    pairs = folder_samples(Path(config.validation.folder).expanduser()) if config.validation.folder else []
    training, run = config.training, config.run
    with session(out, run) as setup:
        # All batches have the same size, so cuDNN's search for fast kernels pays.
        torch.backends.cudnn.benchmark = setup.device.type == 'cuda'
        stage = make_stage(config, setup)
        fit([stage], out, flow_identity(config), run)
        network = PWCNet()
        network.load_state_dict(stage.network.state_dict())
        scenes = compare(network, stage.held_out, setup.device)
        measured = [average(scenes, f'{len(scenes)} rendered pairs, held out'), *compare(network, pairs, setup.device)]
    model = out / f'{config.name}.safetensors'
    about = {name: str(getattr(training, name)) for name in ('steps', 'batch', 'height', 'width')}
    save_network(network.cpu(), model, {'training': 'rendered scenes', **about, 'seed': str(run.seed)})
    rows = {
        'network': 'PWC-Net (DenseNet decoder, context network), 9,374,340 parameters, float32',
        'input': 'BGR in [0, 1], height and width multiples of 64',
        'trained on': f'rendered pairs of {training.height}x{training.width} with exact flow, no real image',
        'steps': f'{training.steps} of {training.batch} pairs, {run.precision}',
    }
    errors = ['| end-point error, pixels | this network | DIS medium | nothing moves |', '|---|---|---|---|']
    errors += [f'| {row.name} | {row.network:.2f} | {row.dis:.2f} | {row.still:.2f} |' for row in measured]
    card = write_card(model, config, rows, errors, 'train flow', command)
    told = [f'{row.name}: {row.network:.2f} px, DIS {row.dis:.2f}, nothing moves {row.still:.2f}' for row in measured]
    return Outcome(model, card, told)
