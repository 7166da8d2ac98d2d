"""Merged upsampling against loops; 8-bit integers: rounding by hand, ranges, their file, real integer kernels."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from moving_object_detector.common.errors import ModelError, UserError
from moving_object_detector.detection.build import build_detector
from moving_object_detector.detection.config import DetectorConfig, FlowConfig
from moving_object_detector.engines.base import MaskEngine
from moving_object_detector.engines.create import create_engine
from moving_object_detector.networks.generator import Generator, ScaledConv
from moving_object_detector.networks.generator_forms import (
    FLOATING,
    MergedConv,
    QuantisedConv,
    load_ranges,
    measure_ranges,
    merge_upsampling,
    quantise,
    ranges_path,
    save_ranges,
)
from moving_object_detector.networks.weights import save_network, weights_hash
from moving_object_detector.programs import models
from moving_object_detector.programs.commands import quantise as quantise_program

CPU = torch.device('cpu')
SIZE = (32, 64)
needs_openvino = pytest.mark.skipif(find_spec('openvino') is None, reason='OpenVINO is not installed here')


def inputs(seed, batch=3):
    rng = torch.Generator().manual_seed(seed)
    image, flow = torch.rand(batch, 3, *SIZE, generator=rng) - 0.5, torch.randn(batch, 2, 4, 8, generator=rng)
    return image, torch.nn.functional.interpolate(flow, SIZE, mode='bilinear')


@pytest.fixture(scope='module')
def generator() -> Generator:
    """Random weights whose masks go from near 0 to near 1."""
    torch.manual_seed(5)
    generator = Generator().eval()
    with torch.no_grad():
        generator.conv17.gamma.fill_(30.0)
    return generator


@pytest.fixture(scope='module')
def ranges(generator):
    return measure_ranges(generator, [inputs(0), inputs(1)])


def layer(inputs=4, outputs=3, **options):
    torch.manual_seed(7)
    made = ScaledConv(inputs, outputs, **options)
    with torch.no_grad():
        made.gamma.uniform_(0.5, 2)
        made.beta.normal_()
        made.conv.bias.normal_()
    return made.eval()


@pytest.mark.parametrize('size', [(1, 1), (4, 6), (5, 3)])
def test_layer_against_loops(size):
    """Each output by nine products of the enlarged image, its border zero."""
    torch.manual_seed(1)
    layer = ScaledConv(2, 3)
    with torch.no_grad():
        for parameter in (layer.gamma, layer.beta, layer.conv.bias):
            parameter.normal_()
    x = torch.randn(2, 2, *size)
    large = np.pad(x.numpy().repeat(2, 2).repeat(2, 3), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight, bias, gamma, beta = (
        value.detach().numpy() for value in (layer.conv.weight, layer.conv.bias, layer.gamma, layer.beta)
    )
    expected = np.zeros((2, 3, 2 * size[0], 2 * size[1]))
    for row in range(2 * size[0]):
        for column in range(2 * size[1]):
            window = large[:, :, row : row + 3, column : column + 3]
            sums = np.einsum('biyx,oiyx->bo', window, weight) + bias
            expected[:, :, row, column] = sums * gamma / np.sqrt(1.001) + beta
    with torch.no_grad():
        np.testing.assert_allclose(MergedConv(layer).upsampled(x).numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(layer.upsampled(x).numpy(), expected, atol=1e-5)


def test_generator_is_the_same_with_less_work(generator):
    torch.manual_seed(2)
    image, flow = torch.rand(2, 3, 32, 64) - 0.5, torch.randn(2, 2, 32, 64)
    merged = merge_upsampling(generator)
    work = []
    masks = []
    for network in (generator, merged):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            masks.append(network(image, flow))
        work.append(counter.get_total_flops())
    torch.testing.assert_close(masks[1], masks[0], atol=1e-5, rtol=0)
    assert masks[0].std() > 0.05
    # PyTorch counts a transposed convolution by its inputs: 16 taps for 4 outputs.
    assert work[1] < 0.9 * work[0]


@pytest.mark.parametrize('options', [{}, {'stride': 2}, {'dilation': 4}])
def test_rounding_by_hand(options):
    """Against integers in NumPy: 8-bit inputs and weights of channels that differ in range, sums in 64 bits."""
    conv = layer(**options)
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (1, 4, 8, 12)) * np.array((0.1, 1, 10, 50))[:, None, None]
    bounds = np.stack((x.min((0, 2, 3)), x.max((0, 2, 3))))
    scale = conv.gamma.detach().numpy().astype(float) / math.sqrt(1.001)
    weight = conv.conv.weight.detach().numpy() * scale[:, None, None, None]
    factor = np.sqrt(np.abs(bounds).max(0) / np.abs(weight).max((0, 2, 3)))
    low, high = (bounds[0] / factor).min(), (bounds[1] / factor).max()
    step = (high - low) / 255
    zero = round(-low / step)
    integers = np.clip(np.round(x / factor[:, None, None] / step) + zero, 0, 255).astype(np.int64) - zero
    weight = weight * factor[:, None, None]
    weight_step = np.abs(weight).max((1, 2, 3)) / 127
    rounded = np.round(weight / weight_step[:, None, None, None]).astype(np.int64)
    # The same convolution with integers, by the layer itself: float64 holds them exactly.
    plain = layer(**options).double()
    with torch.no_grad():
        plain.conv.weight.copy_(torch.from_numpy(rounded))
        plain.conv.bias.zero_()
        plain.gamma.fill_(math.sqrt(1.001))
        plain.beta.zero_()
        sums = plain(torch.from_numpy(integers).double()).numpy()
    expected = sums * (weight_step * step)[:, None, None]
    offset = conv.conv.bias.detach().numpy() * scale + conv.beta.detach().numpy()
    expected = expected + offset[:, None, None]
    with torch.no_grad():
        ours = QuantisedConv(conv, torch.from_numpy(bounds).float())(torch.from_numpy(x).float()).numpy()
        exact = conv(torch.from_numpy(x).float()).numpy()
    # A number half-way between two levels may go either way in float32.
    assert np.quantile(np.abs(ours - expected), 0.98) < 1e-3
    assert 0 < np.abs(ours - exact).mean() < 0.02 * exact.std()


def test_ranges_are_a_quantile_over_samples(generator):
    """The second layer gets the first one's output: its channels' extremes, sample by sample, by NumPy."""
    image, flow = inputs(2, batch=8)
    with torch.no_grad():
        first = torch.nn.functional.elu(generator.conv1(torch.cat((image, flow), 1))).numpy()
    # In batches of unequal length: what counts is the sample.
    found = measure_ranges(generator, [(image[:3], flow[:3]), (image[3:], flow[3:])])['conv2'].numpy()
    np.testing.assert_allclose(found[0], np.minimum(np.quantile(first.min((2, 3)), 0.1, axis=0), 0), atol=1e-5)
    np.testing.assert_allclose(found[1], np.maximum(np.quantile(first.max((2, 3)), 0.9, axis=0), 0), atol=1e-5)


def test_no_samples(generator):
    with pytest.raises(ValueError, match='no samples'):
        measure_ranges(generator, [])


def test_measuring_leaves_nothing_behind(generator, ranges):
    assert not any(module._forward_pre_hooks for module in generator.modules())
    assert set(ranges) == {f'conv{n}' for n in range(1, 18)} - set(FLOATING)
    assert weights_hash(quantise(generator, ranges).state_dict()) != weights_hash(generator.state_dict())


@needs_openvino
def test_openvino_computes_in_integers(generator, ranges):
    """Same masks as the rounding in PyTorch, within what one level more or less does; and the kernels are int8."""
    import openvino

    from moving_object_detector.engines.openvino_engine import _converted

    small = quantise(generator, ranges)
    image, flow = inputs(5)
    with torch.no_grad():
        expected, exact = small(image, flow), generator(image, flow)
    engine = create_engine('openvino', CPU, precision='int8')
    masks = MaskEngine(engine, quantise(generator, ranges), SIZE, 3)
    assert masks.name == 'openvino int8 on cpu'
    difference = (masks(image, flow) - expected).abs()
    assert difference.mean() < 0.01
    assert (exact - expected).abs().mean() < 0.05
    assert exact.std() > 0.05
    compiled = openvino.Core().compile_model(
        _converted(small, (image, flow)), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )
    kernels = [
        (node.get_rt_info()['layerType'].value, node.get_rt_info()['runtimePrecision'].value)
        for node in compiled.get_runtime_model().get_ops()
    ]
    convolutions = [precision for kind, precision in kernels if kind == 'Convolution']
    assert len(convolutions) == 17
    integers = sum('8' in precision for precision in convolutions)
    if integers == 0 and openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME').startswith('ARM'):
        pytest.skip('OpenVINO has no integer convolutions for this CPU')
    assert integers == 17 - len(FLOATING)


def test_file_comes_back(tmp_path, generator, ranges):
    path = ranges_path(tmp_path / 'mine.safetensors')
    assert path == tmp_path / 'mine-int8.safetensors'
    save_ranges(path, generator, ranges, {'samples': '6'})
    back = load_ranges(path, generator)
    assert set(back) == set(ranges)
    assert all(torch.equal(back[name], ranges[name]) for name in ranges)


def test_bad_files(tmp_path, generator, ranges):
    path = tmp_path / 'g-int8.safetensors'
    with pytest.raises(ModelError, match='run quantise on the model'):
        load_ranges(path, generator)
    path.write_bytes(b'no file of this kind')
    with pytest.raises(ModelError, match='is not a whole safetensors file'):
        load_ranges(path, generator)
    save_file({'conv2': torch.zeros(2, 32)}, path)
    with pytest.raises(ModelError, match='holds no int8 ranges'):
        load_ranges(path, generator)
    save_ranges(path, Generator(), ranges, {})
    with pytest.raises(ModelError, match='other weights'):
        load_ranges(path, generator)
    for damage, message in (
        (lambda r: r.pop('conv4'), 'are not those of the generator'),
        (lambda r: r.update(conv4=r['conv4'][:, 1:]), 'are not those of the generator'),
        (lambda r: r.update(conv4=r['conv4'].double()), 'are not those of the generator'),
        (lambda r: r.update(extra=r['conv4'].double()), 'are not those of the generator'),
        (lambda r: r.update(conv4=r['conv4'] * math.nan), 'not finite'),
        (lambda r: r.update(conv4=r['conv4'].abs() + 1), 'leave out zero'),
    ):
        spoiled = dict(ranges)
        damage(spoiled)
        save_ranges(path, generator, spoiled, {})
        with pytest.raises(ModelError, match=message):
            load_ranges(path, generator)


def test_a_generator_with_more_flow_channels():
    torch.manual_seed(5)
    generator = Generator(7).eval()
    image, flow = inputs(6)
    flow = torch.cat((flow, flow.flip(2), flow, flow[:, :1]), 1)
    small = quantise(generator, measure_ranges(generator, [(image, flow)]))
    with torch.no_grad():
        assert (small(image, flow) - generator(image, flow)).abs().mean() < 0.05
    masks = MaskEngine(create_engine('torch', CPU), small, SIZE, 3)(image, flow)
    torch.testing.assert_close(masks, small(image, flow))


def test_only_openvino_has_it():
    with pytest.raises(UserError, match='precision is int8, which only engine openvino'):
        create_engine('torch', CPU, precision='int8')


@needs_openvino
def test_from_program_to_detector(tmp_path, monkeypatch, generator, capsys):
    """Without the file a detector says what to do; `quantise` makes the file; then the detector runs with it."""
    model = tmp_path / 'mine.safetensors'
    metadata = {'flow_input': 'residual', 'flow_backend': 'dis-medium', 'height': '32', 'width': '64'}
    save_network(generator, model, metadata)
    config = DetectorConfig(
        model=str(model), device='cpu', engine='openvino', precision='int8', flow=FlowConfig(height=64, width=128)
    )
    with pytest.raises(UserError, match='run quantise on the model'):
        build_detector(config)
    monkeypatch.setattr(models, 'RANGE_SIZES', (SIZE,))
    content = model.read_bytes()
    assert quantise_program([str(model), '--samples', '3', '--out', str(model)]) == 2
    assert 'would be lost' in capsys.readouterr().err
    assert model.read_bytes() == content
    assert quantise_program([str(model), '--samples', '3']) == 0
    assert capsys.readouterr().out == f'{tmp_path / "mine-int8.safetensors"}: ranges of 14 layers\n'
    assert build_detector(config).engine.name == 'openvino int8 on cpu'


def test_program_without_model(tmp_path, capsys):
    assert quantise_program([str(tmp_path / 'none.safetensors')]) == 2
    assert 'no such model file' in capsys.readouterr().err
    before = set(sys.modules)
    with pytest.raises(SystemExit):
        quantise_program(['--help'])
    assert 'default: 48' in capsys.readouterr().out
    assert set(sys.modules) == before


def test_file_holds_numbers_alone(tmp_path, generator, ranges):
    """A few tens of kilobytes of tensors, that any reader of safetensors reads."""
    path = tmp_path / 'g-int8.safetensors'
    save_ranges(path, generator, ranges, {})
    assert path.stat().st_size < 30_000
    assert {len(tensor) for tensor in load_file(path).values()} == {2}
