"""The fused kernel against the plain network: run by Triton's interpreter here, compiled where there is a GPU.

The interpreter has to be chosen before Triton is imported, so it runs in a process of its own, in which new memory is
filled with NaN: an element that the kernel does not write is found by every comparison.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from moving_object_detector.detection.build import create_flow
from moving_object_detector.detection.config import FlowConfig
from moving_object_detector.engines.create import create_engine
from moving_object_detector.engines.experimental_gpu import fuse_correlation
from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.flow.pwcnet import PwcFlow
from moving_object_detector.networks import pwcnet
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.weights import save_network

CPU = torch.device('cpu')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
needs_triton = pytest.mark.skipif(find_spec('triton') is None, reason='Triton is not installed here')
LAYOUTS = {'contiguous': torch.contiguous_format, 'channels last': torch.channels_last}
CENTRE = 4 * 9 + 4  # the channel of no displacement
# Batch, channels, height, width. A program has 24 pixels; the last is the network's coarsest level.
SIZES = [(1, 32, 6, 10), (2, 20, 3, 25), (1, 16, 5, 48), (2, 5, 1, 9), (1, 33, 9, 1), (1, 196, 4, 11)]


@pytest.fixture(scope='module')
def interpreter():
    """Return the executor whose process interprets kernels."""
    with (
        pytest.MonkeyPatch.context() as patch,
        # Deterministic: PyTorch fills what torch.empty gives with NaN.
        ProcessPoolExecutor(1, get_context('spawn'), torch.use_deterministic_algorithms, (True,)) as pool,
    ):
        patch.setenv('TRITON_INTERPRET', '1')
        assert pool.submit(torch.empty, 3).result().isnan().all()
        patch.undo()
        yield pool


@pytest.fixture(params=['interpreter', pytest.param('cuda', marks=needs_gpu)])
def fused(request, monkeypatch):
    """Return the fused function of tensors on the CPU, whatever computes it."""
    pytest.importorskip('triton', reason='Triton is not installed here')
    from moving_object_detector.engines.correlation_kernel import correlate

    if request.param == 'interpreter':
        pool = request.getfixturevalue('interpreter')
        return lambda *inputs: pool.submit(correlate, *inputs).result()
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)

    def compiled(*inputs):
        torch.use_deterministic_algorithms(True)
        try:
            return correlate(*(each if each is None else each.cuda() for each in inputs)).cpu()
        finally:
            torch.use_deterministic_algorithms(False)

    return compiled


def random_inputs(size, layout='channels last', seed=1, spread=2.5):
    """Features, and a flow of which much leads out of the image, some of it very far."""
    rng = torch.Generator().manual_seed(seed)
    batch, _, height, width = size
    first, second = torch.randn(size, generator=rng), torch.randn(size, generator=rng)
    flow = torch.randn(batch, 2, height, width, generator=rng) * spread
    flow[0, :, 0, 0] = torch.tensor([1e30, -1e30])
    return tuple(each.to(memory_format=LAYOUTS[layout]) for each in (first, second, flow))


def assert_same(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours.float(), theirs.float(), atol=tolerance, rtol=0)


@pytest.mark.parametrize('moves', [True, False])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('size', SIZES)
def test_costs_are_those_of_the_plain_version(fused, size, layout, moves):
    first, second, flow = random_inputs(size, layout)
    costs = fused(first, second, flow if moves else None)
    expected = pwcnet.correlate(first, second, flow if moves else None)
    assert expected.count_nonzero() > 30
    assert_same(costs, expected)
    assert costs.is_contiguous(memory_format=LAYOUTS[layout])


def naive_cost(first, second, flow, channel, y, x):
    """One cost by its definition, of one pair of images as arrays (C, H, W) and a flow (2, H, W)."""
    channels, height, width = first.shape
    row, column = y + channel // 9 - 4, x + channel % 9 - 4
    if not (0 <= row < height and 0 <= column < width):
        return 0.0
    u, v = column + flow[0, row, column], row + flow[1, row, column]
    if not (0 <= u <= width - 1 and 0 <= v <= height - 1):
        return 0.0
    left, top = math.floor(u), math.floor(v)
    total = 0.0
    for c, i, j in itertools.product(range(channels), (top, top + 1), (left, left + 1)):
        if i < height and j < width:
            total += first[c, y, x] * second[c, i, j] * (1 - abs(v - i)) * (1 - abs(u - j))
    mean = total / channels
    return mean if mean >= 0 else 0.1 * mean


def test_costs_by_their_definition(fused):
    first, second, flow = random_inputs((2, 24, 11, 30), spread=1.5)
    costs = fused(first, second, flow).numpy()
    arrays = [each[1].double().numpy() for each in (first, second, flow)]
    found = []
    # Corners, both sides of the border between two programs, and the middle.
    for y, x in [(0, 0), (10, 29), (0, 29), (5, 23), (5, 24), (4, 12)]:
        for channel in range(81):
            found.append(naive_cost(*arrays, channel, y, x))
            assert costs[1, channel, y, x] == pytest.approx(found[-1], abs=1e-5)
    assert 0.2 < np.count_nonzero(found) / len(found) < 0.9


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize(
    ('position', 'value'),
    [
        (0.0, 1.0),
        (8.0, 1.0),  # exactly the last of nine pixels
        (7.5, 1.0),
        (8.5, 0.0),  # half a pixel outside
        (-0.5, 0.0),
        (8.00005, 0.99995),  # outside by less than a ten thousandth, which counts as inside
        (-0.00005, 0.99995),
        (8.0002, 0.0),
        (-0.0002, 0.0),
        (9.0, 0.0),
        (-1.0, 0.0),
        (1e9, 0.0),
    ],
)
def test_a_look_up_is_zero_as_soon_as_it_leaves_the_image(fused, axis, position, value):
    ones = torch.ones(1, 16, 9, 9)
    flow = torch.zeros(1, 2, 9, 9)
    flow[0, axis, 4, 4] = position - 4
    costs = fused(ones, ones, flow)
    assert_same(costs, pwcnet.correlate(ones, ones, flow), tolerance=2e-5)
    assert costs[0, CENTRE, 4, 4] == pytest.approx(value, abs=2e-5)
    assert costs[0, CENTRE, 4, 5] == 1.0


@pytest.mark.parametrize('moves', [True, False])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(fused, request, dtype, moves):
    """Within the rounding of warped features, and of results below 1, which are means over 32 channels."""
    if dtype is torch.bfloat16 and request.node.callspec.params['fused'] == 'interpreter':
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")
    first, second, flow = random_inputs((2, 32, 5, 30))
    first, second, flow = first.to(dtype), second.to(dtype), flow.clamp(-1e3, 1e3).to(dtype)
    costs = fused(first, second, flow if moves else None)
    assert costs.dtype == dtype
    expected = pwcnet.correlate(first.float(), second.float(), flow if moves else None)
    assert 0.5 < expected.abs().max() < 1
    assert_same(costs, expected, tolerance=2 * torch.finfo(dtype).eps)


def test_inputs_in_the_midst_of_memory(fused):
    first, second, flow = random_inputs((2, 20, 8, 32))
    inputs = first[:, 2:-1, 1:, 3:30], second[:, 2:-1, 1:, 5:], flow[:, :, :-1, :27]
    costs = fused(*inputs)
    assert_same(costs, pwcnet.correlate(*inputs))
    assert costs.is_contiguous()


@pytest.fixture(scope='module')
def network():
    """Random weights whose flow is some pixels."""
    torch.manual_seed(3)
    network = PWCNet().eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.startswith(('predict_flow', 'dc_conv7')):
            parameter.mul_(0.2)
    return network


@needs_triton
def test_flow_of_the_whole_network(interpreter, network):
    rng = torch.Generator().manual_seed(4)
    pyramids = [network.pyramid(torch.rand(1, 3, 64, 128, generator=rng)) for _ in range(2)]
    fast = interpreter.submit(fuse_correlation, network, TorchEngine(CPU), (60, 120)).result()
    from moving_object_detector.engines.correlation_kernel import correlate

    assert fast.correlate is correlate
    assert network.correlate is pwcnet.correlate
    expected = network.decode_levels(*pyramids)
    assert expected[0].std() > 0.05
    for ours, theirs in zip(interpreter.submit(fast.decode_levels, *pyramids).result(), expected, strict=True):
        assert_same(ours, theirs, tolerance=1e-4)


@needs_triton
def test_pytorch_computes_where_the_kernel_fails(network, caplog):
    """As here, where it is compiled for a GPU and gets memory of the CPU."""
    caplog.set_level(logging.INFO)
    assert fuse_correlation(network, TorchEngine(CPU), (64, 64)) is network
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage().startswith('PWC-Net: warp and cost volume by PyTorch; Triton fails: ')


def test_pytorch_computes_where_triton_is_missing(network, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, 'triton', None)
    assert fuse_correlation(network, TorchEngine(CPU), (64, 64)) is network
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (logging.INFO, 'PWC-Net: warp and cost volume by PyTorch; Triton, which is faster, is not installed')
    ]


@needs_triton
def test_gradients_are_those_of_the_plain_version():
    from moving_object_detector.engines.correlation_kernel import correlate

    results = []
    for function in (correlate, pwcnet.correlate):
        first, second, flow = random_inputs((1, 16, 5, 6))
        second.requires_grad_()
        function(first, second, flow).sum().backward()
        results.append(second.grad)
    assert results[0].abs().sum() > 0
    assert torch.equal(*results)


@needs_triton
@pytest.mark.parametrize(
    'change',
    [
        lambda first, second, flow: (first, second[:, :, 1:], flow),
        lambda first, second, flow: (first, second, flow[:, :, :, 1:]),
        lambda first, second, flow: (first, second.half(), flow),
        lambda first, second, flow: (first.double(), second.double(), flow),
        lambda first, second, flow: (first, second.to('meta'), flow),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(change):
    from moving_object_detector.engines.correlation_kernel import correlate

    with pytest.raises(ValueError, match=r'alike in size, type .* and device, .*\(1, 16, 5, 6\)'):
        correlate(*change(*random_inputs((1, 16, 5, 6))))


@needs_triton
@pytest.mark.skipif(sys.platform != 'linux', reason='Triton brings its compiler for NVIDIA on Linux alone')
@pytest.mark.parametrize('capability', [75, 90])
@pytest.mark.parametrize('channels', [32, 196])
@pytest.mark.parametrize(
    ('dtype', 'precision'), [('fp32', 'tf32'), ('fp32', 'ieee'), ('fp16', 'ieee'), ('bf16', 'ieee')]
)
def test_it_compiles_for_gpus(capability, channels, dtype, precision, tmp_path, monkeypatch):
    """As the first and the last level use it; what the compiler refuses, the interpreter may well take."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from moving_object_detector.engines import correlation_kernel

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    kernel = correlation_kernel._correlate
    constants = {'channels': channels, 'block': triton.next_power_of_2(channels), 'tile': 32, 'precision': precision}
    constants |= {name: 1 for name in kernel.arg_names if name.endswith('_channel')}
    if channels == 196:
        constants['flow'] = None
    pointers = {'first': dtype, 'second': dtype, 'flow': 'fp32', 'costs': dtype}
    signature = {
        name: 'constexpr' if name in constants else f'*{pointers[name]}' if name in pointers else 'i32'
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    options = {'num_warps': 4 if channels == 32 else 8, 'num_stages': correlation_kernel.STAGES}
    compiled = triton.compile(source, target=GPUTarget('cuda', capability, 32), options=options)
    # What a program may have on Turing and on Ampere's smaller chips, in bytes.
    assert compiled.metadata.shared <= (64 << 10 if capability == 75 else 99 << 10)
    assert ('mma.sync' in compiled.asm['ptx']) == (capability >= 80 and (dtype, precision) != ('fp32', 'ieee'))


@needs_gpu
@needs_triton
@pytest.mark.parametrize('precision', ['float32', 'float16', 'bfloat16'])
def test_flow_on_the_gpu_is_no_less_exact_with_the_kernel(network, precision, tmp_path, caplog):
    """Call after call: eagerly, then as a CUDA graph."""
    caplog.set_level(logging.INFO)
    size, cuda = (64, 128), torch.device('cuda')
    path = tmp_path / 'pwcnet.safetensors'
    save_network(network, path, {})
    config = FlowConfig(backend='pwcnet', height=size[0], width=size[1], model=str(path))
    ours = create_flow(config, cuda, create_engine('torch', cuda, precision=precision), 2)
    assert 'PWC-Net: warp and cost volume by one Triton kernel' in caplog.messages
    plain = PwcFlow(copy.deepcopy(network), size, cuda, create_engine('torch', cuda, precision=precision).load, 2)
    frames = np.random.default_rng(5).integers(0, 256, (3, *size, 3), np.uint8)

    def flows(backend):
        pyramids = [backend.features(frame) for frame in frames]
        return backend.estimate(pyramids[:2], pyramids[1:], size).cpu()

    exact = flows(PwcFlow(network, size, CPU))
    for _ in range(6):
        usual, error = ((flows(each) - exact).square().mean().sqrt() for each in (plain, ours))
        assert error < 2 * usual + 1e-3
    assert not [line for line in caplog.messages if 'CUDA graph' in line]


@needs_gpu
@needs_triton
def test_tf32_on_the_gpu(monkeypatch):
    from moving_object_detector.engines.correlation_kernel import correlate

    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', True)
    inputs = random_inputs((2, 32, 24, 40))
    costs = correlate(*(each.cuda() for each in inputs)).cpu()
    assert_same(costs, pwcnet.correlate(*inputs), tolerance=2e-3)
