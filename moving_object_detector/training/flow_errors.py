"""Errors of flow: what PWC-Net learns from, and how good flow is on held-out scenes and on pairs of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.media.pictures import read_flow
from moving_object_detector.media.sources import read_image
from moving_object_detector.networks.pwcnet import FLOW_DIVISOR, PWCNet, cost_volume
from moving_object_detector.networks.pwcnet import RADIUS as COST_RADIUS
from moving_object_detector.training.flow_pairs import FlowPairOptions, RenderedFlowPairs

LEVEL_WEIGHTS: Final = (1.28, 0.64, 0.32, 0.32, 0.32)
"""Of levels 2 to 6. The paper's 0.005, 0.01, 0.02, 0.08, 0.32 are for sums over pixels, these for means."""
MATCHED_LEVELS: Final = (2, 3, 4)
"""Of the pyramid; on coarser ones nearly all motion is under a cell."""
SHARPNESS: Final = 10.0
"""Factor of the cosine before the softmax."""
SEEN_SHARE: Final = 0.99
"""Share of a cell that must be in view in both frames."""
RATE_RISE: Final = 0.05
RATE_START: Final = 1 / 25
RATE_END: Final = 1 / 25e4
UNKNOWN: Final = 1e9
"""Components beyond it are not known (Middlebury's convention)."""
HELD_OUT_SEED: Final = 2**31
"""Added to the seed: no run trains on these scenes."""


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the rate of a step: from ``peak`` / 25 up to ``peak`` over 5 % of the run, then down to nearly 0.

    Both lines are straight (Smith and Topin 2019, with RAFT's settings).
    """
    top = max(RATE_RISE * steps - 1, 0.0)
    # A run of one step takes the peak.
    return float(np.interp(step, (0, top, max(steps - 1, top + 1)), (peak * RATE_START, peak, peak * RATE_END)))


def end_point_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Return the distance of each vector's end from where it should be, (B, 2, H, W) to (B, 1, H, W)."""
    # A plain norm has no gradient where it is 0.
    return ((flow - truth).square().sum(1, keepdim=True) + 1e-12).sqrt()


def reduce_truth(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Average flow (B, 2, H, W) over the cells of a grid of ``size``; vectors stay in pixels of (H, W)."""
    return functional.adaptive_avg_pool2d(truth, size)


def multi_scale_error(levels: Sequence[Tensor], truth: Tensor) -> Tensor:
    """Return the training loss of PWC-Net (section 3 of the paper), a scalar, for exact flow.

    It is the weighted sum over levels 2 to 6, (B, 2, H/4, W/4) to (B, 2, H/64, W/64), of the mean end-point error, in
    units of the network's output: pixels of the truth, (B, 2, H, W), divided by 20.
    """
    target = truth / FLOW_DIVISOR
    errors = [
        weight * end_point_error(level.float(), reduce_truth(target, (level.shape[-2], level.shape[-1]))).mean()
        for weight, level in zip(LEVEL_WEIGHTS, levels, strict=True)
    ]
    return torch.stack(errors).sum()


def matching_loss(pyramid1: Sequence[Tensor], pyramid2: Sequence[Tensor], flow: Tensor, seen: Tensor) -> Tensor:
    """Return the error of finding each feature of the first frame in the second, among its cost volume's 81, a scalar.

    The cross entropy of a softmax over cosines, with the exact displacement as target, spread bilinearly over the four
    cells around it. Learning from flow alone, features have no reason to be comparable as long as the decoder ignores
    the cost volume, nor the decoder to use it as long as they are not. Takes both frames' features as
    :meth:`PWCNet.pyramid` gives them, exact flow (B, 2, H, W) in pixels, and what both frames see, (B, 1, H, W) bool.
    """
    terms = []
    for level in MATCHED_LEVELS:
        first, second = (functional.normalize(pyramid[level - 1].float()) for pyramid in (pyramid1, pyramid2))
        size = (first.shape[-2], first.shape[-1])
        # The volume is a mean over channels, a cosine their sum.
        cosines = cost_volume(first, second) * first.shape[1]
        chances = functional.log_softmax(SHARPNESS * cosines, 1)
        target = reduce_truth(flow, size) / 2**level
        counts = (reduce_truth(seen.float(), size) > SEEN_SHARE) & (target.abs() <= COST_RADIUS).all(1, keepdim=True)
        entropy = -_at(chances, target)
        # Each pair by itself, so that processes with a share of the batch each come to the same.
        terms.append(((entropy * counts).sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp_min(1)).mean())
    return torch.stack(terms).mean()


def _at(volume: Tensor, displacement: Tensor) -> Tensor:
    """Return the values of a volume (B, 81, h, w) at displacements (B, 2, h, w) in cells, bilinearly, (B, 1, h, w)."""
    cells = volume.permute(0, 2, 3, 1).reshape(-1, 1, 2 * COST_RADIUS + 1, 2 * COST_RADIUS + 1)
    places = (displacement / COST_RADIUS).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    values = functional.grid_sample(cells, places, padding_mode='border', align_corners=True)
    return values.reshape_as(volume[:, :1])


# How good flow is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A pair of frames with its flow."""

    name: str
    first: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    second: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    flow: NDArray[np.float32]
    """(H, W, 2), pixels; beyond 1e9 where it is not known."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.flow.shape[0], self.flow.shape[1]


class Errors(NamedTuple):
    """Mean end-point errors of one sample, pixels: of PWC-Net, of DIS medium, of taking everything to stand still."""

    name: str
    network: float
    dis: float
    still: float


def held_out_samples(seed: int, count: int, options: FlowPairOptions) -> list[Sample]:
    """Render pairs that no training sees; the same for the same arguments."""
    pairs = RenderedFlowPairs(HELD_OUT_SEED + seed, options)
    samples = []
    for index in range(count):
        pair = pairs[index * options.pairs_per_scene]
        first, second, flow = (np.ascontiguousarray(item.numpy().transpose(1, 2, 0)) for item in pair[:3])
        samples.append(Sample(f'scene {index}', first, second, flow))
    return samples


def folder_samples(folder: Path) -> list[Sample]:
    """Read the pairs of a folder: each a folder with frame1.*, frame2.* and one .flo file; raises UserError."""
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder; validation.folder takes one that holds folders of pairs')
    samples = [_read_pair(entry) for entry in sorted(folder.iterdir()) if entry.is_dir()]
    if not samples:
        raise UserError(f'{folder}: no pair here; each is a folder with frame1.png, frame2.png and a .flo file')
    return samples


def _read_pair(folder: Path) -> Sample:
    found = {}
    for pattern in ('frame1.*', 'frame2.*', '*.flo'):
        files = list(folder.glob(pattern))
        if len(files) != 1:
            raise UserError(f'{folder}: has {len(files)} of {pattern}, but takes one')
        found[pattern] = files[0]
    first, second = read_image(found['frame1.*']), read_image(found['frame2.*'])
    flow = read_flow(found['*.flo'])
    if not first.shape[:2] == second.shape[:2] == flow.shape[:2]:
        raise UserError(f'{folder}: frames of {first.shape[:2]} and {second.shape[:2]}, flow of {flow.shape[:2]}')
    return Sample(folder.name, first, second, flow)


def sample_error(backend: FlowBackend, sample: Sample) -> float:
    """Return the mean end-point error of a backend over the pixels whose flow is known, in pixels."""
    flow = backend.estimate([backend.features(sample.first)], [backend.features(sample.second)], sample.size)
    return _error(flow[0].float().cpu().numpy().transpose(1, 2, 0), sample.flow)


def _error(flow: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    known = (np.abs(truth) < UNKNOWN).all(2)
    return float(np.linalg.norm((flow - truth)[known].astype(np.float64), axis=1).mean())


def network_error(network: nn.Module, sample: Sample, device: torch.device) -> float:
    """Return PWC-Net's end-point error, pixels; the network stays in its mode."""
    training = network.training
    error = sample_error(PwcFlow(cast('PWCNet', network), sample.size, device), sample)
    network.train(training)
    return error


def compare(network: nn.Module, samples: Iterable[Sample], device: torch.device) -> list[Errors]:
    """Measure PWC-Net, DIS and "nothing moves" on each sample."""
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
