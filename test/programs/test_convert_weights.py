from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from moving_object_detector.common.errors import ModelError
from moving_object_detector.networks.authors import from_tensorflow
from moving_object_detector.networks.generator import Generator
from moving_object_detector.networks.inpainter import Inpainter
from moving_object_detector.networks.weights import load_network, load_weights
from moving_object_detector.programs.commands import convert_weights as main

HAS_TENSORFLOW = importlib.util.find_spec('tensorflow') is not None

# What TensorFlow 1 called the variables of the released code: scope of a convolution (kernel, bias) and of the norm
# after it (gamma, beta), and the kernel's shape as height, width, inputs, outputs.
GENERATOR = """
conv1 batch_normalization 5 5 5 32
conv2_downsample batch_normalization_1 3 3 32 64
conv3 batch_normalization_2 3 3 64 64
conv4_downsample batch_normalization_3 3 3 64 128
conv5 batch_normalization_4 3 3 128 128
conv6 batch_normalization_5 3 3 128 128
conv7_atrous batch_normalization_6 3 3 128 128
conv8_atrous batch_normalization_7 3 3 128 128
conv9_atrous batch_normalization_8 3 3 128 128
conv10_atrous batch_normalization_9 3 3 128 128
conv11 batch_normalization_10 3 3 128 128
conv12 batch_normalization_11 3 3 128 128
conv13_upsample/conv13_upsample_conv conv13_upsample/batch_normalization 3 3 128 64
conv14 batch_normalization_12 3 3 64 64
conv15_upsample/conv15_upsample_conv conv15_upsample/batch_normalization 3 3 64 32
conv16 batch_normalization_13 3 3 32 16
conv17 batch_normalization_14 3 3 16 2
"""
# The same for the inpainter (weights, biases).
INPAINTER = """
aconv1 7 7 3 16 | aconv2 5 5 16 32 | aconv3 5 5 32 64 | aconv31 3 3 64 64 | aconv4 3 3 64 128 | aconv41 3 3 128 128
aconv5 3 3 128 128 | aconv51 3 3 128 128 | aconv6 3 3 128 128
bconv1 7 7 4 16 | bconv2 5 5 16 32 | bconv3 5 5 32 64 | bconv31 3 3 64 64 | bconv4 3 3 64 128 | bconv41 3 3 128 128
bconv5 3 3 128 128 | bconv51 3 3 128 128 | bconv6 3 3 128 128
deconv5 4 4 256 128 | flow5 3 3 384 2
deconv4 4 4 384 128 | upflow4 4 4 2 2 | flow4 3 3 386 2
deconv3 4 4 386 64 | upflow3 4 4 2 2 | flow3 3 3 194 2
deconv2 4 4 194 32 | upflow2 4 4 2 2 | flow2 3 3 98 2
deconv1 4 4 98 16 | upflow1 4 4 2 2 | flow1 5 5 50 2
"""


def variable_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for line in GENERATOR.strip().splitlines():
        conv, norm, *numbers = line.split()
        kernel = tuple(map(int, numbers))
        shapes[f'MaskNet//{conv}/kernel'] = kernel
        shapes |= {f'MaskNet//{name}': kernel[3:] for name in (f'{conv}/bias', f'{norm}/gamma', f'{norm}/beta')}
    for entry in INPAINTER.strip().replace('\n', '|').split('|'):
        scope, *numbers = entry.split()
        kernel = tuple(map(int, numbers))
        shapes |= {f'FlownetS//{scope}/weights': kernel, f'FlownetS//{scope}/biases': kernel[3:]}
    return shapes


@pytest.fixture(scope='module')
def variables() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(0, 0.05, shape).astype(np.float32) for name, shape in variable_shapes().items()}


def test_variables_are_as_many_as_the_networks_have() -> None:
    counts = {'MaskNet': 0, 'FlownetS': 0}
    for name, shape in variable_shapes().items():
        counts[name.split('/')[0]] += int(np.prod(shape))
    assert counts == {'MaskNet': 1_451_062, 'FlownetS': 3_388_610}


@pytest.mark.parametrize('slashes', ['/', '//'])
@pytest.mark.parametrize(
    ('architecture', 'network', 'ours', 'theirs'),
    [
        ('generator', Generator, 'conv1.conv.weight', 'MaskNet//conv1/kernel'),
        ('generator', Generator, 'conv3.beta', 'MaskNet//batch_normalization_2/beta'),
        ('generator', Generator, 'conv13.gamma', 'MaskNet//conv13_upsample/batch_normalization/gamma'),
        ('generator', Generator, 'conv13.conv.bias', 'MaskNet//conv13_upsample/conv13_upsample_conv/bias'),
        ('generator', Generator, 'conv14.gamma', 'MaskNet//batch_normalization_12/gamma'),
        ('generator', Generator, 'conv17.beta', 'MaskNet//batch_normalization_14/beta'),
        ('inpainter', Inpainter, 'aconv31.weight', 'FlownetS//aconv31/weights'),
        ('inpainter', Inpainter, 'deconv5.bias', 'FlownetS//deconv5/biases'),
        ('inpainter', Inpainter, 'upflow4.weight', 'FlownetS//upflow4/weights'),
    ],
)
def test_mapping_from_tensorflow(
    slashes: str,
    architecture: str,
    network: Callable[[], torch.nn.Module],
    ours: str,
    theirs: str,
    variables: dict[str, np.ndarray],
) -> None:
    arrays = {name.replace('//', slashes): array for name, array in variables.items()}
    arrays |= {'pwcnet/conv1a/kernel': np.zeros(1), 'MaskNet//batch_normalization/moving_mean': np.zeros(32)}
    state = from_tensorflow(arrays, architecture, 'model.best')
    network().load_state_dict(state)
    array = variables[theirs]
    if array.ndim == 1:
        assert np.array_equal(state[ours].numpy(), array)
    else:
        height, width, inputs, outputs = array.shape
        assert state[ours].shape == (outputs, inputs, height, width)
        for place in [(0, 0, 0, 0), (1, 2, inputs - 1, 1), (height - 1, 0, 1, outputs - 1)]:
            row, column, source, target = place
            assert state[ours][target, source, row, column] == array[place]


