from __future__ import annotations

import ctypes
import gc
import sys
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.networks.generator import Generator

CPU = torch.device('cpu')
SIZES = [(32, 64), (44, 100)]
# Both compute in float32 and differ in the order of their sums.
TOLERANCE = 2e-5
needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')


@pytest.fixture(scope='module')
def generator():
    """Random weights whose masks go from near 0 to near 1."""
    torch.manual_seed(5)
    generator = Generator().eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    return generator


@pytest.fixture(scope='module')
def openvino_engines(generator):
    """An engine for each size, with all threads and with one."""
    from moving_object_detector.engines.openvino_engine import OpenVinoEngine

    return {size: OpenVinoEngine(generator, size, threads) for threads, size in enumerate(SIZES)}


def batch(length, size, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(length, 3, *size, generator=rng) - 0.5, torch.randn(length, 2, *size, generator=rng)


def reference(generator, image, flow):
    with torch.no_grad():
        return generator(image, flow)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('length', [1, 2, 7])
def test_pytorch_gives_the_generators_masks(generator, size, length):
    image, flow = batch(length, size)
    masks = TorchEngine(generator, CPU)(image, flow)
    expected = reference(generator, image, flow)
    assert expected.min() < 0.1
    assert expected.max() > 0.9
    assert masks.shape == (length, 1, *size)
    assert masks.dtype == torch.float32
    assert torch.allclose(masks, expected, atol=TOLERANCE)


@needs_openvino
@pytest.mark.parametrize('size', SIZES)
def test_openvino_equals_pytorch_at_any_batch_length(generator, openvino_engines, size):
    for length in (1, 10, 3, 1):
        image, flow = batch(length, size, seed=length)
        masks = openvino_engines[size](image, flow)
        assert masks.shape == (length, 1, *size)
        assert masks.dtype == torch.float32
        assert torch.allclose(masks, reference(generator, image, flow), atol=TOLERANCE)


@needs_openvino
def test_results_of_earlier_calls_are_not_overwritten(generator, openvino_engines):
    size = SIZES[0]
    for engine in (openvino_engines[size], TorchEngine(generator, CPU)):
        first = engine(*batch(2, size, seed=1))
        copy = first.clone()
        second = engine(*batch(2, size, seed=2))
        assert torch.equal(first, copy)
        assert not torch.allclose(first, second, atol=0.01)


@needs_openvino
def test_inputs_may_be_views_and_are_left_alone(generator, openvino_engines):
    size = SIZES[0]
    image, flow = batch(2, size)
    views = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), torch.cat((flow, flow), 1)[:, :2]
    assert not views[0].is_contiguous()
    before = [view.clone() for view in views]
    for engine in (openvino_engines[size], TorchEngine(generator, CPU)):
        assert torch.allclose(engine(*views), reference(generator, image, flow), atol=TOLERANCE)
        assert all(torch.equal(view, old) for view, old in zip(views, before, strict=True))


def signal_stack():
    """Where this thread's signal handlers run: address, flags and size of the alternative stack."""

    class Stack(ctypes.Structure):
        _fields_ = (('address', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t))

    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.flags, found.size


@needs_openvino
@pytest.mark.skipif(sys.platform != 'linux', reason='asks Linux where signal handlers run')
def test_openvino_leaves_no_freed_signal_stack_behind(generator, openvino_engines):
    """It did: after two engines had gone in the order of their making, the next signal crashed the process."""
    from moving_object_detector.engines.openvino_engine import OpenVinoEngine

    before = signal_stack()
    engine = OpenVinoEngine(generator, (16, 32))
    assert signal_stack() == before
    del engine
    gc.collect()
    assert signal_stack() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
def test_the_gpu_agrees_with_the_cpu(generator):
    image, flow = batch(3, SIZES[0])
    expected = reference(generator, image, flow)
    state = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    other = Generator()
    other.load_state_dict(state)
    device = torch.device('cuda')
    masks = TorchEngine(other, device)(image.to(device), flow.to(device))
    assert masks.device.type == 'cuda'
    # A GPU may multiply in TF32.
    assert torch.allclose(masks.cpu(), expected, atol=5e-3)
