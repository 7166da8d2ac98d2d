"""The window changes while frames wait: against a direct computation of equation 14."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from moving_object_detector.detection.config import DetectorConfig, GateConfig, WindowConfig
from moving_object_detector.detection.detector import Detector
from moving_object_detector.flow.generator_input import SplitFlow

STEP = 40_000_000
SIZE = (32, 64)


class TellingEngine:
    """Gives each pair of frames a mask of its own, by the two numbers that :class:`TellingFlow` makes of them."""

    name = 'telling'
    device = torch.device('cpu')

    def __call__(self, image: Tensor, flow: Tensor) -> Tensor:
        assert image.shape[2:] == flow.shape[2:]
        return torch.stack([mask_of(round(float(one[0, 0, 0])), round(float(one[1, 0, 0]))) for one in flow])


class TellingFlow:
    """Estimates as flow between two frames their two numbers."""

    name = 'telling'

    def features(self, image: NDArray[np.uint8], before: object = None) -> int:
        return int(image[0, 0, 0])

    def estimate(self, sources: list[int], targets: list[int], size: tuple[int, int]) -> Tensor:
        numbers = torch.tensor([sources, targets], dtype=torch.float32).T
        return numbers[:, :, None, None].expand(-1, -1, *size).contiguous()


def mask_of(frame: int, neighbour: int) -> Tensor:
    """Return (1, h, w), not touching the border, whose mean over neighbours tells which these were."""
    height, width = SIZE
    mask = torch.zeros(1, height, width)
    mask[0, 4:-4, 4:-4] = torch.rand((height - 8, width - 8), generator=torch.Generator().manual_seed(
        1000 * frame + neighbour
    ))  # fmt: skip
    return mask


@pytest.fixture
def make_detector(monkeypatch: pytest.MonkeyPatch) -> Callable[[WindowConfig], Detector]:
    # The flows carry numbers, which must reach the engine as they are.
    room = 'moving_object_detector.detection.pair_masks'
    monkeypatch.setattr(f'{room}.split_flow', lambda flows: SplitFlow(flows, flows, torch.ones(len(flows))))
    monkeypatch.setattr(f'{room}.generator_flow', lambda split, form, evidence: split.flow)

    def make(window: WindowConfig) -> Detector:
        config = DetectorConfig(window=window, gate=GateConfig(min_motion=0.0))
        return Detector(TellingFlow(), TellingEngine(), SIZE, 'residual', config)  # type: ignore[arg-type]

    return make


def numbered(number: int) -> NDArray[np.uint8]:
    return np.full((20, 24, 3), number, np.uint8)


def expected(windows: list[WindowConfig]) -> tuple[dict[int, tuple[int, list[int]]], dict[int, list[int]]]:
    """Work out, from the windows in force at each frame's arrival, what the rule says.

    Returns:
        Of each frame: when it is complete and who votes on it; who has voted at its arrival.

    """
    length = len(windows)
    refined, zero_lag = {}, {}
    for t in range(length):
        window = windows[t]
        early = [t - k * window.stride for k in range(1, window.past + 1) if t - k * window.stride >= 0]
        if early:
            zero_lag[t] = early
        late = []
        for n in range(t, length):
            window = windows[n]
            if n > t and n - t in [k * window.stride for k in range(1, window.future + 1)]:
                late.append(n)
            if n - t >= window.future * window.stride:
                break
        else:
            n = length  # at the end of the stream
        if early + late:
            refined[t] = n, early + late
    return refined, zero_lag


def windows_at_random(seed: int, length: int, longest: int) -> list[WindowConfig]:
    rng = np.random.default_rng(seed)
    windows: list[WindowConfig] = []
    while len(windows) < length:
        stride = int(rng.integers(1, 3))
        past, future = rng.integers(0, longest // stride + 1, 2)
        windows += [WindowConfig(int(past), int(future), stride)] * int(rng.integers(1, 6))
    return windows[:length]


def mean_of(frame: int, neighbours: list[int]) -> NDArray[np.float32]:
    return torch.stack([mask_of(frame, neighbour)[0] for neighbour in neighbours]).mean(0).numpy()


@pytest.mark.parametrize('seed', range(25))
def test_every_frame_is_the_mean_over_the_neighbours_that_the_rule_names(
    make_detector: Callable[[WindowConfig], Detector], seed: int
) -> None:
    windows = windows_at_random(seed, 40, 5)
    detector = make_detector(WindowConfig(5, 5, 1))
    came = []
    for n, window in enumerate(windows):
        detector.window = window
        came += [(n, result) for result in detector.step(numbered(n), n * STEP, tag=-n).results]
    came += [(len(windows), result) for result in detector.flush().results]
    refined, zero_lag = expected(windows)
    at = [(result.index, n) for n, result in came if result.estimate == 'refined']
    assert at == [(t, n) for t, (n, _) in sorted(refined.items())]  # each once, in order, on time
    assert [(r.index, n) for n, r in came if r.estimate == 'zero_lag'] == [(t, t) for t in zero_lag]
    for _, result in came:
        neighbours = refined[result.index][1] if result.estimate == 'refined' else zero_lag[result.index]
        assert result.votes == len(neighbours)
        np.testing.assert_allclose(result.average, mean_of(result.index, neighbours), atol=1e-6)
        assert (result.stamp, result.image[0, 0, 0], result.tag) == (result.index * STEP, result.index, -result.index)
        assert result.probability.shape == result.image.shape[:2]


def steps(detector: Detector, numbers: range) -> list[tuple[int, int, int]]:
    """Return (frame at which it came, frame, votes) of each refined result."""
    return [
        (n, result.index, result.votes)
        for n in numbers
        for result in detector.step(numbered(n), n * STEP).results
        if result.estimate == 'refined'
    ]


def test_a_smaller_window_completes_the_frames_that_wait_with_the_votes_they_have(
    make_detector: Callable[[WindowConfig], Detector],
) -> None:
    detector = make_detector(WindowConfig(3, 3, 1))
    assert steps(detector, range(6)) == [(3, 0, 3), (4, 1, 4), (5, 2, 5)]
    detector.window = WindowConfig(1, 1, 1)
    # Frame 3 had 3 earlier and 2 later votes, 4 had 3 and 1, frame 5 gets its only later one now.
    assert steps(detector, range(6, 8)) == [(6, 3, 5), (6, 4, 4), (6, 5, 4), (7, 6, 2)]


def test_a_larger_window_lets_the_frames_that_wait_wait_longer(
    make_detector: Callable[[WindowConfig], Detector],
) -> None:
    detector = make_detector(WindowConfig(2, 3, 1))
    detector.window = WindowConfig(1, 1, 1)
    assert steps(detector, range(5)) == [(1, 0, 1), (2, 1, 2), (3, 2, 2), (4, 3, 2)]
    detector.window = WindowConfig(2, 3, 1)
    # Frame 3 is out and gets no vote from 5; frame 4 had one earlier vote; from frame 5 on all five.
    assert steps(detector, range(5, 10)) == [(7, 4, 4), (8, 5, 5), (9, 6, 5)]
    assert [(result.index, result.votes) for result in detector.flush().results] == [(7, 4), (8, 3), (9, 2)]


def test_no_window_reaches_beyond_the_configured_one(make_detector: Callable[[WindowConfig], Detector]) -> None:
    detector = make_detector(WindowConfig(2, 4, 1))
    detector.window = WindowConfig(2, 1, 2)
    with pytest.raises(ValueError, match=r'window -3\.\.\+1, stride 2 reaches further than the 4 frames'):
        detector.window = WindowConfig(3, 1, 2)
    assert detector.window == WindowConfig(2, 1, 2)
