"""What is computed of a batch of pairs, and how it is captured on a GPU."""

from __future__ import annotations

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch

from moving_object_detector.detection.pair_masks import PairMasks, resolve_polarity, unwatched
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.create import create_engine
from moving_object_detector.engines.experimental_gpu import CudaGraphs
from moving_object_detector.flow.evidence import EVIDENCE_CHANNELS
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator

SIZE = (32, 64)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')


def pairs(length: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(length)
    images = torch.rand((length, 3, *SIZE), generator=rng) - 0.5
    flows = 3 * torch.randn((length, 2, *SIZE), generator=rng)
    return images.to(device), flows.to(device)


def make(device: torch.device) -> tuple[Generator, PairMasks]:
    torch.manual_seed(1)
    generator = Generator().eval()
    return generator, PairMasks(MaskEngine(create_engine('torch', device), generator, SIZE, 4), 'residual')


def test_masks_and_motion_are_those_of_the_steps_one_after_the_other():
    generator, votes = make(torch.device('cpu'))
    images, flows = pairs(3, torch.device('cpu'))
    seen = []

    @contextmanager
    def stage(name):
        seen.append(name)
        yield

    masks, motion, computed = votes(images, flows, 0.0, stage)
    prepared = prepare_flow(flows, 'residual')
    with torch.no_grad():
        expected = resolve_polarity(generator(images, prepared.flow))[:, 0]
    assert seen == ['generator input', 'generator']
    assert torch.allclose(masks, expected, atol=1e-5)
    assert torch.equal(motion, prepared.motion)
    assert computed == 3


@pytest.mark.parametrize('moving', [(), (1,), (0, 2), (0, 1, 2)])
def test_pairs_in_which_nothing_moves_do_not_reach_the_generator(moving):
    seen = []

    def engine(image, flow):
        seen.append(len(image))
        return torch.full((len(image), 1, *SIZE), 0.5)

    engine.device, engine.capturable = torch.device('cpu'), False
    images, flows = pairs(3, torch.device('cpu'))
    for index in set(range(3)) - set(moving):
        flows[index] = 0.0
    masks, motion, computed = PairMasks(engine, 'residual')(images, flows, 1e-3, unwatched)
    assert [bool(mask.any()) for mask in masks] == [index in moving for index in range(3)]
    assert seen == ([len(moving)] if moving else [])
    assert computed == len(moving)
    assert (motion >= 1e-3).tolist() == [index in moving for index in range(3)]


def test_evidence_is_computed_only_of_the_pairs_that_reach_the_generator():
    asked, seen = [], []

    def evidence(chosen):
        asked.append(list(chosen))
        return torch.stack([torch.full((EVIDENCE_CHANNELS, *SIZE), float(number)) for number in chosen])

    def engine(image, flow):
        seen.append(flow[:, 2, 0, 0].tolist())
        return torch.full((len(image), 1, *SIZE), 0.5)

    engine.device, engine.capturable = torch.device('cpu'), False
    masks = PairMasks(engine, 'geometric')
    images, flows = pairs(3, torch.device('cpu'))
    flows[1] = 0.0
    assert masks(images, flows, 1e-3, unwatched, evidence).computed == 2
    assert masks(images, torch.zeros_like(flows), 1e-3, unwatched, evidence).computed == 0
    assert asked == [[0, 2]]
    assert seen == [[0.0, 2.0]]


def test_flow_that_is_not_a_number_is_not_taken_for_none():
    _, votes = make(torch.device('cpu'))
    images, flows = pairs(2, torch.device('cpu'))
    flows[1] = float('nan')
    masks, _, computed = votes(images, flows, 1.0, unwatched)
    assert computed >= 1
    assert masks[1].isnan().all()


@needs_gpu
def test_the_whole_step_is_one_graph_on_a_gpu(caplog):
    """Nothing in it may wait for the GPU: a capture fails where something does, and says so in the log."""
    device = torch.device('cuda')
    generator, votes = make(device)
    for length in (4, 4, 4, 4, 4, 2, 1, 1, 1, 1, 1, 4):
        images, flows = pairs(length, device)
        masks, motion, _ = votes(images, flows, 0.0, unwatched)
        prepared = prepare_flow(flows, 'residual')
        with torch.no_grad():
            expected = resolve_polarity(generator(images, prepared.flow))[:, 0]
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
    votes, kept = PairMasks(engine, 'residual'), weakref.ref(engine)
    gc.disable()
    try:
        del engine, votes
        assert kept() is None
    finally:
        gc.enable()


# Polarity


def frame(border: float, inside: float, height: int = 10, width: int = 12) -> torch.Tensor:
    mask = torch.full((1, 1, height, width), border)
    mask[:, :, 2:-2, 2:-2] = inside
    return mask


def test_a_mask_around_the_border_is_turned_inside_out() -> None:
    torch.testing.assert_close(resolve_polarity(frame(0.9, 0.2)), frame(0.1, 0.8))


def test_a_mask_inside_stays() -> None:
    assert torch.equal(resolve_polarity(frame(0.05, 0.95)), frame(0.05, 0.95))


def test_the_border_counts_from_a_tenth() -> None:
    assert torch.equal(resolve_polarity(frame(0.1, 0.5)), frame(0.1, 0.5))
    torch.testing.assert_close(resolve_polarity(frame(0.11, 0.5)), frame(0.89, 0.5))


def test_more_than_six_tenths_of_the_border_turn_it() -> None:
    # 10 x 12 has a two-pixel border of 120 - 6 * 8 = 72 pixels, six tenths of which are 43.2.
    border = [(y, x) for y in range(10) for x in range(12) if y < 2 or y >= 8 or x < 2 or x >= 10]
    assert len(border) == 72
    for covered, turned in ((43, False), (44, True)):
        mask = torch.zeros(1, 1, 10, 12)
        for y, x in border[:covered]:
            mask[0, 0, y, x] = 1.0
        assert torch.equal(resolve_polarity(mask), 1 - mask if turned else mask)


def test_each_mask_of_a_batch_by_itself() -> None:
    batch = torch.cat((frame(0.9, 0.2), frame(0.0, 0.7)))
    torch.testing.assert_close(resolve_polarity(batch), torch.cat((frame(0.1, 0.8), frame(0.0, 0.7))))
