"""Flow that is chained from pair to pair, against the exact flow of a flight between frames farther apart."""

from __future__ import annotations

import numpy as np
import pytest

from moving_object_detector.flow.base import chain_flow
from moving_object_detector.synthetic.flight import FlightOptions, flight


def test_constant_flows_add_up() -> None:
    first, second = (np.full((2, 8, 16), value, np.float32) for value in (1.5, -4.0))
    np.testing.assert_allclose(chain_flow(first, second), -2.5)


def test_the_second_flow_is_taken_where_the_first_one_leads() -> None:
    first, second = np.zeros((2, 8, 16), np.float32), np.zeros((2, 8, 16), np.float32)
    first[0], second[1, 2, 5:] = 2.5, 3.0
    chained = chain_flow(first, second)
    # By hand: x + 2.5 is at 5 or beyond from x = 3 on, half way there at x = 2, and stays there beyond the border.
    assert (chained[0] == 2.5).all()
    np.testing.assert_allclose(chained[1, 2], [0, 0, 1.5, *[3.0] * 13])
    assert not chained[1, [0, 1, 3, 4]].any()


@pytest.mark.parametrize('seed', [27, 31])
def test_over_four_pairs_it_is_the_exact_flow_but_where_something_is_covered(seed: int) -> None:
    scene = flight(seed, FlightOptions(size=(96, 192), still=False))
    steps = [scene.flow(time, time - 1).transpose(2, 0, 1) for time in (8, 7, 6, 5)]
    chained = steps[-1]
    for step in steps[-2::-1]:
        chained = chain_flow(step, chained)
    exact = scene.flow(8, 4).transpose(2, 0, 1)
    seen = ~np.logical_or.reduce([scene.occluded(8, time) for time in (7, 6, 5, 4)])
    error = np.linalg.norm(chained - exact, axis=0)[seen & np.isfinite(exact).all(0)]
    assert seen.mean() > 0.5
    assert np.median(error) < 0.05
    assert np.mean(error < 0.5) > 0.93
    # Moving four times as far as one frame says is another thing.
    assert np.median(np.linalg.norm(4 * steps[0] - exact, axis=0)[seen]) > 5 * np.median(error)
