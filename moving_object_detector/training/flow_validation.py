"""How good flow is: end-point errors on held-out rendered scenes and on pairs of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from moving_object_detector.common.errors import UserError
from moving_object_detector.flow.base import FlowBackend
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.media.pictures import read_flow
from moving_object_detector.media.sources import read_image
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.training.flow_pairs import FlowPairOptions, RenderedFlowPairs

UNKNOWN = 1e9
"""Components beyond it are not known (Middlebury's convention)."""
HELD_OUT_SEED = 2**31
"""Added to the seed: no run trains on these scenes."""


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


@dataclass(frozen=True)
class Errors:
    """Mean end-point errors of one sample, pixels."""

    name: str
    network: float
    dis: float
    """Of OpenCV's DIS, preset medium, at the images' size."""
    still: float
    """Of taking everything to stand still: the mean speed."""


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


def mean_error(network: nn.Module, samples: Sequence[Sample], device: torch.device) -> float:
    """Return the mean over samples of PWC-Net's end-point error, pixels."""
    training = network.training
    total = sum(sample_error(_backend(network, sample, device), sample) for sample in samples)
    network.train(training)
    return total / len(samples)


def _backend(network: nn.Module, sample: Sample, device: torch.device) -> PwcFlow:
    return PwcFlow(cast('PWCNet', network), sample.size, device)


def compare(network: nn.Module, samples: Iterable[Sample], device: torch.device) -> list[Errors]:
    """Measure PWC-Net, DIS and "nothing moves" on each sample."""
    return [
        Errors(
            sample.name,
            sample_error(_backend(network, sample, device), sample),
            sample_error(DisFlow(sample.size), sample),
            _error(np.zeros_like(sample.flow), sample.flow),
        )
        for sample in samples
    ]


def average(errors: Sequence[Errors], name: str) -> Errors:
    """Return the mean of several samples' errors."""
    columns = [[getattr(error, key) for error in errors] for key in ('network', 'dis', 'still')]
    return Errors(name, *(sum(column) / len(column) for column in columns))
