from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from moving_object_detector.media.pictures import read_flow
from moving_object_detector.networks.raft_small import RaftSmall, correlation_pyramid, look_up, upsample

PUBLISHED_WEIGHTS = 'weights/raft_small.pth'
# Mean end-point error in pixels with the published weights and 20 iterations, measured independently of this project.
PUBLISHED = {'chairs3': 0.76, 'rubberwhale': 0.32}
# The state dict of the authors' checkpoint, in its order: layer and shape of its weight; a bias of as many values as
# the layer has outputs follows each. This is the encoder but for its last layer, conv2, of 128 or 160 outputs.
ENCODER = """
conv1 32 3 7 7
layer1.0.conv1 8 32 1 1 | layer1.0.conv2 8 8 3 3 | layer1.0.conv3 32 8 1 1
layer1.1.conv1 8 32 1 1 | layer1.1.conv2 8 8 3 3 | layer1.1.conv3 32 8 1 1
layer2.0.conv1 16 32 1 1 | layer2.0.conv2 16 16 3 3 | layer2.0.conv3 64 16 1 1 | layer2.0.downsample.0 64 32 1 1
layer2.1.conv1 16 64 1 1 | layer2.1.conv2 16 16 3 3 | layer2.1.conv3 64 16 1 1
layer3.0.conv1 24 64 1 1 | layer3.0.conv2 24 24 3 3 | layer3.0.conv3 96 24 1 1 | layer3.0.downsample.0 96 64 1 1
layer3.1.conv1 24 96 1 1 | layer3.1.conv2 24 24 3 3 | layer3.1.conv3 96 24 1 1
"""
UPDATE = """
encoder.convc1 96 196 1 1 | encoder.convf1 64 2 7 7 | encoder.convf2 32 64 3 3 | encoder.conv 80 128 3 3
gru.convz 96 242 3 3 | gru.convr 96 242 3 3 | gru.convq 96 242 3 3
flow_head.conv1 128 96 3 3 | flow_head.conv2 2 128 3 3
"""


def entries(prefix: str, table: str) -> list[tuple[str, tuple[int, ...]]]:
    state = []
    for entry in table.strip().replace('\n', '|').split('|'):
        name, *numbers = entry.split()
        shape = tuple(map(int, numbers))
        state += [(f'{prefix}.{name}.weight', shape), (f'{prefix}.{name}.bias', shape[:1])]
    return state


@pytest.fixture(scope='module')
def published(shared: Path) -> RaftSmall:
    """The network with the authors' weights."""
    state = torch.load(shared / PUBLISHED_WEIGHTS, map_location='cpu', weights_only=True)
    network = RaftSmall()
    network.load_state_dict({name.removeprefix('module.'): tensor for name, tensor in state.items()}, strict=True)
    return network.eval()


def test_parameter_count() -> None:
    assert sum(parameter.numel() for parameter in RaftSmall().parameters()) == 990_162


def test_state_dict_is_that_of_the_released_checkpoint() -> None:
    state = [(name, tuple(tensor.shape)) for name, tensor in RaftSmall().state_dict().items()]
    encoders = [
        *entries('fnet', ENCODER + 'conv2 128 96 1 1'),
        *entries('cnet', ENCODER + 'conv2 160 96 1 1'),
    ]
    assert state == [*encoders, *entries('update_block', UPDATE)]
    assert len(state) == 106


def test_published_weights_have_these_names(published: RaftSmall, shared: Path) -> None:
    state = torch.load(shared / PUBLISHED_WEIGHTS, map_location='cpu', weights_only=True)
    assert list(state) == [f'module.{name}' for name in published.state_dict()]


def test_output_equals_that_of_the_released_code(
    fill: Callable[[nn.Module, float], nn.Module], noise: Callable[..., Tensor]
) -> None:
    network = fill(RaftSmall(), 1.0)
    with torch.no_grad():
        flow = network(noise(2, 1, 3, 128, 192) * 2 - 1, noise(3, 1, 3, 128, 192) * 2 - 1, 4)
    assert flow.shape == (1, 2, 128, 192)
    # Top left, middle and bottom right, as the authors' code gave them for the same weights and four iterations.
    expected = {(0, 0): (0.79711, -13.01903), (64, 96): (7.18011, -10.30453), (-1, -1): (2.30052, 10.21075)}
    for (row, column), vector in expected.items():
        assert flow[0, :, row, column].tolist() == pytest.approx(vector, abs=1e-3)


