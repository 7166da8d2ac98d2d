"""What is computed of a batch of pairs."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from moving_object_detector.detection.pair_masks import gated_masks, resolve_polarity
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.create import create_engine
from moving_object_detector.flow.evidence import EVIDENCE_CHANNELS
from moving_object_detector.flow.generator_input import prepare_flow
from moving_object_detector.networks.generator import Generator

SIZE = (32, 64)


def pairs(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(length)
    images = torch.rand((length, 3, *SIZE), generator=rng) - 0.5
    flows = 3 * torch.randn((length, 2, *SIZE), generator=rng)
    return images, flows


def make() -> tuple[Generator, MaskEngine]:
    torch.manual_seed(1)
    generator = Generator().eval()
    return generator, MaskEngine(create_engine('torch', torch.device('cpu')), generator, SIZE, 4)


def test_masks_and_motion_are_those_of_the_steps_one_after_the_other():
    generator, engine = make()
    images, flows = pairs(3)
    seen = []

    @contextmanager
    def stage(name):
        seen.append(name)
        yield

    masks, motion, computed = gated_masks(engine, 'residual', images, flows, 0.0, stage)
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

    engine.device = torch.device('cpu')
    images, flows = pairs(3)
    for index in set(range(3)) - set(moving):
        flows[index] = 0.0
    masks, motion, computed = gated_masks(engine, 'residual', images, flows, 1e-3)
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

    engine.device = torch.device('cpu')
    images, flows = pairs(3)
    flows[1] = 0.0
    assert gated_masks(engine, 'geometric', images, flows, 1e-3, evidence=evidence).computed == 2
    assert gated_masks(engine, 'geometric', images, torch.zeros_like(flows), 1e-3, evidence=evidence).computed == 0
    assert asked == [[0, 2]]
    assert seen == [[0.0, 2.0]]


def test_flow_that_is_not_a_number_is_not_taken_for_none():
    _, engine = make()
    images, flows = pairs(2)
    flows[1] = float('nan')
    masks, _, computed = gated_masks(engine, 'residual', images, flows, 1.0)
    assert computed >= 1
    assert masks[1].isnan().all()


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