def test_variable_missing(variables: dict[str, np.ndarray]) -> None:
    arrays = {name: array for name, array in variables.items() if 'conv9' not in name and 'FlownetS' not in name}
    with pytest.raises(ModelError, match=r'2 of 68.*conv9_atrous/kernel'):
        from_tensorflow(arrays, 'generator', 'model.best')
    with pytest.raises(ModelError, match=r'inpainter.*64 of 64'):
        from_tensorflow(arrays, 'inpainter', 'model.best')


def test_missing_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (tmp_path / 'none.pth.tar', tmp_path):
        assert main([str(path), str(tmp_path / 'out.safetensors')]) == 2
        assert capsys.readouterr().err.startswith(f'error: {path}: no TensorFlow checkpoint')


def test_exchanged_arguments_destroy_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / 'model.best.index'
    source.write_bytes(b'checkpoint')
    assert main([str(source), str(source)]) == 2
    assert 'model files end in .safetensors' in capsys.readouterr().err
    assert source.read_bytes() == b'checkpoint'


def test_a_pytorch_file_is_for_flow_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / 'raft-small.pth'
    source.write_bytes(b'PK')
    assert main([str(source), str(tmp_path / 'out.safetensors')]) == 2
    assert 'flow.model' in capsys.readouterr().err


def test_several_checkpoints_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (100, 200):
        (tmp_path / f'model-{step}.index').touch()
    assert main([str(tmp_path), str(tmp_path / 'out.safetensors')]) == 2
    assert 'has several TensorFlow checkpoints (model-100, model-200)' in capsys.readouterr().err


@pytest.mark.skipif(HAS_TENSORFLOW, reason='TensorFlow is installed')
def test_without_tensorflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'model.best.index').touch()
    assert main([str(tmp_path / 'model.best'), str(tmp_path / 'out.safetensors')]) == 2
    assert 'run `pip install tensorflow`' in capsys.readouterr().err


@pytest.mark.skipif(not HAS_TENSORFLOW, reason='TensorFlow is not installed; nothing but this import needs it')
class TestTensorFlow:
    @pytest.fixture
    def checkpoint(self, variables: dict[str, np.ndarray], tmp_path: Path) -> Path:
        import tensorflow as tf

        prefix = tmp_path / 'released' / 'model.best'
        prefix.parent.mkdir()
        arrays = {**variables, 'global_step': np.array(7), 'pwcnet/conv1a/kernel': np.zeros((3, 3), np.float32)}
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(arrays),
            shape_and_slices=[''] * len(arrays),
            tensors=[tf.constant(array) for array in arrays.values()],
        )
        return prefix

    @pytest.mark.parametrize('given', ['', '.index', '.data-00000-of-00001', '/..'])
    def test_generator(self, given: str, checkpoint: Path, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
        source = checkpoint.parent if given == '/..' else Path(f'{checkpoint}{given}')
        output = tmp_path / 'generator.safetensors'
        assert main([str(source), str(output)]) == 0
        state, metadata = load_weights(output, 'generator')
        assert metadata == {
            'architecture': 'generator',
            'format': '2',
            'flow_input': 'normalised',
            'flow_backend': 'pwcnet',
            'height': '192',
            'width': '384',
            'source': source.name,
        }
        expected = variables['MaskNet//conv16/kernel'].transpose(3, 2, 0, 1)
        assert np.array_equal(state['conv16.conv.weight'].numpy(), expected)
        network, _ = load_network(output, 'generator')
        with torch.no_grad():
            assert network(torch.rand(1, 3, 16, 16), torch.rand(1, 2, 16, 16)).isfinite().all()

    def test_inpainter(self, checkpoint: Path, variables: dict[str, np.ndarray], tmp_path: Path) -> None:
        output = tmp_path / 'inpainter.safetensors'
        options = ['--network', 'inpainter', '--height', '96', '--width', '192', '--flow-input', 'residual']
        assert main([str(checkpoint), str(output), *options]) == 0
        state, metadata = load_weights(output, 'inpainter')
        assert (metadata['height'], metadata['width'], metadata['flow_input']) == ('96', '192', 'residual')
        expected = variables['FlownetS//flow1/weights'].transpose(3, 2, 0, 1)
        assert np.array_equal(state['flow1.weight'].numpy(), expected)

    @pytest.mark.parametrize('damage', ['no data', 'short data', 'bad index'])
    def test_damaged(self, damage: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data, index = Path(f'{checkpoint}.data-00000-of-00001'), Path(f'{checkpoint}.index')
        if damage == 'no data':
            data.unlink()
        elif damage == 'short data':
            data.write_bytes(data.read_bytes()[:1000])
        else:
            index.write_bytes(index.read_bytes()[:100])
        output = tmp_path / 'out.safetensors'
        assert main([str(checkpoint), str(output)]) == 2
        assert 'is no whole TensorFlow checkpoint' in capsys.readouterr().err
        assert not output.exists()


def test_help_loads_no_torch() -> None:
    code = (
        'import sys\n'
        'from moving_object_detector.programs.commands import convert_weights as main\n'
        'try:\n    main(["--help"])\nexcept SystemExit as end:\n    assert end.code == 0\n'
        'assert "torch" not in sys.modules and "tensorflow" not in sys.modules'
    )
    result = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert 'TensorFlow checkpoint' in result.stdout
