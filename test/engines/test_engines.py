"""Every engine that can run here gives what the network gives."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.common.errors import UserError
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.create import create_engine
from moving_object_detector.engines.torch_engine import TorchEngine
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.generator_forms import merge_upsampling

CPU = torch.device('cpu')
SIZES = [(32, 64), (44, 100)]
# Both compute in float32 and differ in the order of their sums.
TOLERANCE = 2e-5
needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device on this machine')
needs_tensorrt = pytest.mark.skipif(
    find_spec('torch_tensorrt') is None or not torch.cuda.is_available(),
    reason='torch_tensorrt, or an NVIDIA GPU for it, is not here: the TensorRT engine is not tested',
)
ENGINES = ['torch', pytest.param('openvino', marks=needs_openvino)]


@pytest.fixture(scope='module')
def mask_engines(generator):
    """Return the function (engine, size) that gives a mask engine, made once."""
    made = {}

    def get(name, size):
        if (name, size) not in made:
            made[name, size] = MaskEngine(create_engine(name, CPU), generator, size, batch=4)
        return made[name, size]

    return get


def batch(length, size, seed=1, channels=2):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(length, 3, *size, generator=rng) - 0.5, torch.randn(length, channels, *size, generator=rng)


def reference(generator, image, flow):
    with torch.no_grad():
        return generator(image, flow)


@pytest.mark.parametrize('form', [lambda generator: generator, merge_upsampling])
@pytest.mark.parametrize('name', ENGINES)
def test_a_generator_with_seven_channels_of_flow(name, form):
    torch.manual_seed(5)
    generator = Generator(7).eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    inputs = batch(3, SIZES[0], channels=7)
    expected = reference(generator, *inputs)
    assert expected.std() > 0.1
    masks = MaskEngine(create_engine(name, CPU), form(generator), SIZES[0], batch=4)(*inputs)
    torch.testing.assert_close(masks, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', ENGINES)
def test_masks_are_the_generators_at_any_batch_length(generator, mask_engines, name, size):
    engine = mask_engines(name, size)
    assert engine.name == f'{name} float32 on cpu'
    assert engine.device == CPU
    for length in (1, 10, 3, 1):
        image, flow = batch(length, size, seed=length)
        masks = engine(image, flow)
        expected = reference(generator, image, flow)
        assert expected.min() < 0.1
        assert expected.max() > 0.9
        assert masks.shape == (length, 1, *size)
        assert masks.dtype == torch.float32
        assert torch.allclose(masks, expected, atol=TOLERANCE)


@pytest.mark.parametrize('name', ENGINES)
def test_a_network_with_several_inputs_and_outputs(toy, toy_inputs, name):
    run = create_engine(name, CPU).load(toy, toy_inputs(3), 'toy')
    for length in (2, 5, 1):
        inputs = toy_inputs(length, seed=length)
        outputs = run(*inputs)
        with torch.no_grad():
            expected = toy(*inputs)
        assert isinstance(outputs, tuple)
        assert [tuple(output.shape) for output in outputs] == [(length, 4, 4, 6), (length, 1, 4, 6)]
        for output, each in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output, each, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', ENGINES)
def test_results_of_earlier_calls_are_not_overwritten(mask_engines, name):
    engine, size = mask_engines(name, SIZES[0]), SIZES[0]
    first = engine(*batch(2, size, seed=1))
    copied = first.clone()
    second = engine(*batch(2, size, seed=2))
    gc.collect()
    assert torch.equal(first, copied)
    assert not torch.allclose(first, second, atol=0.01)


@pytest.mark.parametrize('name', ENGINES)
def test_inputs_may_be_views_and_are_left_alone(generator, mask_engines, name):
    size = SIZES[0]
    image, flow = batch(2, size)
    views = image.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), torch.cat((flow, flow), 1)[:, :2]
    assert not views[0].is_contiguous()
    before = [view.clone() for view in views]
    masks = mask_engines(name, size)(*views)
    assert torch.allclose(masks, reference(generator, image, flow), atol=TOLERANCE)
    assert all(torch.equal(view, old) for view, old in zip(views, before, strict=True))


@pytest.mark.parametrize('name', ENGINES)
def test_inputs_of_inference_mode(generator, mask_engines, name):
    size = SIZES[0]
    with torch.inference_mode():
        masks = mask_engines(name, size)(*batch(2, size))
    assert torch.allclose(masks, reference(generator, *batch(2, size)), atol=TOLERANCE)


def signal_stack():
    """Where this thread's signal handlers run: address, flags and size of the alternative stack."""

    class Stack(ctypes.Structure):
        _fields_ = (('address', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t))

    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.flags, found.size


