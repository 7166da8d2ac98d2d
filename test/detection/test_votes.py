"""What is computed of a batch of pairs, and how it is captured on a GPU."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch

from moving_object_detector.detection.sign import resolve_sign
from moving_object_detector.detection.stage import unwatched
from moving_object_detector.detection.votes import PairVotes
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.create import create_engine
from moving_object_detector.engines.experimental_gpu import CudaGraphs
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator

SIZE = (32, 64)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')


def pairs(length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(length)
    images = torch.rand((length, 3, *SIZE), generator=rng) - 0.5
    flows = 3 * torch.randn((length, 2, *SIZE), generator=rng)
    return images.to(device), flows.to(device)


def make(device: torch.device) -> tuple[Generator, PairVotes]:
    torch.manual_seed(1)
    generator = Generator().eval()
    return generator, PairVotes(MaskEngine(create_engine('torch', device), generator, SIZE, 4), 'residual')


def test_masks_and_motion_are_those_of_the_steps_one_after_the_other():
    generator, votes = make(torch.device('cpu'))
    images, flows = pairs(3, torch.device('cpu'))
    seen = []

    @contextmanager
    def stage(name):
        seen.append(name)
        yield

    masks, motion = votes(images, flows, stage)
    prepared = prepare_flow(flows, 'residual')
    with torch.no_grad():
        expected = resolve_sign(generator(images, prepared.flow))[:, 0]
    assert seen == ['generator input', 'generator']
    assert torch.allclose(masks, expected, atol=1e-5)
    assert torch.equal(motion, prepared.motion)


@needs_gpu
def test_the_whole_step_is_one_graph_on_a_gpu(caplog):
    """Nothing in it may wait for the GPU: a capture fails where something does, and says so in the log."""
    device = torch.device('cuda')
    generator, votes = make(device)
    for length in (4, 4, 4, 4, 4, 2, 1, 1, 1, 1, 1, 4):
        images, flows = pairs(length, device)
        masks, motion = votes(images, flows, unwatched)
        prepared = prepare_flow(flows, 'residual')
        with torch.no_grad():
            expected = resolve_sign(generator(images, prepared.flow))[:, 0]
        assert torch.allclose(masks, expected, atol=1e-2)
        assert torch.allclose(motion, prepared.motion, rtol=1e-3)
    assert not caplog.records
    assert list(votes._graphs._graphs) == [4, 1]
    # The generator's own graphs would hold its memory twice.
    assert not votes.engine._run._graphs


def test_a_graph_within_a_graph_runs_as_part_of_it():
    """Counted on the CPU, where no capture is reached: the inner one does not take note of the outer one's calls."""
    inner = CudaGraphs(lambda x: (x + 1,), torch.device('cpu'))
    outer = CudaGraphs(inner, torch.device('cpu'))
    for _ in range(3):
        assert outer(torch.ones(2))[0].tolist() == [2, 2]
    assert not inner._calls
    inner(torch.ones(2))
    assert inner._calls[2] == 1


def test_where_the_whole_cannot_be_captured_its_parts_still_may():
    inner = CudaGraphs(lambda x: (x + 1,), torch.device('cpu'))
    outer = CudaGraphs(inner, torch.device('cpu'))
    # What a failed capture leaves behind; there is none to fail without a GPU.
    outer._gave_up = True
    outer(torch.ones(2))
    assert inner._calls[2] == 1


def test_nothing_keeps_an_engine_alive_that_is_no_longer_used():
    """Without waiting for the garbage collector, since a GPU's memory hangs on it."""

    class Engine:
        device = torch.device('cpu')
        capturable = True

    engine = Engine()
    votes, kept = PairVotes(engine, 'residual'), weakref.ref(engine)
    gc.disable()
    try:
        del engine, votes
        assert kept() is None
    finally:
        gc.enable()