def read_pair(folder: Path) -> list[Tensor]:
    """Return two images, RGB in [-1, 1], repeated at the borders to multiples of 8, as the authors do."""
    images = [cv2.imread(str(folder / f'frame{number}.png')) for number in (1, 2)]
    tensors = [torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1 for image in images]
    height, width = tensors[0].shape[2:]
    right, below = -width % 8, -height % 8
    padding = (right // 2, right - right // 2, below // 2, below - below // 2)
    return [functional.pad(tensor, padding, mode='replicate') for tensor in tensors]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_error(name: str, published: RaftSmall, shared: Path) -> None:
    folder = shared / 'data' / 'flow' / name
    truth = read_flow(folder / 'flow.flo')
    height, width = truth.shape[:2]
    with torch.inference_mode():
        flow = published(*read_pair(folder), 20)
    top, left = -height % 8 // 2, -width % 8 // 2
    estimate = flow[0, :, top : top + height, left : left + width].permute(1, 2, 0).numpy()
    known = np.abs(truth).max(axis=2) < 1e9  # Middlebury's mark of pixels without truth
    error = np.linalg.norm(estimate - truth, axis=2)[known].mean()
    assert error == pytest.approx(PUBLISHED[name], abs=0.006)


def test_a_still_scene_does_not_move(published: RaftSmall, noise: Callable[..., Tensor]) -> None:
    image = functional.interpolate(noise(1, 1, 3, 16, 16), (128, 128), mode='bicubic') * 2 - 1
    with torch.inference_mode():
        assert published(image, image).abs().mean() < 0.1


def bilinear(values: np.ndarray, x: float, y: float) -> float:
    """Sample (h, w) at a position; each of the four neighbours outside counts as zero."""
    left, top = math.floor(x), math.floor(y)
    total = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < values.shape[0] and 0 <= column < values.shape[1]:
            total += (1 - abs(x - column)) * (1 - abs(y - row)) * float(values[row, column])
    return total


def test_look_up_against_loops(noise: Callable[..., Tensor]) -> None:
    batch, channels, height, width = 2, 5, 9, 11  # sides of the levels: 9x11, 4x5, 2x2, 1x1
    a, b = noise(1, batch, channels, height, width) - 0.5, noise(2, batch, channels, height, width) - 0.5
    coordinates = noise(3, batch, 2, height, width) * 16 - 3
    found = look_up(correlation_pyramid(a, b), coordinates)
    assert found.shape == (batch, 196, height, width)
    random = np.random.default_rng(0)
    outside = 0
    for _ in range(400):
        n, channel = random.integers(batch), random.integers(196)
        row, column = random.integers(height), random.integers(width)
        level, i, j = channel // 49, channel % 49 // 7, channel % 7
        # The plane of this pixel's correlations, then blocks of it averaged; what does not fill a block is left out.
        plane = np.einsum('c,cyx->yx', a[n, :, row, column].double(), b[n].double()) / math.sqrt(channels)
        for _ in range(level):
            rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
            plane = plane[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
        x, y = coordinates[n, :, row, column].double().numpy() / 2**level + (i - 3, j - 3)
        expected = bilinear(plane, x, y)
        outside += expected == 0
        assert float(found[n, channel, row, column]) == pytest.approx(expected, abs=1e-5)
    assert 40 < outside < 360  # both cases occur


def test_features_of_a_frame_do_not_depend_on_its_batch(
    fill: Callable[[nn.Module, float], nn.Module], noise: Callable[..., Tensor]
) -> None:
    network = fill(RaftSmall(), 1.0)
    assert isinstance(network, RaftSmall)
    images = noise(5, 3, 3, 64, 96) * 2 - 1
    images[1] = images[1] * 0.1 + 0.7  # of another brightness and contrast: a norm over the batch would show
    with torch.no_grad():
        together = network.features(images)
        alone = [network.features(image[None]) for image in images]
    assert [maps.shape for maps in together] == [(3, 128, 8, 12), (3, 160, 8, 12)]
    for maps, of_each in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(maps, torch.cat(of_each), atol=1e-4, rtol=1e-4)


def test_upsampling_puts_the_corners_on_the_corners() -> None:
    flow = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(1, 2, 2, 2)
    large = upsample(flow)
    assert large.shape == (1, 2, 16, 16)
    corners = [large[0, 0, row, column].item() for row in (0, -1) for column in (0, -1)]
    assert corners == pytest.approx([0, 8, 16, 24])  # values in pixels eight times as small
    assert large[0, 0, 0, 3].item() == pytest.approx(8 * 3 / 15)


def test_every_layer_is_trained() -> None:
    torch.manual_seed(0)
    network = RaftSmall()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    network(image, image.flip(3), 2).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(('height', 'width'), [(100, 128), (64, 65), (56, 128)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf'\({height}, {width}\).*multiples of 8, at least 64'):
        RaftSmall().features(torch.zeros(1, 3, height, width))