@needs_openvino
@pytest.mark.skipif(sys.platform != 'linux', reason='asks Linux where signal handlers run')
def test_openvino_leaves_no_freed_signal_stack_behind(toy, toy_inputs):
    """It did: after two engines had gone in the order of their making, the next signal crashed the process."""
    from moving_object_detector.engines import openvino_engine

    before = signal_stack()
    for _ in range(2):
        engine = openvino_engine.OpenVinoEngine()
        run = engine.load(toy, toy_inputs(1), 'toy')
        assert signal_stack() == before
        run(*toy_inputs(1))
        del run
        gc.collect()
        assert signal_stack() == before


@needs_openvino
def test_openvino_says_what_it_really_computes_in(toy, toy_inputs):
    """Half precisions either work, and then differ from float32, or are refused by name."""
    inputs = toy_inputs(4)
    exact = create_engine('openvino', CPU).load(toy, inputs, 'toy')(*inputs)
    import openvino

    with ThreadPoolExecutor(1) as aside:  # see the test before this one
        offered = aside.submit(lambda: openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')).result()
    for precision, capability in (('bfloat16', 'BF16'), ('float16', 'FP16')):
        engine = create_engine('openvino', CPU, precision=precision)
        if capability in offered:
            halved = engine.load(toy, inputs, 'toy')(*inputs)
            assert engine.precision == precision
            assert halved[0].dtype == torch.float32
            torch.testing.assert_close(halved[0], exact[0], atol=0.05, rtol=0)
        else:
            with pytest.raises(
                UserError, match=f'precision is {precision}, but OpenVINO computes in b?float(32|16) on'
            ):
                engine.load(toy, inputs, 'toy')


@pytest.mark.parametrize('precision', ['float32', 'float16'])
@pytest.mark.parametrize(
    'name', [pytest.param('torch', marks=needs_gpu), pytest.param('torch_tensorrt', marks=needs_tensorrt)]
)
def test_the_gpu_agrees_with_the_cpu(generator, name, precision):
    device = torch.device('cuda')
    engine = MaskEngine(create_engine(name, device, precision=precision), copy.deepcopy(generator), SIZES[0], 6)
    for length in (6, 6, 6, 6, 6, 2, 5):
        image, flow = batch(length, SIZES[0], seed=length)
        masks = engine(image.to(device), flow.to(device))
        assert masks.device.type == 'cuda'
        assert masks.dtype == torch.float32
        # A GPU may multiply in TF32.
        assert torch.allclose(
            masks.cpu(), reference(generator, image, flow), atol=5e-3 if precision[5:] == '32' else 0.1
        )


def test_what_is_compiled_gives_what_eager_execution_gives(toy, toy_inputs):
    """By a compiler that makes nothing faster, so that the road to it is taken on a CPU as well."""
    compiled = TorchEngine(CPU, compiler={'backend': 'aot_eager'}).load(copy.deepcopy(toy), toy_inputs(4), 'toy')
    eager = TorchEngine(CPU).load(copy.deepcopy(toy), toy_inputs(4), 'toy')
    for rows in (4, 3, 1, 6):
        inputs = toy_inputs(rows, seed=rows)
        for ours, theirs in zip(compiled(*inputs), eager(*inputs), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_compiler_that_fails_is_told(toy, toy_inputs):
    def broken(graph, examples):
        raise RuntimeError('no such kernel')

    with pytest.raises(UserError, match=r'no such kernel.*experimental_gpu'):
        TorchEngine(CPU, compiler={'backend': broken}).load(copy.deepcopy(toy), toy_inputs(2), 'toy')


CONVERSION = """
import torch
from moving_object_detector.engines.openvino_engine import OpenVinoEngine

OpenVinoEngine('float32', 1).load(torch.nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),), 'toy')
"""


@needs_openvino
def test_building_an_engine_tells_nobody(tmp_path):
    """OpenVINO by itself numbers the user in a file in the home folder, and sends that number away."""
    environment = {name: value for name, value in os.environ.items() if name not in ('CI', 'TF_BUILD', 'JENKINS_URL')}
    environment |= {'HOME': str(tmp_path), 'PYTHONPATH': os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, '-c', CONVERSION], env=environment, check=True, timeout=120)
    assert not list(tmp_path.rglob('*'))


def test_the_first_output_is_looked_at(generator):
    broken = copy.deepcopy(generator)
    with torch.no_grad():
        broken.conv1.conv.weight.fill_(3e38)
    with pytest.raises(UserError, match='precision'):
        MaskEngine(TorchEngine(torch.device('cpu')), broken, (32, 64))
