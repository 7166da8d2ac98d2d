"""What a pair of frames says beside its flow, against exact flow, depth and visibility of rendered flights."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from moving_object_detector.flow.evidence import (
    EVIDENCE_CHANNELS,
    LARGEST_EVIDENCE,
    OUT_OF_VIEW,
    evidence,
    inconsistency,
)
from moving_object_detector.flow.generator_input import join_sides, prepare_flow, reverse_side
from moving_object_detector.flow.rigid_scene import Texture
from moving_object_detector.flow.travel import Camera, estimate_travel
from moving_object_detector.networks.generator import Generator
from moving_object_detector.synthetic.flight import Flight, FlightOptions, flight

SIZE = (180, 320)


def flown(seed: int, motion: str = 'sideways', *, still: bool) -> Flight:
    return flight(
        (31, seed), FlightOptions(size=SIZE, still=still, motion=motion, parallax=1.0, frames=12, camera=False)
    )


def seen(scene: Flight, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return exact flow to the next frame and back, and the evidence."""
    there, back = (
        np.ascontiguousarray(scene.flow(a, b).transpose(2, 0, 1), np.float32)
        for a, b in ((time, time + 1), (time + 1, time))
    )
    k = scene.intrinsics
    camera = Camera(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5)
    grey = np.asarray(cv2.cvtColor(scene.image(time), cv2.COLOR_RGB2GRAY), np.uint8)
    travel = estimate_travel(there, Texture.of(grey).contrast, camera)
    return there, back, evidence(*(torch.from_numpy(one)[None] for one in (there, back)), [travel])[0].numpy()


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_a_still_scene_is_on_the_lines_and_its_depth_is_told(seed: int) -> None:
    scene = flown(seed, still=True)
    *_, found = seen(scene, 4.0)
    assert found.shape == (EVIDENCE_CHANNELS, *SIZE)
    assert np.abs(found).max() <= LARGEST_EVIDENCE
    assert np.percentile(found[0], 90) < np.arcsinh(0.6)
    depth = scene.frame(4.0).depth
    ground = np.isfinite(depth)
    order = [np.argsort(np.argsort(values)) for values in (found[2][ground], 1 / depth[ground])]
    assert np.corrcoef(*order)[0, 1] > 0.9


def test_what_crosses_the_lines_stands_out() -> None:
    ratios = []
    for seed in range(8):
        scene = flown(seed, 'forward', still=False)
        mask = scene.mask(4.0)
        if mask.mean() < 0.003:
            continue
        *_, found = seen(scene, 4.0)
        ratios.append(np.median(found[0][mask]) / max(float(np.median(found[0][~mask])), 0.05))
    assert len(ratios) >= 3
    assert np.median(ratios) > 3


def test_flow_and_its_reverse_cancel_where_both_frames_see_it() -> None:
    scene = flown(5, still=True)
    *_, found = seen(scene, 4.0)
    hidden = scene.occluded(4.0, 5.0)
    away = cv2.dilate(hidden.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert np.percentile(found[3][away & (found[3] != OUT_OF_VIEW)], 95) < np.arcsinh(1.0)
    inside = hidden & (found[3] != OUT_OF_VIEW)
    assert np.median(found[3][inside]) > 3 * np.median(found[3][away])
    assert inconsistency(torch.full((1, 2, 4, 8), 100.0), torch.zeros(1, 2, 4, 8)).min() == OUT_OF_VIEW


def test_inconsistency_of_a_shift_by_hand() -> None:
    flow, reverse = torch.zeros(1, 2, 10, 100), torch.zeros(1, 2, 10, 100)
    flow[:, 0], reverse[:, 0] = 2.0, -1.5
    found = inconsistency(flow, reverse)[0].numpy()
    # Half a pixel of a width of a hundred is five thousandths.
    assert found[:, :98] == pytest.approx(np.arcsinh(5.0))
    assert (found[:, 98:] == OUT_OF_VIEW).all()


def test_the_geometric_input_is_the_residual_with_the_evidence_behind_it() -> None:
    rng = torch.Generator().manual_seed(0)
    flow = torch.randn(2, 2, 24, 48, generator=rng)
    extra = torch.randn(2, EVIDENCE_CHANNELS, 24, 48, generator=rng)
    plain = prepare_flow(flow, 'residual')
    found = prepare_flow(torch.cat((flow, extra), 1), 'geometric')
    # Of normal noise next to nothing is beyond three times its spread.
    assert torch.allclose(found.flow[:, :2], plain.flow, rtol=0.02)
    assert torch.equal(found.flow[:, 2:7], extra)
    assert torch.equal(found.motion, plain.motion)
    # Ten times the motion is half a logarithm of ten more, but for the floor.
    more = prepare_flow(torch.cat((10 * flow, extra), 1), 'geometric')
    assert (more.flow[:, 7] - found.flow[:, 7]).mean() == pytest.approx(np.log(10) / 2, abs=0.01)
    with pytest.raises(ValueError, match='evidence'):
        prepare_flow(flow, 'geometric')


def test_one_fast_thing_does_not_hide_a_slow_one() -> None:
    noise = 0.1 * torch.randn(1, 2, 96, 192, generator=torch.Generator().manual_seed(0))
    extra = torch.zeros(1, EVIDENCE_CHANNELS, 96, 192)
    slow = noise.clone()
    slow[0, 0, 10:20, 20:40] += 2
    both = slow.clone()
    both[0, 1, 60:75, 120:140] += 30
    shown, beside = (prepare_flow(torch.cat((flow, extra), 1), 'geometric').flow[0, :2] for flow in (slow, both))
    hidden = prepare_flow(both, 'residual').flow[0]
    alone, near, lost = (float(one[0, 10:20, 20:40].mean()) for one in (shown, beside, hidden))
    assert lost < alone / 5
    assert near > alone / 2
    # The fast one keeps its direction, and no number is larger than the network has seen.
    assert float(beside[1, 60:75, 120:140].mean()) > 5
    assert float(beside.norm(dim=0).max()) < 13


def test_a_wider_generator_starts_as_the_narrow_one() -> None:
    torch.manual_seed(0)
    narrow = Generator()
    wide = narrow.widened(2 + EVIDENCE_CHANNELS + 1)
    image, flow = torch.rand(1, 3, 24, 48) - 0.5, torch.randn(1, 8, 24, 48)
    assert torch.allclose(wide(image, flow), narrow(image, flow[:, :2]), atol=1e-6)


def test_both_sides_are_two_neighbours_of_which_one_is_reversed() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = (torch.randn(2, 2 + EVIDENCE_CHANNELS, 24, 48, generator=rng) for _ in range(2))
    found = prepare_flow(torch.cat((one, other), 1), 'both_sides').flow
    sides = [prepare_flow(flow, 'geometric').flow for flow in (one, other)]
    torch.testing.assert_close(found, torch.cat((sides[0], -sides[1][:, :2], sides[1][:, 2:]), 1))
    # What moves evenly looks the same to both sides.
    even = prepare_flow(torch.cat((one, reverse_side(one)), 1), 'both_sides').flow
    torch.testing.assert_close(even, join_sides(sides[0]), atol=1e-4, rtol=1e-4)


def test_a_generator_for_both_sides_starts_as_that_of_one() -> None:
    torch.manual_seed(0)
    one = Generator(8, 4)
    image, flow = torch.rand(1, 3, 24, 48) - 0.5, torch.randn(1, 8, 24, 48)
    torch.testing.assert_close(one.doubled()(image, join_sides(flow)), one(image, flow))
